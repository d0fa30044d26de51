# `make demo` and `make test` each set everything up on a bare machine (Python >= 3.11 and make) and can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo demo-checkpoints test chaos test-lowest docs lint dist clean

help:
	@echo "make setup        install zsadbench and its development tools into $(VENV)"
	@echo "make demo         run every method on the embedded demo set, print its tables and make its report"
	@echo "make demo-checkpoints  train the demo's trained presets anew (results/checkpoints)"
	@echo "make test         run the test suite"
	@echo "make chaos        kill runs, fill disks, feed hostile files: what docs/robustness.md promises, tried"
	@echo "make test-lowest  run its quick part with the lowest versions that pyproject.toml allows"
	@echo "make docs         build the documentation into build/docs, strictly and without network"
	@echo "make lint         ruff and mypy"
	@echo "make dist         build sdist and wheel, install the wheel into an empty environment and run it"

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
	$(BIN)/zsadbench run --methods fiseclip --sweep fiseclip.lambda_=0.95,1.1,1.2 --datasets demo --out runs/demo-sweep
	$(BIN)/zsadbench table runs/demo-sweep

# What they hold is the same on one machine alone: sums of floating-point numbers differ from processor to processor.
demo-checkpoints: export OMP_NUM_THREADS = 1
demo-checkpoints: setup
	rm -rf results/checkpoints
	$(BIN)/python scripts/train_demo_checkpoints.py results/checkpoints

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Minutes of kills, full disks, strangers' files and methods that misbehave; prints a table of what survived.
chaos: export OMP_NUM_THREADS = 1
chaos: setup
	$(BIN)/python -m pytest -q tests/chaos

# mkdocs-material prints an advertisement of its successor without the variable.
docs: export NO_MKDOCS_2_WARNING = 1
docs: setup
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

# With an environment of its own, made anew: pip would keep newer versions.
test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) scripts/lowest_versions.py report dask > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable ".[dev]"
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The wheel is built from the sdist, so that the sdist is tried too.
dist:
	rm -rf dist
	$(PYTHON) -m venv --clear .venv-dist
	.venv-dist/bin/python -m pip install --quiet build
	.venv-dist/bin/python -m build --outdir dist .
	.venv-dist/bin/python -m pip install --quiet dist/*.whl
	.venv-dist/bin/zsadbench --version
	.venv-dist/bin/zsadbench run --methods winclip --datasets demo --limit 4 --out runs/dist
	.venv-dist/bin/zsadbench table runs/dist

clean:
	rm -rf runs build dist .venv-dist .venv-lowest *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
