# Everything runs in .venv, which the targets make for themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODULES := $(addprefix stresnet.,media flow model data recipes weights training inference evaluation)
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test check format coverage docs clean

setup: $(INSTALLED)

# torch first and by itself, so that a build for this machine that pip knows of (CPU only, say) is taken.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## generate videos, prepare, train all stages, evaluate, write demo-out/report/report.html
	$(BIN)/stresnet demo demo-out

test: setup  ## all tests, warnings as errors
	$(BIN)/python -m pytest

check: setup  ## lint, formatting, types
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

coverage: setup  ## which lines of src the tests reach
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

docs: setup  ## the Python reference, in site/
	$(BIN)/pdoc --docformat google --output-directory site $(MODULES)

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .mypy_cache .ruff_cache
