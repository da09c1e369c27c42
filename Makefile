# Developer commands. Each sets up what it needs; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := aligned aggregator controller devnet
CODE := $(PACKAGES) tests bench

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# --- set-up: one stamp a step, so that a second run costs nothing

$(VENV)/.python: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; say which with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "setup: Python packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "setup: no virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.project: $(VENV)/.python pyproject.toml
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.project  ## everything from a fresh clone: packages, native extension, chain, compiler
	@sh native/build.sh $(BIN)/python
	@$(BIN)/python -m devnet.node.install

hooks: $(VENV)/.project  ## run the linters before each commit
	@$(BIN)/pre-commit install

# --- checks

format: $(VENV)/.project  ## rewrite to the house style
	@$(BIN)/ruff format -q $(CODE)
	@$(BIN)/ruff check -q --fix $(CODE)

lint: $(VENV)/.project  ## style, layers
	@$(BIN)/ruff format --check -q $(CODE)
	@$(BIN)/ruff check -q $(CODE)
	@$(BIN)/lint-imports --no-logo

types: $(VENV)/.project  ## mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy tests bench

test: setup  ## every test that this machine can run
	@$(BIN)/pytest $(PYTEST)

coverage: setup  ## the same with branch coverage
	@$(BIN)/coverage run -m pytest $(PYTEST)
	@$(BIN)/coverage report

check: lint types test  ## all of the above; what CI runs

nemesis: setup  ## break replicas and Redis at random for 20 minutes; NEMESIS="--seed 7 --minutes 3"
	@$(BIN)/python -m tests.nemesis $(NEMESIS)

ci:  ## exactly what CI does
	@bash .ci/run

# --- on Kubernetes

IMAGE ?= localhost/aligned-aggregator:dev
image:  ## the one image of everything, by docker or buildah; IMAGE=name:tag
	@if docker info >/dev/null 2>&1; then docker build -t $(IMAGE) .; else buildah bud --layers -t $(IMAGE) .; fi

cluster:  ## a kind cluster with the images in it; says what to export (needs docker, kind, kubectl)
	@tests/cluster/kind.sh up

test-cluster: setup  ## stories on a cluster with nodes: they die, drain, roll, lose Redis
	@$(BIN)/pytest tests/cluster $(PYTEST)

# --- to look at

demo: setup  ## post batches, kill the aggregator in the middle, see that nothing is lost
	@$(BIN)/aggregator demo $(DEMO)

bench: setup  ## speed and size, as tables
	@$(BIN)/python -m bench $(BENCH)

# --- for maintainers

LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
lock: $(VENV)/.python  ## renew the requirement locks
	@$(LOCK) pyproject.toml --extra controller -o requirements/run.txt
	@$(LOCK) pyproject.toml --extra controller --group lint --group test --group build --group lock -o requirements/dev.txt
	@$(LOCK) --group build -o requirements/build.txt
	@$(LOCK) requirements/node.in -o requirements/node.txt

docs: $(VENV)/.project  ## renew generated pages, the CRD, what the chart copies and install.yaml
	@$(BIN)/python -m aggregator.settings_doc > docs/configuration.md
	@$(BIN)/controller crd > crds/alignedaggregators.yaml
	@$(BIN)/python -c 'from controller.api.reference import page; print(page(), end="")' > docs/resource.md
	@$(BIN)/python -m tests.chart

chart:  ## helm where there is none (needs Go), then all of docs
	@.ci/helm --build >/dev/null
	@$(MAKE) --no-print-directory docs

clean:  ## remove what set-up and tests made
	@rm -rf $(VENV) native/target devnet/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help setup hooks format lint types test test-cluster image cluster coverage check nemesis ci demo bench lock docs chart clean
