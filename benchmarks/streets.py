"""Street scenes a second: the embedded datasets as params.yaml has them, drawn and written, workers' start too.

    python -m benchmarks.streets [--rounds 5]

Images of both datasets count; the median over the rounds, and their range.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine
from segraft.params import load_params
from segraft.steps.streets import streets

PARAMS = Path(__file__).parents[1] / "params.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often to draw all of it")
    rounds = parser.parse_args().rounds
    params = load_params(PARAMS).streets
    rates = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            started = time.perf_counter()
            counts = streets(params, Path(name, "source"), Path(name, "target"))
            rates.append(sum(counts.values()) / (time.perf_counter() - started))
    print(machine())
    print(f"{'×'.join(map(str, params.size))}: {statistics.median(rates):.1f} images/s (", end="")
    print(f"{min(rates):.1f} to {max(rates):.1f} in {rounds} rounds of {sum(counts.values()):.0f})")


if __name__ == "__main__":
    main()
