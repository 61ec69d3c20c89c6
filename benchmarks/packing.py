"""Reading training crops in shuffled order: the packed format against what else it could have been.

    python -m benchmarks.packing [--rounds 5]

Each reader gives uint8 crops of 224×224 of image and mask out of the same 360×480 samples; one thread, warm file cache.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import litdata
import numpy as np
import webdataset
from PIL import Image

from benchmarks.common import interleaved, report, write_files
from benchmarks.training import pack

FILES, CROP = 96, 224


def crops(samples):
    for image, mask in samples:
        np.ascontiguousarray(image[60 : 60 + CROP, 90 : 90 + CROP])
        np.ascontiguousarray(mask[60 : 60 + CROP, 90 : 90 + CROP])


def files(pairs, rng):
    return lambda: crops(
        (np.asarray(Image.open(pairs[i][0])), np.asarray(Image.open(pairs[i][1]))) for i in rng.permutation(FILES)
    )


def arrow(packed, rng):
    split = packed.split("train")
    return lambda: crops((s.image, s.mask) for s in (split[int(i)] for i in rng.permutation(FILES)))


def tar(pairs, folder):
    path = str(folder / "set.tar")
    with webdataset.TarWriter(path) as writer:
        for image, mask in pairs:
            writer.write(
                {
                    "__key__": image.stem,
                    "image.npy": np.asarray(Image.open(image)),
                    "mask.npy": np.asarray(Image.open(mask)),
                }
            )
    dataset = webdataset.WebDataset(path, shardshuffle=False).shuffle(FILES)

    def read():
        crops((np.load(io.BytesIO(s["image.npy"])), np.load(io.BytesIO(s["mask.npy"]))) for s in dataset)

    return read


def lit(pairs, folder):
    out = str(folder / "lit")
    samples = [{"image": np.asarray(Image.open(i)), "mask": np.asarray(Image.open(m))} for i, m in pairs]
    litdata.optimize(
        fn=samples.__getitem__, inputs=list(range(FILES)), output_dir=out, chunk_bytes="64MB", num_workers=1
    )
    dataset = litdata.StreamingDataset(out, shuffle=True)
    return lambda: crops((s["image"], s["mask"]) for s in dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = write_files(folder, FILES)
        work = {
            "PNG files, PIL": files(pairs, rng),
            "WebDataset, raw npy in tar": tar(pairs, folder),
            "litdata, raw": lit(pairs, folder),
            "Arrow IPC, mapped (segraft)": arrow(pack(pairs, folder / "packed"), rng),
        }
        report(interleaved(work, rounds), "PNG files, PIL", FILES, "images")


if __name__ == "__main__":
    main()
