# `make demo` and `make test` each set everything up on a bare machine (Python >= 3.11 and make) and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint clean

help:
	@echo "make setup   install zsadbench and its development tools into $(VENV)"
	@echo "make demo    run every method on the embedded demo set and print the table"
	@echo "make test    run the test suite"
	@echo "make lint    ruff and mypy"

# The stamp is renewed when pyproject.toml changes, so that a repeated make installs nothing.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("zsadbench needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/zsadbench run --methods all --datasets demo --out runs/demo
	$(BIN)/zsadbench table runs/demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
