# Two commands are all a new user needs: `make run` and `make test`. Each does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST ?= $(BIN)/pytest
TESTS  ?= tests
# A worker per core, each test file in one of them; PYTEST_ARGS= runs them one after the other.
PYTEST_ARGS ?= --numprocesses auto --dist loadfile

.PHONY: help run test lint format bench clean

help:
	@echo 'make run     a two-node cluster on loopback, in the foreground; prints what to try'
	@echo 'make test    everything that is tested'
	@echo 'make lint    format, style, types, and which room may import which'
	@echo 'make bench   measures; prints ratios and distributions'
	@echo 'make clean   removes what the others made'

run: $(VENV)/.ready
	@exec $(BIN)/stargate demo

test: $(VENV)/.ready
	$(PYTEST) $(PYTEST_ARGS) $(TESTS)

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	sh -n .ci/run .ci/system-packages hooks/pre-receive

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready
	$(BIN)/python -m bench $(BENCH)

# Made again whenever what it is made from changes.
$(VENV)/.ready: pyproject.toml constraints.txt .ci/system-packages
	@PYTHON=$(PYTHON) sh .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
