"""How the steps are joined for Kubeflow; see pipelines/transfer.py, and `python pipelines/run.py --help`."""
