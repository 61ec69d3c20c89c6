"""What a fine-tuning starts from: a model of another encoder, a pruned one, one of other classes."""

import pytest
import torch

from segraft.checkpoint import load_model, load_weights, read_card, save_model
from segraft.compression.prune import prune_channels
from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.planning.plan import Inputs, starting_network
from tests.training.conftest import pack
from tests.training.test_options import finetune, log_of
from tests.training.test_run import MODEL, PARAMS, pretrain

WIDER = MODEL.model_copy(update={"encoder": "resnet34"})


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, discs):
    """Folders of untrained models by the name of their encoder."""
    made = {}
    for model in (MODEL, WIDER):
        folder = tmp_path_factory.mktemp(model.encoder)
        pretrain(folder, discs, model, epochs=0)
        made[model.encoder] = folder / "model"
    return made


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, untrained):
    folder = tmp_path_factory.mktemp("pruned")
    network, card = load_model(untrained["resnet18"])
    loss = network(torch.randn(1, 3, 64, 64)).square().mean()
    channels = prune_channels(network, 0.5, [loss])
    save_model(folder, network, card.model_copy(update={"channels": channels}))
    return folder


def tensors(folder):
    return load_weights(folder, read_card(folder))


def test_another_encoder_comes_from_the_weights_and_only_the_rest_is_grafted(tmp_path, discs, untrained):
    model = WIDER.model_copy(update={"weights": str(untrained["resnet34"])})
    finetune(tmp_path, discs, untrained["resnet18"], model, epochs=0)
    encoder, rest, found = tensors(untrained["resnet34"]), tensors(untrained["resnet18"]), tensors(tmp_path / "model")
    for name, tensor in found.items():
        assert torch.equal(tensor, (encoder if name.startswith("encoder.") else rest)[name]), name
    assert {entry["outcome"] for entry in log_of(tmp_path)["graft"]} == {"kept"}


def test_another_encoder_that_starts_by_chance_is_not_held_to_where_it_started(tmp_path, discs, untrained, capsys):
    finetune(tmp_path, discs, untrained["resnet18"], WIDER, epochs=0)
    graft = [entry for entry in log_of(tmp_path)["graft"] if entry["tensor"].startswith("encoder.")]
    assert {(e["outcome"], e["why"]) for e in graft} == {("skipped", "another encoder")}
    told = [line for line in capsys.readouterr().out.splitlines() if "another encoder" in line]
    assert told == [f"  {graft[0]['tensor']} and {len(graft) - 1} more: skipped: another encoder"]


def test_a_pruned_model_is_fine_tuned_as_narrow_as_it_is(tmp_path, discs, pruned):
    finetune(tmp_path, discs, pruned, epochs=0)
    before, after = read_card(pruned), read_card(tmp_path / "model")
    assert (after.weights_sha256, after.channels) == (before.weights_sha256, before.channels)
    assert {entry["outcome"] for entry in log_of(tmp_path)["graft"]} == {"kept"}


def test_a_pruned_model_takes_other_classes_and_other_norms(tmp_path, pruned):
    kin = {"discs": (("ground", "floor"), ("disc", "ball"))}
    dataset = pack(tmp_path / "data", names=("floor", "ball", "sky"), kin=kin, taxonomy="toys")
    for name in ("one", "two"):
        finetune(tmp_path / name, dataset, pruned, epochs=1, batch_norm="group")
    network, card = load_model(tmp_path / "one" / "model")
    assert card.channels == read_card(pruned).channels and card.norm == "group"
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert card == read_card(tmp_path / "two" / "model"), "what chance gave the new class is the seed's"


def test_a_pruned_model_is_no_start_for_another_network(tmp_path, discs, pruned):
    other = MODEL.model_copy(update={"arch": "fcn8s"})
    with pytest.raises(UserError, match=r"was pruned, and its widths fit fcn on resnet18 alone, not fcn8s on resnet18"):
        finetune(tmp_path, discs, pruned, other, epochs=0)


def test_the_planner_looks_at_a_pruned_model_as_narrow_as_it_is(discs, pruned):
    packed = PackedDataset(discs)
    params = PARAMS.model_copy(update={"model": MODEL})
    network, card = starting_network(Inputs(params, packed, packed, None, pruned))
    assert card.channels == read_card(pruned).channels
    weights = tensors(pruned)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
