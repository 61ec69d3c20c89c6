"""Overlapping windows: they cover the image, see no more than their size, and blend without seams."""

import itertools

import pytest
import torch

from segraft.evaluation.windows import starts, windowed


@pytest.mark.parametrize(("length", "size"), [(100, 32), (64, 64), (65, 64), (33, 32), (96, 32), (5, 1)])
def test_windows_cover_every_pixel_and_overlap_by_half(length, size):
    found = starts(length, size)
    assert found[0] == 0 and found[-1] == length - size
    assert all(later - earlier <= max(1, size // 2) for earlier, later in itertools.pairwise(found))


def test_an_answer_that_depends_on_a_pixel_alone_is_the_whole_image_s():
    images = torch.randn(2, 3, 75, 101)
    seen = []

    def forward(part):
        seen.append(tuple(part.shape[-2:]))
        return part * 2

    assert torch.allclose(windowed(forward, images, (32, 48)), images * 2, atol=1e-6)
    assert set(seen) == {(32, 48)} and len(seen) > 6


def test_a_small_image_is_seen_whole():
    images = torch.randn(1, 3, 20, 30)
    assert torch.equal(windowed(lambda part: part + 1, images, (32, 32)), images + 1)
    assert windowed(lambda part: part, torch.randn(1, 3, 20, 70), (32, 32)).shape == (1, 3, 20, 70)


def test_the_middle_of_a_window_outweighs_its_border():
    """A network that errs at its window's border is corrected by the neighbour that has it in the middle."""

    def forward(part):
        answer = torch.ones_like(part[:, :1])
        answer[..., 0] = answer[..., -1] = -1
        return answer

    answer = windowed(forward, torch.zeros(1, 3, 16, 64), (16, 32))
    assert (answer[..., 1:-1] > 0.8).all()
