"""Datasets: formats, taxonomy, reading, packing, transforms."""
