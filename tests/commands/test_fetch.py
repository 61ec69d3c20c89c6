"""The whole of `segraft fetch`, with torchvision's addresses pointed at a small server on loopback."""

import hashlib
import io
import socket
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import OxfordIIITPet, SBDataset, voc

from segraft.__main__ import EXIT_DATA, EXIT_IO, main
from segraft.commands import fetch
from segraft.data.formats import list_samples
from segraft.data.reading import raw_mask
from segraft.params import Dataset, Folder

PIXELS = np.full((6, 8), 3, np.uint8)


def image(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


def mat(value: int) -> bytes:
    buffer = io.BytesIO()
    kind = np.dtype([("Segmentation", object)])
    cell = np.zeros((1, 1), kind)
    cell["Segmentation"][0, 0] = np.full((6, 8), value, np.uint8)
    savemat(buffer, {"GTcls": cell})
    return buffer.getvalue()


PETS = {
    "images.tar.gz": {"images/Abyssinian_1.jpg": image("jpeg"), "images/Bombay_2.jpg": image("jpeg")},
    "annotations.tar.gz": {
        "annotations/trimaps/Abyssinian_1.png": image("png"),
        "annotations/trimaps/Bombay_2.png": image("png"),
        "annotations/trainval.txt": b"Abyssinian_1 1 1 1\n",
        "annotations/test.txt": b"Bombay_2 2 1 1\n",
    },
}
ROOT = "VOCdevkit/VOC2012"
VOC = {
    **{f"{ROOT}/JPEGImages/{name}.jpg": image("jpeg") for name in ("2007_1", "2007_2", "2008_3")},
    **{f"{ROOT}/SegmentationClass/{name}.png": image("png") for name in ("2007_1", "2007_2")},
    f"{ROOT}/ImageSets/Segmentation/train.txt": b"2007_1\n",
    f"{ROOT}/ImageSets/Segmentation/val.txt": b"2007_2\n",
}
SBD = {f"benchmark_RELEASE/dataset/cls/{name}.mat": mat(9) for name in ("2007_1", "2007_2", "2008_3")}


class Server:
    """Serves one folder on loopback and remembers what was asked of it."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, *_):
                asked.append(f"{self.command} {self.path}")

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def archive(self, name: str, members: dict[str, bytes]) -> tuple[str, str]:
        """Put up an archive; its address and MD5."""
        with tarfile.open(self.folder / name, "w:gz") as tar:
            for path, content in members.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        url = f"http://127.0.0.1:{self.http.server_port}/{name}"
        return url, hashlib.md5((self.folder / name).read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    server = Server(tmp_path / "site")
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", [server.archive(name, PETS[name]) for name in PETS])
    url, md5 = server.archive("voc.tar.gz", VOC)
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", {"url": url, "md5": md5, "base_dir": ROOT})
    url, md5 = server.archive("benchmark.tgz", SBD)
    monkeypatch.setattr(SBDataset, "url", url)
    monkeypatch.setattr(SBDataset, "md5", md5)
    yield server
    server.http.shutdown()
    server.http.server_close()


def samples(root, name):
    folder = Folder(images="", masks="", split_files=None, group=None, encoding="ids")
    spec = Dataset(path="", format=name, taxonomy=name, include=("*",), holdout=0.0, limit=None, folder=folder)
    listing = list_samples(root, spec)
    assert listing.orphans == ()
    assert all((root / s.image).is_file() and (root / s.mask).is_file() for s in listing.samples)
    return [(s.split, s.id) for s in listing.samples]


def test_pets(server, tmp_path, capsys):
    to = tmp_path / "data/pets"
    assert main(["fetch", "pets", "--to", str(to)]) == 0
    assert samples(to, "pets") == [("train", "Abyssinian_1"), ("test", "Bombay_2")]
    assert [path.name for path in to.parent.iterdir()] == ["pets"]
    assert "pets: ready" in capsys.readouterr().out


def test_voc_then_sbd(server, tmp_path):
    to = tmp_path / "voc"
    assert main(["fetch", "sbd", "--to", str(to)]) == EXIT_DATA, "there is no VOC yet"
    assert main(["fetch", "voc", "--to", str(to)]) == 0
    assert samples(to, "voc") == [("train", "2007_1"), ("val", "2007_2")]
    assert main(["fetch", "sbd", "--to", str(to)]) == 0
    assert samples(to, "voc") == [("train", "2007_1"), ("train", "2008_3"), ("val", "2007_2")]
    masks = {path.stem: int(raw_mask(path).max()) for path in (to / "SegmentationClassAug").iterdir()}
    assert masks == {"2007_1": 3, "2008_3": 9}, "VOC's own mask where there is one, and none of val"
    assert not list(tmp_path.glob("**/.*.fetch"))


def test_an_existing_folder_is_left_alone(server, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["fetch", "pets", "--to", str(tmp_path / "mine")]) == EXIT_DATA
    assert "mine: exists already" in capsys.readouterr().err
    assert server.asked == []


def test_a_changed_file_is_refused(server, tmp_path, capsys):
    (server.folder / "images.tar.gz").write_bytes(b"something else")
    assert main(["fetch", "pets", "--to", str(tmp_path / "pets")]) == EXIT_DATA
    assert "its MD5 differs" in capsys.readouterr().err
    assert not (tmp_path / "pets").exists()
    assert not (tmp_path / ".pets.fetch/images.tar.gz").exists()


def test_what_has_arrived_is_not_downloaded_again(server, tmp_path):
    hidden = server.folder / "annotations.tar.gz"
    hidden.rename(server.folder / "later")
    assert main(["fetch", "pets", "--to", str(tmp_path / "pets")]) == EXIT_DATA
    (server.folder / "later").rename(hidden)
    server.asked.clear()
    assert main(["fetch", "pets", "--to", str(tmp_path / "pets")]) == 0
    assert "GET /annotations.tar.gz" in server.asked
    assert "GET /images.tar.gz" not in server.asked


def test_no_network(server, tmp_path, capsys):
    server.http.shutdown()
    server.http.server_close()
    assert main(["fetch", "voc", "--to", str(tmp_path / "voc")]) == EXIT_DATA
    assert "check the network and say the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"])
def test_an_answer_that_is_no_http_is_the_network_s(said, tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer():
            while True:
                try:
                    one, _ = odd.accept()
                except OSError:  # the test is over
                    return
                with one:
                    one.recv(4096)
                    one.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{odd.getsockname()[1]}/images.tar.gz"
        monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", [(address, "0" * 32)])
        assert main(["fetch", "pets", "--to", str(tmp_path / "pets")]) == EXIT_DATA
        odd.shutdown(socket.SHUT_RDWR)
    assert "check the network and say the same command again" in capsys.readouterr().err


def test_a_full_disk_is_not_the_network_s(server, tmp_path, capsys):
    (tmp_path / ".pets.fetch").mkdir()
    (tmp_path / ".pets.fetch/images.tar.gz").symlink_to("/dev/full")
    assert main(["fetch", "pets", "--to", str(tmp_path / "pets")]) == EXIT_IO
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("member", ["../../escaped.txt", "{tmp_path}/escaped.txt"])
def test_an_archive_cannot_write_elsewhere(server, tmp_path, monkeypatch, member):
    url, md5 = server.archive("evil.tar.gz", {member.format(tmp_path=tmp_path): b"x", "images/fine.jpg": b"x"})
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", [(url, md5)])
    main(["fetch", "pets", "--to", str(tmp_path / "a/b/pets")])
    inside = (tmp_path / "a/b/pets", tmp_path / "a/b/.pets.fetch")
    assert all(any(path.is_relative_to(folder) for folder in inside) for path in tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("name", fetch.BY_HAND)
def test_by_hand_says_how_and_where(name, capsys):
    assert main(["fetch", name, "--to", "data/there"]) == EXIT_DATA
    error = capsys.readouterr().err
    assert "http" in error and "data/there/" in error


def test_help_teaches_and_is_quick():
    script = (
        "import sys, time; from segraft.__main__ import main\ntry: main(['fetch', '--help'])\nexcept SystemExit: pass"
    )
    script += "\nassert 'torch' not in sys.modules and time.process_time() < 1.5"
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(name in text for name in (*fetch.SETS, *fetch.BY_HAND, "segraft fetch pets --to data/pets"))
