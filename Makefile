# A convenience over plain commands; each line here can be typed by hand.
.PHONY: install quickstart gpu test test-all lint style types units constraints clean
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

install: $(STAMP)

# uv installs the pinned versions in half a minute where pip takes one and a half.
$(STAMP): pyproject.toml constraints.txt
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
units: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TIER)

# Checking the types takes a minute of one core, and the tests leave some time of both.
test: style
	$(MAKE) --no-print-directory --jobs=2 types units

# With the long cases, which `make test` leaves out; for the night.
test-all:
	$(MAKE) --no-print-directory test TIER="-m ''"

# Truth and speed on a GPU, in eight minutes. An environment that has the packages is used as it is:
# make gpu PYTHON=python3
gpu: export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu: export PYTHONUNBUFFERED := 1
gpu:
	if $(PYTHON) -c 'import fluoroscope.build, pytest, hydra, wandb, pydicom'; then python=$(PYTHON); \
	    else $(MAKE) --no-print-directory install && python=$(BIN)/python; fi; \
	$$python -m benchmarks.gpu budget_s=480 $(ARGS)

# The newest versions that fit pyproject.toml, as name==version lines.
constraints: $(STAMP)
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --all-extras \
	    pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
