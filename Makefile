# `make quickstart` and `make test` create .venv when it is missing and install what they need.
# TORCH_INDEX: another index for torch in a new .venv (`make clean` first), e.g. https://download.pytorch.org/whl/cu130 or .../whl/cpu
VENV ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
BIN = $(VENV)/bin
# pip would warn of folders that are named like the package and imported in its place: there is none here.
INSTALL = PYTHONWARNINGS="ignore:Editable installation" $(BIN)/pip install -q
# One worker a core, each of one thread: tiny models gain nothing from more.
PYTEST = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: quickstart test test-all lint benchmarks clean live

quickstart: $(VENV)/.ready
	$(BIN)/inlay run quickstart

test: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(PYTEST) -m "not gpu and not slow"

test-all: $(VENV)/.ready-test
	$(PYTEST)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; set PYTHON=/path/to/python3.11"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(if $(TORCH_INDEX),$(INSTALL) "torch>=2.11$(comma)<2.14" --index-url $(TORCH_INDEX))

comma := ,

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml
	$(INSTALL) -e .
	@touch $@

$(VENV)/.ready-test: $(VENV)/bin/python pyproject.toml
	$(INSTALL) -e ".[test]"
	@touch $@ $(VENV)/.ready

live:  # symlinks under the import name, for type checkers
	mkdir -p build/live/inlay
	for d in adapters eval recipes tuner; do ln -sfn "$(CURDIR)/$$d" build/live/inlay/$$d; done
	ln -sfn "$(CURDIR)/tuner/api/__init__.py" build/live/inlay/__init__.py

benchmarks: $(VENV)/.ready-test  # the quickstart's bars; see also benchmarks/real_models.py and benchmarks/cuda.py
	mkdir -p benchmarks/results
	$(BIN)/inlay run quickstart --again > benchmarks/results/quickstart.txt
	$(BIN)/inlay compare compare-quickstart --again > benchmarks/results/compare-quickstart.txt
	$(BIN)/python benchmarks/embedded_bars.py
	$(BIN)/python benchmarks/tables.py
