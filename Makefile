# The developer's side. Every target sets up .venv by itself when it is missing or out of date.
#
#   PYTHON=python3.12 make setup     another Python (3.11 or newer)
#   make demo ARGS="--out /tmp/x"    arguments of `edgeseg demo`
#   make test ARGS="-k report -x"    arguments of pytest
#   make test JOBS=8                 processes that test side by side, each with its share of the processors

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
ARGS ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint zoo wheel clean

help: ## print this list
	@echo "usage: make TARGET [ARGS=...]"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP) ## create .venv and install edgeseg with everything its development needs

demo: $(STAMP) ## the whole chain on synthetic data, with a report
	$(BIN)/edgeseg demo $(ARGS)

test: $(STAMP) ## all tests: unit, contract, packaging, end to end
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder tests/unit tests/contract tests/packaging tests/e2e $(ARGS)

lint: $(STAMP) ## ruff, mypy (strict; device side also as Python 3.10), layers of imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --follow-imports silent -p edgeseg.core -p edgeseg.cli -p edgeseg.report -p targets
	$(BIN)/lint-imports

zoo: $(STAMP) ## export, quantize and measure every network in every format (minutes)
	$(BIN)/edgeseg models --check $(ARGS)

wheel: $(STAMP) ## build what a board installs, into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what was built and cached; .venv, runs/ and edgeseg-demo/ stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find edgeseg exporters quantization targets tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-compile halves the installation (2.7 GB of sources, of which a run imports a small part and compiles that on first use).
$(STAMP): pyproject.toml constraints.txt
	@sh .ci/make_venv $(VENV) $(PYTHON)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@
