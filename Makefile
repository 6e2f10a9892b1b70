# Every target runs in .venv, which `make setup` creates.
PYTHON ?= python3
# Processes that run the tests.
JOBS ?= 2
# The interpreters that `make test-wheel` installs the wheel for.
PYTHONS ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := src tests benchmarks examples docs

.PHONY: setup demo test test-wheel check format coverage docs docs-serve clean

setup: $(INSTALLED)  ## create .venv and install the package with all development tools

# torch comes first, by itself, so that pip takes a CPU build where one is configured.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

demo: setup  ## generate videos, prepare, train all stages, evaluate, write demo-out/report/report.html
	$(BIN)/stresnet demo demo-out

test: setup  ## all tests, warnings as errors
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

test-wheel: setup  ## install the wheel with the newest dependencies in a clean environment and predict a video
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	for python in $(PYTHONS); do $(BIN)/python tests/wheel/check_wheel.py dist/*.whl --python $$python || exit 1; done

check: setup  ## lint, formatting, types, the import rule, Dockerfiles
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cuda docker/Dockerfile.serve

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

coverage: setup  ## report the lines of src that no test reaches
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

docs: setup  ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: setup  ## serve the documentation and rebuild it on every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) build dist demo-out site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
