"""The contract of every (arch, encoder) pair, and of model folders."""

import pytest
import torch
from torch import nn

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, load_model, save_model
from segraft.errors import UserError
from segraft.models import ARCHS, ENCODERS, check_pair, create_model
from segraft.training.layers import freeze

QUICK = [(arch, "resnet18") for arch in ARCHS] + [
    ("unet", "efficientnet_lite0"),
    ("unet", "alexnet"),
    ("fcn8s", "vgg11"),
    ("swiftnet", "darknet19"),
    ("lraspp", "mobilenet_v3_small"),
    ("segformer", "mit_b0"),
    ("deeplabv3plus", "vit_tiny"),
]
"""Every architecture, and the light families of encoders."""


def fits(arch, encoder):
    try:
        check_pair(arch, encoder)
    except UserError:
        return False
    return True


LIGHT = ("mobilenet_v3_small", "mit_b0", "vit_tiny")
SLOW = [(arch, encoder) for encoder in LIGHT for arch in ARCHS if fits(arch, encoder)]
SLOW = [pair for pair in SLOW if pair not in QUICK] + [
    ("fcn8s", "vgg16_bn"),
    ("deeplabv1", "vgg16"),
    ("deeplabv2", "alexnet"),
    ("deeplabv3plus", "darknet53"),
    ("fpn", "inception_v4"),
    ("swiftnet", "inception_resnet_v2"),
    ("pspnet", "convnext_tiny"),
    ("deeplabv3", "efficientnet_b0"),
    ("upernet", "mobilenet_v2"),
    ("segformer", "dinov2_small"),
    ("fcn32s", "dinov3_small"),
]
ZOO = [(arch, encoder) for arch in ARCHS for encoder in ENCODERS if fits(arch, encoder)]
STAR = [(arch, encoder) for arch, encoder in ZOO if arch == "unet" or encoder == "resnet18"]
"""Every architecture, and every encoder."""


def card(arch, encoder):
    classes = tuple(ClassCard(name=f"c{i}", color=(i, i, i)) for i in range(3))
    how = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    return ModelCard(arch=arch, encoder=encoder, taxonomy="t", classes=classes, preprocessing=how)


def contract(arch, encoder, folder):
    """Any size; bf16; a gradient for every weight; three parts; the same answer after save and load; freezing."""
    torch.manual_seed(0)
    model, image = create_model(arch, encoder, 3), torch.randn(2, 3, 27, 31)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(image)
        assert logits.shape == (2, 3, 27, 31)
        logits.float().square().mean().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
        saved = save_model(folder, model, card(arch, encoder))
        loaded, read = load_model(folder)
        assert read == saved and torch.equal(loaded(image), model.eval()(image))
        before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
        freeze(model.encoder)
        model.train()(image)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.encoder.state_dict().items())
    assert {name.partition(".")[0] for name in model.state_dict()} <= {"encoder", "decoder", "segmentation_head"}
    heads = [t for n, t in model.named_parameters() if n.startswith("segmentation_head.")]
    assert heads and all(len(t) == 3 for t in heads), "rows of the head are classes"


@pytest.mark.parametrize(("arch", "encoder"), QUICK, ids=map("-".join, QUICK))
def test_contract(arch, encoder, tmp_path):
    contract(arch, encoder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), SLOW, ids=map("-".join, SLOW))
def test_contract_of_every_pair_of_families(arch, encoder, tmp_path):
    contract(arch, encoder, tmp_path)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize(("arch", "encoder"), ZOO, ids=map("-".join, ZOO))
def test_contract_of_every_pair(arch, encoder, tmp_path):
    contract(arch, encoder, tmp_path)


def exports(arch, encoder, folder):
    """As ONNX, whose answers at several sizes are compared with the network's."""
    from segraft.export.graph import export_graph

    torch.manual_seed(0)
    export_graph(create_model(arch, encoder, 3).eval(), card(arch, encoder), folder / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("pspnet", "resnet18"), ("upernet", "resnet18"), ("swiftnet", "resnet18"), ("segformer", "dinov2_small")],
)
def test_its_onnx_graph_agrees_at_other_sizes(arch, encoder, tmp_path):
    exports(arch, encoder, tmp_path)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize(("arch", "encoder"), STAR, ids=map("-".join, STAR))
def test_the_onnx_graph_of_every_arch_and_every_encoder_agrees(arch, encoder, tmp_path):
    exports(arch, encoder, tmp_path)


def test_torch_export_leaves_sizes_open():
    model = create_model("unet", "resnet18", 3).eval()
    side = torch.export.Dim("rows", min=1, max=32) * 32
    exported = torch.export.export(model, (torch.randn(1, 3, 96, 64),), dynamic_shapes=({2: side},)).module()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(exported(image), model(image), atol=1e-4)


def test_unknown_names_list_the_choices():
    with pytest.raises(UserError, match=r"model.arch: 'unett': unknown; choose one of unet, unetplusplus"):
        create_model("unett", "resnet18", 2)
    with pytest.raises(UserError, match=r"model.encoder: 'resnet19'.*resnet18"):
        create_model("unet", "resnet19", 2)


@pytest.mark.parametrize(
    ("arch", "encoder", "why"),
    [
        ("deeplabv3", "inception_v4", r"deeplabv3 works at stride 8, and inception_v4 cannot be dilated .*gives 32"),
        ("pspnet", "vit_small", r"pspnet works at stride 8, and vit_small cannot be dilated to it \(it gives 16 or 32"),
        ("unetplusplus", "mit_b0", r"needs a map at stride 2, and the first of mit_b0 has stride 4; take unet"),
    ],
)
def test_a_bad_pair_says_why(arch, encoder, why):
    with pytest.raises(UserError, match=why):
        create_model(arch, encoder, 2)


def test_what_the_table_says_of_an_encoder_is_so():
    """Strides and widths, of some encoders."""
    from segraft.models.encoders import build_encoder

    for name in ("alexnet", "vgg11", "mobilenet_v3_small", "mit_b0"):
        entry = ENCODERS[name]
        image = torch.randn(1, 3, 64, 64)
        for output_stride in entry.output_strides:
            encoder = build_encoder(entry, output_stride).eval()
            with torch.inference_mode():
                maps = encoder(image)
            widths = [map_.shape[1] for map_ in maps]
            strides = [64 // map_.shape[2] for map_ in maps]
            assert widths == encoder.out_channels and strides == [min(1 << i, output_stride) for i in range(6)]
            assert (encoder.out_channels[1] == 0) == (entry.first_stride == 4)


@pytest.mark.parametrize("name", ["alexnet", "darknet19", "mobilenet_v3_small"])
def test_a_dilated_encoder_computes_the_same_features_more_densely(name):
    """Pretrained weights keep their meaning: every fourth pixel at stride 8 is the pixel at stride 32."""
    from segraft.models.encoders import build_encoder

    coarse, dense = (build_encoder(ENCODERS[name], stride).eval() for stride in (32, 8))
    dense.load_state_dict(coarse.state_dict())
    for module in (*coarse.modules(), *dense.modules()):
        if type(module).__name__ == "SqueezeExcitation":
            module.forward = lambda x: x  # its global mean is taken over other pixels
    image = torch.randn(1, 3, 512, 512)
    with torch.inference_mode():
        few, many = coarse(image)[-1], dense(image)[-1]
    inner = slice(5, 11)
    assert torch.allclose(many[..., ::4, ::4][..., inner, inner], few[..., inner, inner], atol=1e-4, rtol=1e-3)


def test_dilation_of_even_kernels_is_exact_too():
    """ConvNeXt halves with 2×2 convolutions."""
    from segraft.models.sequential import SequentialEncoder

    def layers():
        sides = [(3, 4, 4), (4, 3, 1), (4, 2, 2), (4, 3, 1), (4, 2, 2), (4, 2, 2), (4, 3, 1)]
        return nn.Sequential(*(nn.Conv2d(n, 4, k, s, padding=k // 2 if k == 3 else 0) for n, k, s in sides))

    coarse, dense = SequentialEncoder(layers(), 32), SequentialEncoder(layers(), 8)
    dense.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 512, 512)
    few, many = coarse(image)[-1], dense(image)[-1]
    inner = slice(4, 12)
    assert torch.allclose(many[..., ::4, ::4][..., inner, inner], few[..., inner, inner], atol=1e-5)


@pytest.mark.parametrize("grid", [1, 2, 3, 6, 8])
def test_grid_means_are_adaptive_average_pooling(grid):
    from segraft.models.network import GridMean

    for size in ((7, 12), (3, 4), (16, 9)):
        x = torch.randn(2, 3, *size)
        assert torch.allclose(GridMean(grid)(x), nn.functional.adaptive_avg_pool2d(x, grid), atol=1e-6)


def test_a_channels_last_step_gives_the_same_logits():
    model, image = create_model("swiftnet", "darknet19", 3).eval(), torch.randn(1, 3, 64, 64)
    expected = model(image)
    model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(image.contiguous(memory_format=torch.channels_last)), expected, atol=1e-4)


def test_fcn8s_reads_the_finer_maps():
    """Without its skips it would give the answer of FCN-32s."""
    model = create_model("fcn8s", "resnet18", 3).eval()
    image = torch.randn(1, 3, 64, 64)
    before = model(image)
    with torch.no_grad():
        model.segmentation_head.scores[2].bias += torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(model(image) - before, torch.tensor([1.0, 0, 0]).view(3, 1, 1), atol=1e-5)


def test_lraspp_s_one_classifier_is_torchvision_s_two():
    from torchvision.models.segmentation.lraspp import LRASPPHead

    from segraft.models.archs import ARCHS

    decoder, head = ARCHS["lraspp"].build([3, 8, 16, 24, 32, 40], 5)
    theirs = LRASPPHead(24, 40, 5, 128).eval()
    decoder.eval().load_state_dict({k: v for k, v in theirs.state_dict().items() if "classifier" not in k})
    both = (theirs.low_classifier, theirs.high_classifier)
    head[0].load_state_dict({"weight": torch.cat([c.weight for c in both], 1), "bias": sum(c.bias for c in both)})
    low, high = torch.randn(1, 24, 8, 8), torch.randn(1, 40, 4, 4)
    expected = head[1](theirs({"low": low, "high": high}))
    assert torch.allclose(head(decoder([None, None, None, low, None, high])), expected, atol=1e-5)


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
