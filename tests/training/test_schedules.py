from pathlib import Path

import pytest

from segraft.params import load_params
from segraft.training.schedules import lr_factor

BASE = load_params(Path(__file__).parents[2] / "params.yaml").finetune
TOTAL, EPOCH = 100, 10


def factors(**changes):
    training = BASE.model_copy(update={"warmup": "none", **changes})
    return [lr_factor(step, TOTAL, EPOCH, training) for step in range(TOTAL)]


def test_constant():
    assert set(factors(schedule="constant")) == {1.0}


def test_step_drops_every_so_many_epochs():
    values = factors(schedule="step", decay=0.5, decay_every=3)
    assert values[29] == 1.0 and values[30] == 0.5 and values[60] == 0.25


def test_exponential_is_eta_times_decay_to_the_epoch():
    values = factors(schedule="exponential", decay=0.9)
    assert values[10] == pytest.approx(0.9) and values[50] == pytest.approx(0.9**5)


def test_cosine_goes_from_one_past_a_half_to_zero():
    values = factors(schedule="cosine")
    assert values[0] == 1.0 and values[50] == pytest.approx(0.5) and values[99] < 0.001
    assert values == sorted(values, reverse=True)


def test_poly():
    assert factors(schedule="poly", power=0.9)[40] == pytest.approx(0.6**0.9)


def test_linear_warmup_rises_to_the_peak_and_the_decay_starts_there():
    values = factors(schedule="cosine", warmup="linear", warmup_steps=20)
    assert values[0] == 1 / 20 and values[19] == 1.0 and values[20] == 1.0 and values[21] < 1.0


def test_constant_warmup_waits_at_a_tenth():
    values = factors(schedule="constant", warmup="constant", warmup_steps=5)
    assert values[:6] == [0.1] * 5 + [1.0]


def test_warmup_longer_than_the_run_never_divides_by_zero():
    assert factors(schedule="cosine", warmup="linear", warmup_steps=200)[-1] == 0.5
