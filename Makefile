# An empty value switches bytecode caching on: without it every stage recompiles what it imports.
export PYTHONDONTWRITEBYTECODE :=
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3.11
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

.venv/ready: requirements.lock requirements-uv.lock pyproject.toml
	@echo "segraft: making .venv from requirements.lock (about 5 GB, once)"
	@command -v $(PYTHON) >/dev/null || { echo "segraft needs $(PYTHON): install Python 3.11 or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/ready  ## make .venv: every package, pinned and hashed
