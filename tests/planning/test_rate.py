"""The learning-rate range test where the right answer is known."""

import math

import numpy as np
import pytest

from segraft.data.packed import PackedDataset
from segraft.device import setup
from segraft.planning.machine import NoStore, Probe, bare
from segraft.planning.plan import Inputs, starting_network
from segraft.planning.rate import BOUNDS, RANGES, SHARES, read_range
from segraft.training.distributed import World
from tests.planning.conftest import PARAMS, PLAIN, manifest, pack

RATES = np.geomspace(1e-4, 1e-1, 31).tolist()
BOUND, SHARE = BOUNDS["adamw"], SHARES["adamw"]


def valley(lowest, depth=0.3, noise=0.0, seed=0):
    """Ratios that fall to `lowest` over two decades and blow up beyond it."""
    x = np.log10(np.array(RATES) / lowest)
    curve = np.where(x < 0, 1 - depth * np.clip(1 + x / 2, 0, 1) ** 2, (1 - depth) * np.exp(3 * x))
    return (curve * np.exp(np.random.default_rng(seed).normal(0, noise, len(x)))).tolist()


@pytest.mark.parametrize("lowest", [3e-3, 1e-2, 3e-2])
def test_noise_moves_the_answer_by_less_than_a_factor_of_three(lowest):
    clean = read_range(RATES, [valley(lowest)], BOUND, SHARE)
    assert lowest / 2 < clean.lowest < 2 * lowest and clean.chosen == min(SHARE * clean.lowest, BOUND[1])
    for seed in range(20):
        noisy = [valley(lowest, noise=0.08, seed=10 * seed + i) for i in range(RANGES)]
        assert clean.chosen / 3 < read_range(RATES, noisy, BOUND, SHARE).chosen < 3 * clean.chosen


def test_one_range_that_goes_astray_is_outvoted():
    good = [valley(1e-2, noise=0.02, seed=seed) for seed in (1, 2)]
    astray = [0.2, *[30.0] * 10, math.nan]
    alone, together = (read_range(RATES, ranges, BOUND, SHARE) for ranges in (good, [*good, astray]))
    assert together.chosen == pytest.approx(alone.chosen, rel=0.5)


def test_the_rate_is_a_stable_one_of_gradient_descent_whose_limit_is_known():
    """On a quadratic of largest curvature h, descent diverges beyond the rate 2 / h."""
    curvatures = np.geomspace(1, 100, 20)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rates, ranges = np.geomspace(1e-5, 1e0, 51).tolist(), []
        for _ in range(RANGES):
            start = rng.normal(size=20)
            weights, ratios = start.copy(), []
            for rate in rates:
                scale = rng.gamma(4, size=20)  # the batch: what it asks for differs from step to step
                ratios.append(float((scale * curvatures * weights**2).sum() / (scale * curvatures * start**2).sum()))
                weights -= rate * curvatures * weights
            ranges.append(ratios)
        found = read_range(rates, ranges, (1e-5, 1.0), SHARES["sgd"])
        assert 0.1 / curvatures.max() < found.chosen < 2 / curvatures.max()


def test_a_fall_that_comes_back_after_divergence_does_not_count():
    ratios = valley(3e-3)
    lost = next(i for i, rate in enumerate(RATES) if rate > 1e-2)
    again = read_range(RATES, [ratios[: lost + 6] + [0.1] * (25 - lost)], BOUND, SHARE)
    assert again.lowest == read_range(RATES, [ratios], BOUND, SHARE).lowest and len(again.losses) < len(RATES)


@pytest.mark.parametrize(
    "ranges", [[[1.0] * 31], [[1.0, math.nan]], [[math.nan]], [[]], [np.linspace(1, 1.2, 31).tolist()]]
)
def test_without_a_fall_nothing_is_chosen(ranges):
    found = read_range(RATES, ranges, BOUND, SHARE)
    assert found.chosen is found.lowest is None and "kept" in found.why


def test_the_optimizers_bounds_hold_and_are_named():
    low = read_range(RATES, [valley(4e-4)], (5e-4, 1e-2), SHARE)
    assert low.chosen == 5e-4 and "beyond what suits the optimizer" in low.why
    assert "beyond" not in read_range(RATES, [valley(1e-2)], BOUND, SHARE).why


def test_the_untouched_network_is_measured_on_the_same_batches(tmp_path, pretrained):
    data = PackedDataset(pack(tmp_path, PLAIN))
    inputs = Inputs(PARAMS, data, data, manifest(data), pretrained)
    knobs, device = bare(PARAMS.finetune, 3), setup(1)

    def probe():
        network, card = starting_network(inputs)
        return Probe(network, card, data, knobs, device, NoStore(), World(device))

    untouched = probe().losses_untouched(3, "before")
    assert probe().losses_at([0.0] * 3, "steps that do not learn") == pytest.approx(untouched, rel=1e-4)
    assert probe().losses_at([1.0] * 3, "steps that learn")[1:] != pytest.approx(untouched[1:], rel=1e-2)
