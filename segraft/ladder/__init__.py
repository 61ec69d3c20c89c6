"""The ladder: what the source is worth, at one compute budget and several label budgets."""
