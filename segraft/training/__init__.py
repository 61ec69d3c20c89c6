"""Training: the loop, schedules, transfer, checkpoints."""

STRATEGY = "SEGRAFT_STRATEGY"
"""Environment of processes that train together: `ddp` (or nothing): each has all weights; `fsdp`, each keeps a part."""
