"""Which sizes can show a street."""

from __future__ import annotations

from segraft.errors import UserError

SMALLEST, LARGEST = 64, 2048


def check_size(size: tuple[int, int]) -> None:
    """Refuse sizes that cannot show a street.

    Raises:
        UserError: a side is out of range, or the image is higher than wide.
    """
    height, width = size
    if not (SMALLEST <= height <= width <= LARGEST):
        raise UserError(
            f"streets.size: {list(size)}: must be [height, width] in pixels, "
            f"with {SMALLEST} <= height <= width <= {LARGEST}"
        )
