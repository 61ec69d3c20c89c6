"""Smaller and faster models: channels or weights pruned, accuracy won back by training, a budget to search within."""
