# Everything runs in .venv, which is made when it is missing or older than what defines it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_JOBS ?= 3# processes that share the tests, file by file; much of a test on Ray or on a server is waiting
STAMP := $(VENV)/.up-to-date

.PHONY: help quickstart test test-all lint bench bench-store clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt infra/venv.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tlgan needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (choose another: make PYTHON=python3.12 ...)")'
	infra/venv.sh $(PYTHON) $(VENV)
	@touch $@

quickstart: $(STAMP)  ## pretrain, search, evaluate, publish, pull, generate on embedded data (minutes)
	$(BIN)/tlgan quickstart

test: $(STAMP)  ## every test that needs no cloud and no GPU
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-all: $(STAMP)  ## those, and the longer or further ones of each kind (hours)
	TLGAN_LONG_TESTS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)  ## format, lint, import direction, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)  ## speed and quality figures against their targets (about an hour; BENCH_ARGS=--quick for minutes)
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-store: $(STAMP)  ## the store against boto3, and what it survives (BENCH_ARGS=--quick for minutes)
	$(BIN)/python -m tests.bench.store $(BENCH_ARGS)

clean:  ## remove the environment and what the quickstart made here
	rm -rf $(VENV) quickstart .tlgan build *.egg-info
