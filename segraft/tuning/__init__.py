"""The search for finetune's knobs: here with Optuna, on a cluster with Katib, over the same space."""
