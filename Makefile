# Two commands do all the set-up: make sweep, make test. VENV= uses another environment.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := $(VENV)/bin/python
READY := $(VENV)/.branchpoint
ARGS ?=

.PHONY: help setup sweep test test-slurm test-browser lint bench bench-gpu

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/ -/'

setup: $(READY) ## install everything into VENV (default .venv), and nothing else

$(READY): pyproject.toml constraints.txt
	$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[sweep,dev]'
	touch $(READY)

sweep: setup ## the main job on this machine; make sweep ARGS="train.epochs=2" hands overrides on
	$(RUN) cluster/launch.py sweep=branch_location $(ARGS)

test: setup ## all tests (no Slurm, database server or browser)
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slurm: setup ## the tests on a real Slurm cluster that they bring up (root, Linux, Debian's Slurm)
	$(RUN) -m pytest tests/slurm $(ARGS)

test-browser: setup ## MLflow's UI on a trained sweep, looked at in a real browser (Debian's chromium)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(RUN) -m pytest tests/browser $(ARGS)

lint: setup ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m mypy

bench: setup ## measure the claims of speed into tests/benchmarks/RESULTS.md; BENCH=name: one of them
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(RUN) -m tests.benchmarks $(BENCH)

bench-gpu: ## one GPU's claims, by PYTHON as it is (torch and numpy); installs nothing, writes nothing
	$(PYTHON) -B -m tests.benchmarks.gpu $(ARGS)
