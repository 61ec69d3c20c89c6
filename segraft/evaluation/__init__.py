"""Evaluation: a confusion matrix, every score as a small pure function of it, and the report."""
