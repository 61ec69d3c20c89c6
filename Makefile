# An empty value switches bytecode caching on: without it every stage recompiles what it imports.
export PYTHONDONTWRITEBYTECODE :=
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 5000
WORKERS ?= 2
# A file's tests stay together, so that what they share is made once. A worker that dies fails its test and is not
# replaced: pytest-xdist 3.8 may give the new one a file that is done, and wait for ever (its issue 1378).
PYTEST = python -m pytest --numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0 --durations 20
.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast lint ui serve bench lock image

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

.venv/ready: requirements.lock requirements-uv.lock
	@echo "segraft: making .venv from requirements.lock (about 5 GB, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "segraft needs Python 3.11: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --require-hashes --disable-pip-version-check -r requirements-uv.lock
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r requirements.lock
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/ready  ## make .venv: every package, pinned and hashed

run: .venv/ready  ## the whole pipeline: dvc repro; repeats only what changed
	dvc repro

test: .venv/ready  ## all tests, linters and types (WORKERS=2 at once)
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST)

test-fast: .venv/ready  ## the quick tests
	$(PYTEST) -m "not slow"

ui: .venv/ready  ## MLflow's pages at http://127.0.0.1:5000 (PORT=…)
	mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 --backend-store-uri sqlite:///mlflow.db

MODEL ?= models:/segraft@champion
serve: .venv/ready  ## the registry's champion at http://127.0.0.1:8080 (MODEL=folder or models:/NAME/VERSION)
	python -m segraft serve $(MODEL)

bench: .venv/ready  ## speed against named peers (a few minutes; wants an idle machine)
	python -m benchmarks.confusion
	python -m benchmarks.training
	python -m benchmarks.packing
	python -m benchmarks.validate
	python -m benchmarks.startup
	python -m benchmarks.streets

COMPILE = uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header
lock: .venv/ready  ## compile requirements.lock anew from pyproject.toml
	$(COMPILE) pyproject.toml --all-extras --output-file requirements.lock
	$(COMPILE) --group pyproject.toml:sbom --output-file requirements-sbom.lock

VARIANT ?= gpu
TAG ?= dev
TARGETS ?= pipeline serve tracking
ENGINE ?= $(or $(shell for e in docker podman buildah; do $$e info >/dev/null 2>&1 && echo $$e && break; done),$(error no docker, podman or buildah that works))
image:  ## build the container images (VARIANT=gpu|cpu, TAG, TARGETS, ENGINE, DIGEST=sha256:… of the base, BUILD_FLAGS)
	@test -n "$(DIGEST)" || echo "image: the base image is not pinned: give DIGEST=sha256:…, see docs/decisions/image.md" >&2
	set -e; engine="$(ENGINE)"; for target in $(TARGETS); do name=segraft-$$target; \
	  $$engine build --file components/Dockerfile --target $$target --tag $${name%-pipeline}:$(TAG) \
	    --build-arg VARIANT=$(VARIANT) --build-arg DIGEST=$(DIGEST) --build-arg VERSION=$(TAG) \
	    --build-arg REVISION=$$(git rev-parse HEAD) \
	    --build-arg SOURCE=$$(git config remote.origin.url | sed 's#//[^/@]*@#//#') $(BUILD_FLAGS) .; done
