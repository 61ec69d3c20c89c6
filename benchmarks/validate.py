"""What validate costs an image beyond decoding it: `python benchmarks/validate.py [CamVid's folder]`.

CPU milliseconds of one process, best of seven rounds that alternate between both: other load on the machine only adds.
Without a folder, 480x360 scenes are generated (JPEG images, PNG masks).
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
from PIL import Image

from segraft.data import reading
from segraft.data.formats import Sample, list_samples
from segraft.data.taxonomy import Taxonomy, load_taxonomy
from segraft.data.validation.facts import Source, read_sample
from segraft.data.validation.masks import MaskReader
from segraft.data.validation.scan import keep_memory
from segraft.params import load_params

REPOSITORY = Path(__file__).parents[1]
IMAGES, ROUNDS = 100, 7


def camvid(root: Path) -> tuple[list[Sample], Taxonomy]:
    params = load_params(REPOSITORY / "params.yaml", ["data.target.format=camvid"])
    samples = list_samples(root, params.data.target).samples
    return list(samples[:: len(samples) // IMAGES][:IMAGES]), load_taxonomy(REPOSITORY / "data/taxonomies", "camvid")


def generated(root: Path) -> tuple[list[Sample], Taxonomy]:
    sys.path.insert(0, str(REPOSITORY))
    from tests.data.blobs import TAXONOMY, scene

    samples = []
    for index in range(IMAGES):
        image, mask = scene(index, (360, 480))
        Image.fromarray(image).save(root / f"{index}.jpg", quality=92)
        Image.fromarray(mask).save(root / f"{index}.png")
        samples.append(Sample(str(index), "train", f"{index}.jpg", f"{index}.png", str(index)))
    return samples, Taxonomy.model_validate(TAXONOMY)


def cpu_ms(work: Callable[[Sample], object], samples: list[Sample]) -> float:
    begun = time.process_time()
    for sample in samples:
        work(sample)
    return 1000 * (time.process_time() - begun) / len(samples)


def main() -> None:
    cv2.setNumThreads(1)
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else folder).resolve()
        samples, taxonomy = (camvid if len(sys.argv) > 1 else generated)(root)
        source = Source(root, MaskReader(taxonomy, "ids"), 40_000_000)

        def decode(sample: Sample) -> None:
            reading.read_image(root / sample.image)
            reading.raw_mask(root / sample.mask)

        def validate(sample: Sample) -> None:
            read_sample(source, "target", sample)

        cpu_ms(decode, samples[:20])
        cpu_ms(validate, samples[:20])
        rounds = [(cpu_ms(decode, samples), cpu_ms(validate, samples)) for _ in range(ROUNDS)]
    decoding, total = (min(times) for times in zip(*rounds, strict=True))
    print(f"{len(samples)} images with masks: decoding {decoding:.2f} ms, validate {total:.2f} ms an image")
    print(f"beyond decoding: {total - decoding:.2f} ms (budget 5 ms)")


if __name__ == "__main__":
    main()
