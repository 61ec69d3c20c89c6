"""Training: the loop, schedules, transfer, checkpoints."""
