"""segraft: graft a segmentation model that learned on a large source dataset onto a small target domain."""

__version__ = "0.1.0"
