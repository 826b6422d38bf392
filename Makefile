# A convenience over plain commands; each line here can be typed by hand.
.PHONY: install docs quickstart gpu test test-all test-floors lint style types units constraints licences clean
PYTHON ?= python3
BIN := .venv/bin
FLOORS := .venv-floors
RUNTIME := --extra optuna --extra medmnist --extra launchers --extra export --extra explain --extra demo --extra transformers --extra xrv pyproject.toml
STAMP := .venv/.installed

install: $(STAMP)

# uv installs the pinned versions in half a minute where pip takes one and a half.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv: about 6 GB, some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	    --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# The main job on built-in phantom x-rays. ARGS="head.activation=gelu seed=2" changes keys.
quickstart: $(STAMP)
	$(BIN)/python scripts/train.py experiment=quickstart $(ARGS)

lint: style types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Three processes on two cores: some of them wait, for a process or a lock. The order of the files
# is that of tests/conftest.py.
# The tests' files are compiled once, also where the environment asks that nothing be kept.
units test-floors: export PYTHONDONTWRITEBYTECODE :=
units: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TIER)

# Checking the types takes a minute of one core, and the tests leave some time of both.
test: style
	$(MAKE) --no-print-directory --jobs=2 types units

# With the long cases, which `make test` leaves out, and with the lowest versions; for the night.
test-all:
	$(MAKE) --no-print-directory test TIER="-m ''"
	$(MAKE) --no-print-directory test-floors

# With the lowest versions that pyproject.toml allows. Wheels only, but for one package that has none.
# FLOORS_OF="tests/files tests/data" runs a part.
test-floors: $(STAMP)
	test -x $(FLOORS)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(FLOORS)
	$(BIN)/uv pip compile --quiet --upgrade --resolution lowest-direct --only-binary :all: \
	    --no-binary antlr4-python3-runtime $(RUNTIME) --output-file $(FLOORS)/floors.txt
	$(BIN)/uv pip install --quiet --python $(FLOORS)/bin/python \
	    --constraint $(FLOORS)/floors.txt --editable '.[dev]'
	$(FLOORS)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(FLOORS_OF)

# Truth and speed on a GPU, in eight minutes. An environment that has the packages is used as it is:
# make gpu PYTHON=python3
gpu: export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu: export PYTHONUNBUFFERED := 1
gpu:
	if $(PYTHON) -c 'import fluoroscope.build, pytest, hydra, wandb, pydicom'; then python=$(PYTHON); \
	    else $(MAKE) --no-print-directory install && python=$(BIN)/python; fi; \
	$$python -m benchmarks.gpu budget_s=480 $(ARGS)

# The newest versions that fit pyproject.toml, as name==version lines; what runs need of them with
# the hashes of its files, for `uv pip install --require-hashes -r requirements-hashed.txt`.
constraints: $(STAMP)
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --all-extras \
	    pyproject.toml --output-file constraints.txt
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --generate-hashes \
	    --constraint constraints.txt $(RUNTIME) --output-file requirements-hashed.txt
	$(MAKE) --no-print-directory licences

# README.md and docs/ as pages for a browser, in site/; built without the network.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; with a search: $(BIN)/python -m http.server --directory site"

# The page of the licences of all packages, as they are installed.
licences: $(STAMP)
	$(BIN)/python -m tests.licences

clean:
	rm -rf .venv $(FLOORS) .mypy_cache .ruff_cache .pytest_cache
