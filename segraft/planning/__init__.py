"""The transfer planner: it measures data and machine, and chooses the knobs of fine-tuning by a table of rules."""
