"""The discs of the training tests are the source."""

from tests.training.conftest import discs  # noqa: F401
