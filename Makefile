# Everything starts here: `make demo`, `make test`. Only Python 3.11 or newer, with pip, is needed.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: install develop demo test slow lint schemas fhir-rules clean

install: $(VENV)/installed  ## the `ehrsim` command in .venv
develop: $(VENV)/developed  ## the same with everything that tests and checks need

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: constraints/core.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r constraints/core.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/developed: constraints/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r constraints/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## reference population, training, simulated patients, FHIR, and a page to look at
	$(BIN)/ehrsim demo --overwrite

test: develop  ## the quick tests and the checks
	$(BIN)/python -m pytest -n auto
	$(MAKE) lint

slow: develop  ## the tests that take long
	$(BIN)/python -m pytest -n auto -m slow

lint: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/ehrsim schemas --check

schemas: develop
	$(BIN)/ehrsim schemas

fhir-rules: develop  ## ehrsim/fhir/rules from the packages of HL7 in the folder PACKAGES
	$(BIN)/python schemas/fhir/compile.py $(PACKAGES)

clean:
	rm -rf $(VENV) ehrsim-demo
