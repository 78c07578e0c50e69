# Two commands are all a new user needs: `make run` and `make test`. Each does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST ?= $(BIN)/pytest
TESTS  ?= tests
# A worker per core, each test file in one of them; PYTEST_ARGS= runs them one after the other.
PYTEST_ARGS ?= --numprocesses auto --dist loadfile

# The container tests: needs a Docker engine, and gets one (see integration/README.md). Two clusters at a time.
INTEGRATION      ?= integration
INTEGRATION_ARGS ?= --numprocesses 2 --dist load --maxschedchunk 1
WITH_ENGINE      := $(BIN)/python -m integration.engine

# What another git could do differently: adoption, pushes, mirroring, failover.
NEWER_TESTS ?= tests/repos tests/hooks tests/gate/test_flow.py tests/gate/test_held_back.py \
	tests/gate/test_push_commands.py tests/gate/test_pushed_objects.py tests/scenarios/test_copied_in.py \
	tests/scenarios/test_mirror.py tests/scenarios/test_failover.py tests/scenarios/test_rescue.py

.PHONY: help run test test-newer integration image failover-test lint format bench attack simulate clean

help:
	@echo 'make run     a two-node cluster on loopback, in the foreground; prints what to try'
	@echo 'make test    everything that is tested'
	@echo 'make test-newer GIT=/path   adoption, pushes, mirroring and failover with another git:'
	@echo '            the absolute path of the program, or of a folder with git or bin/git in it'
	@echo 'make failover-test   the failover plan in containers, step by step with times'
	@echo 'make image   the container image, for integration/compose.yaml'
	@echo 'make lint    format, style, types, and which package may import which'
	@echo 'make bench   measures; prints ratios and distributions'
	@echo 'make attack  attacks real nodes on loopback; prints results, durations as ratios'
	@echo 'make simulate   10^8 simulated steps on all cores; Ctrl-C stops it, and the next goes on from there'
	@echo 'make clean   removes what the others made'

run: $(VENV)/.run-ready
	@exec $(BIN)/stargate demo

# The container tests run also after a failure of the others; either failure is a failure of the whole.
test: $(VENV)/.tests-ready
	@status=0; set -x; \
	$(PYTEST) $(PYTEST_ARGS) $(TESTS) || status=$$?; \
	$(if $(filter tests,$(TESTS)),$(WITH_ENGINE) $(PYTEST) $(INTEGRATION_ARGS) $(INTEGRATION) || status=$$?;) \
	exit $$status

# `make test` uses the git that is installed; this one another, newer or older.
test-newer: $(VENV)/.tests-ready
	@$(BIN)/python -m tests.support.other_git '$(GIT)' $(PYTEST) $(PYTEST_ARGS) $(NEWER_TESTS)

# Only the container tests; one file: make integration INTEGRATION=integration/test_faults.py
integration: $(VENV)/.tests-ready
	$(WITH_ENGINE) $(PYTEST) $(INTEGRATION_ARGS) $(INTEGRATION)

image: $(VENV)/.image-ready
	@$(WITH_ENGINE) --keep $(BIN)/python -m integration.build_image

failover-test: $(VENV)/.tests-ready
	$(WITH_ENGINE) $(PYTEST) --capture=no --quiet integration/test_failover_plan.py

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	sh -n .ci/run .ci/system-packages hooks/pre-receive integration/install-packages integration/compose/setup

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.tests-ready
	$(BIN)/python -m bench $(BENCH)

# Some of them: make attack ATTACK='--short kex'
attack: $(VENV)/.tests-ready
	$(BIN)/python -m tests.attacks $(ATTACK)

# What is installed, for whom: to run it; to build the image; to work on it; to test it. Each is made again
# whenever what it is made from changes.
MADE_FROM := pyproject.toml constraints.txt .ci/system-packages .ci/install.py

$(VENV)/.run-ready: $(MADE_FROM)
	@PYTHON=$(PYTHON) sh .ci/system-packages
	@$(PYTHON) .ci/install.py $(VENV) --editable .
	@touch $@

$(VENV)/.image-ready: $(MADE_FROM)
	@PYTHON=$(PYTHON) sh .ci/system-packages
	@$(PYTHON) .ci/install.py $(VENV) --editable '.[image]'
	@touch $@

$(VENV)/.ready: $(MADE_FROM)
	@PYTHON=$(PYTHON) sh .ci/system-packages
	@$(PYTHON) .ci/install.py $(VENV) --editable '.[dev]'
	@touch $(VENV)/.run-ready $(VENV)/.image-ready $@

$(VENV)/.tests-ready: $(VENV)/.ready .ci/system-packages
	@PYTHON=$(PYTHON) sh .ci/system-packages tests
	@touch $@

# What was done is in build/simulation.json; remove it to begin again.
simulate: $(VENV)/.tests-ready
	@mkdir -p build && $(BIN)/python -m tests.simulation --long --state build/simulation.json

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
