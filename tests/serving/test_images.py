"""Images are judged by their headers."""

import io

import numpy as np
import pytest
from PIL import Image

from segraft.params import load_params
from segraft.serving.errors import Refused
from segraft.serving.images import decode, inspect, unturn
from tests.serving.bodies import encoded
from tests.serving.launch import sample
from tests.serving.running import ROOT

LIMITS = load_params(ROOT / "params.yaml").serve.limits
FORMS = [
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 80}),
    ("WEBP", {"lossless": True, "exif": b"Exif\0\0"}),
    ("PNG", {}),
    ("JPEG", {}),
]


@pytest.mark.parametrize(("kind", "how"), FORMS)
@pytest.mark.parametrize("side", [95, 96])
def test_too_many_pixels_are_seen_in_the_header(kind, how, side):
    data = encoded("small", kind, **how)
    limits = LIMITS.model_copy(update={"sides": (16, side)})
    if side == 96:
        assert inspect(data, limits).size == (64, 96)
    else:
        with pytest.raises(Refused, match="64×96 pixels") as caught:
            inspect(data, limits)
        assert caught.value.status == 413


def test_a_webp_is_refused_before_pillow_makes_room_for_it(monkeypatch):
    data = encoded("small", "WEBP", lossless=True)
    monkeypatch.setattr(Image, "open", lambda *args, **how: pytest.fail("opened"))
    with pytest.raises(Refused):
        inspect(data, LIMITS.model_copy(update={"sides": (16, 95)}))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_unturn_is_the_inverse_of_the_turn_that_reading_makes(orientation):
    stored, exif, file = sample("small"), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    seen = inspect(file.getvalue(), LIMITS)
    upright = decode(seen)
    assert seen.orientation == orientation and (upright.shape[0] == 96) == (orientation > 4)
    np.testing.assert_array_equal(unturn(upright.transpose(2, 0, 1), orientation).transpose(1, 2, 0), stored)


def test_a_format_can_be_left_out():
    with pytest.raises(Refused, match="JPEG is not accepted; send PNG") as caught:
        inspect(encoded("small", "JPEG"), LIMITS.model_copy(update={"formats": ("PNG",)}))
    assert caught.value.status == 415
