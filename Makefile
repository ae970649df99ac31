# Everything a person or a machine does here. `make` alone lists the targets.
#
# A target needs Python 3.11 or newer and a package registry; it makes `.venv` by itself.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The interpreter for the virtual environment: the first of these that runs and is new enough.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11 python

# Processes that run tests, or random runs, side by side.
JOBS ?= 2
# More arguments for pytest, as in `make test ARGS='-k arena'`.
ARGS ?=

# `make run` shares this among all pairs of engine and scope.
RUN_SECONDS ?= 60

.PHONY: help
help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml .ci/constraints.txt
	@if [ ! -x $(PY) ]; then \
	    for candidate in $(PYTHON); do \
	        if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            echo "making $(VENV) with $$candidate"; \
	            $$candidate -m venv --clear $(VENV); \
	            break; \
	        fi; \
	    done; \
	fi
	@if [ ! -x $(PY) ]; then \
	    echo "no Python 3.11 or newer among: $(PYTHON). Name one: make PYTHON=/path/to/python" >&2; \
	    exit 2; \
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input \
	    --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: venv
venv: $(STAMP) ## make .venv with everything in it (the other targets do this first)

.PHONY: run
run: $(STAMP) ## the main job for about a minute: all engines on all scopes
	$(VENV)/bin/drc fuzz --engine all --scope all --seconds $(RUN_SECONDS) --jobs $(JOBS)

.PHONY: test
test: lint pytest ## what CI runs: lint, then all tests

.PHONY: pytest
pytest: $(STAMP) ## all tests alone; ARGS='-k word' picks some
	$(PY) -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff, its format check, mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.PHONY: format
format: $(STAMP) ## let ruff format and mend what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.PHONY: bench
bench: $(STAMP) ## operations per second of each layer
	$(PY) -m bench

.PHONY: bench-peers
bench-peers: $(STAMP) ## our search beside TLC and Spin; ARGS=--smoke is quick. Needs java, spin, gcc
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input --constraint .ci/constraints.txt --editable '.[peers]'
	$(PY) -m bench peers $(ARGS)

.PHONY: bench-growth
bench-growth: $(STAMP) ## how the cost of a search grows with a bound, as a table and a plot; minutes
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input --constraint .ci/constraints.txt --editable '.[plots]'
	$(PY) -m bench.growth --plot docs/growth.svg $(ARGS)

.PHONY: check-deep
check-deep: $(STAMP) ## search the deep scopes to their ends: the largest take minutes, and some gigabytes
	$(PY) -m fuzz.check_deep

.PHONY: prove
prove: $(STAMP) ## all proofs
	$(VENV)/bin/drc prove --jobs $(JOBS)

.PHONY: prove-changes
prove-changes: $(STAMP) ## try every single change of the proved files, and list what no proof notices
	$(PY) -m proofs.changes --jobs $(JOBS)

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
