# `make demo` and `make test` each set everything up on a bare machine (Python >= 3.11 and make) and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint clean

help:
	@echo "make setup   install zsadbench and its development tools into $(VENV)"
	@echo "make demo    run every method on the embedded demo set, print its tables and make its report"
	@echo "make test    run the test suite"
	@echo "make lint    ruff and mypy"

# The stamp is renewed when pyproject.toml changes, so that a repeated make installs nothing.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("zsadbench needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

setup: $(VENV)/.installed

# One thread each: the demo's tensors are small, and threads that wait for each other crawl on a busy machine.
demo: export OMP_NUM_THREADS = 1
demo: setup
	$(BIN)/zsadbench run --methods all --datasets demo --save-maps --out runs/demo
	$(BIN)/zsadbench profile --methods all --dataset demo --batches 1,8 --repeat 3 --out runs/demo > /dev/null
	$(BIN)/zsadbench table runs/demo
	$(BIN)/zsadbench table runs/demo --efficiency
	$(BIN)/zsadbench report runs/demo --out runs/demo/report

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
