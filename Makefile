# Two commands for everyone: `make demo` and `make test`. Needs Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
BIN := $(VENV)/bin
OLDEST := $(VENV)-oldest
STAMP := $(VENV)/.installed

.PHONY: demo test lint types docs figures tests test-oldest nightly constraints clean

demo: $(STAMP)
	$(BIN)/nestling demo

# The tests run last, so that their closing line is the last thing on the screen.
test: lint types docs tests

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nestling needs Python 3.11 or newer; name one: make PYTHON=python3.12 test")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Draws the pictures of the documentation from benchmarks/results/figures.
figures: $(STAMP)
	$(BIN)/python benchmarks/figures.py

# One worker a core, so each keeps to one thread; no test may reach a model hub. Each worker begins with half
# of the folders, so that a fixture of a file is made once.
tests: $(STAMP)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist worksteal

# The tests on the oldest versions that pyproject.toml allows. What old packages deprecate is no failure.
test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(OLDEST)/bin/pytest -n 2 -W default

$(OLDEST)/.installed: pyproject.toml .ci/oldest.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(PYTHON) .ci/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt -e ".[test]"
	touch $@

# All of them, with their folders on disk: whole tours of papers too, and ten times as many examples of properties.
nightly: lint types docs
	PYTEST_DEBUG_TEMPROOT=$${TMPDIR:-/tmp} OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist worksteal -m "slow or not slow" --hypothesis-profile nightly --timeout 3000

# The newest versions that fit together, but for torch, which is chosen by hand. Run `make test` afterwards.
constraints:
	rm -rf $(VENV)-fresh && $(PYTHON) -m venv $(VENV)-fresh
	$(VENV)-fresh/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH) -e ".[test]"
	{ sed -n 1p constraints.txt; $(VENV)-fresh/bin/pip freeze --exclude-editable | sed -e 's/+[a-z0-9.]*$$//' -e '/^nvidia-/d;/^cuda-/d;/^triton==/d'; } > constraints.new
	mv constraints.new constraints.txt && rm -rf $(VENV)-fresh

clean:
	rm -rf $(VENV) $(OLDEST) site build dist
