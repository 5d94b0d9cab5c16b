# Two commands on a fresh machine: `make demo` and `make test`.
# TEST_JOBS: processes that run tests; on 2 cores 4 are quickest, for the tests wait most of the time
TEST_JOBS ?= 4
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo station-demo test install check lint types walls fuzz bench fault-table clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/installed  ## authenticate a device through an emulated BC95 and BC66
	@$(BIN)/nbiot demo

station-demo: $(VENV)/installed-station  ## eight emulated boards through a provisioning station
	@$(BIN)/nbiot station demo

test: $(VENV)/installed-dev  ## run the tests
	@$(BIN)/python -m pytest -q -n $(TEST_JOBS)

install: $(VENV)/installed  ## make the environment in .venv

check: lint types walls test  ## everything that CI asks

lint: $(VENV)/installed-dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## mypy --strict
	$(BIN)/mypy

walls: $(VENV)/installed-dev  ## who may import whom
	$(BIN)/lint-imports

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "nbiot needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making the environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { \
		echo "Python's venv module is missing; on Debian: sudo apt install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(BIN)/python pyproject.toml
	@echo "Installing nbiot-driver ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-station: $(BIN)/python pyproject.toml
	@echo "Installing nbiot-driver with its station ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[station]'
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	@echo "Installing nbiot-driver with its test tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/installed $(VENV)/installed-station $@

FUZZ_SECONDS ?= 60

fuzz: $(VENV)/installed-fuzz  ## fuzz all targets for 60 s (FUZZ_SECONDS=...)
	@$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

bench: $(VENV)/installed  ## compare with other Python AT drivers
	bench/setup.sh
	@cd bench && for suite in rt seq9600u seq115200u noise noise_hard; do \
		PYTHONPATH=.. $(abspath $(BIN))/python run.py $$suite --reps 3 --extra ours.py --cap 30 \
			--only ours,floor_asyncio,pyserial_readline,async_gsm_modem,gsmmodem_new,pyatcommand; done
	@cd bench && $(abspath $(BIN))/python report.py

fault-table: $(VENV)/installed-dev  ## every fault, every profile, SEEDS seeds
	$(BIN)/python -m tests.faults.table $(or $(SEEDS),1000)

$(VENV)/installed-fuzz: $(VENV)/installed-dev
	@echo "Installing the fuzzer ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

clean:  ## remove what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
