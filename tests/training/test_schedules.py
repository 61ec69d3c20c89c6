from pathlib import Path

import pytest

from segraft.errors import UserError
from segraft.params import load_params
from segraft.training.schedules import learning_rate, lr_factor, planned

PARAMS = Path(__file__).parents[2] / "params.yaml"
BASE = load_params(PARAMS).finetune
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


def test_one_cycle_rises_over_three_tenths_and_falls_to_next_to_nothing():
    values = factors(schedule="one_cycle")
    assert values[0] == pytest.approx(1 / 25) and values[30] == pytest.approx(1.0) and values[99] < 0.002
    assert values[:31] == sorted(values[:31]) and values[30:] == sorted(values[30:], reverse=True)


def test_one_cycle_is_pytorch_s():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=TOTAL, cycle_momentum=False)
    rates = [theirs.get_last_lr()[0]]
    for _ in range(TOTAL - 1):
        optimizer.step()
        theirs.step()
        rates.append(theirs.get_last_lr()[0])
    assert factors(schedule="one_cycle") == pytest.approx(rates, abs=0.06)


def test_one_cycle_and_a_warm_up_are_one_too_many():
    with pytest.raises(UserError, match="one_cycle has a rise of its own; say warmup: none"):
        load_params(PARAMS, ["finetune.schedule=one_cycle"])


def test_a_group_that_starts_late_has_its_whole_schedule_in_what_is_left():
    training = BASE.model_copy(update={"schedule": "cosine", "warmup": "linear", "warmup_steps": 10})
    group = {"peak": 0.5, "start": 40}
    rates = [learning_rate(group, step, TOTAL, EPOCH, training) for step in range(TOTAL)]
    assert set(rates[:40]) == {0.0} and rates[40] == 0.05 and rates[49] == rates[50] == 0.5 and rates[99] < 0.01


def test_the_plan_has_a_line_a_part_from_the_first_step_to_the_last():
    groups = [
        {"part": "encoder", "peak": 0.1, "start": 50},
        {"part": "encoder", "peak": 0.1, "start": 50},
        {"part": "decoder and head", "peak": 1.0, "start": 0},
    ]
    plan = planned(groups, 1000, 100, BASE.model_copy(update={"warmup": "none"}))
    assert list(plan) == ["encoder", "decoder and head"] and plan["encoder"][0] == (0, 0.0)
    assert plan["decoder and head"][0] == (0, 1.0) and plan["encoder"][-1][0] == 999 and len(plan["encoder"]) <= 61
    assert planned(groups, 0, 100, BASE) == {}
