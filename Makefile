# `make demo` and `make test` work on a fresh clone with Python 3.11 or newer: each makes .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test test-slow lint format docs reference pictures clean

# requirements-dev.txt includes the others.
$(BIN)/.installed: requirements.txt requirements-docs.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'focal_jax needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# Trains briefly, evaluates on real crops, predicts a real stack; about 5 minutes on two cores after installation.
demo: $(BIN)/.installed
	$(BIN)/python -m examples.demo $(DEMO)

# A file's tests share what is slow to compile. CI also runs the slow ones.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(BIN)/.installed
	$(PYTEST) -m 'not slow and not aot'

test-slow: $(BIN)/.installed
	$(PYTEST) -m slow

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(BIN)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into site/. A broken link or reference is an error.
docs: $(BIN)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Documentation generated from the sources: settings, flags, published figures, and the figures of the weights in README.md.
reference: $(BIN)/.installed
	$(BIN)/python docs/make_reference.py

# Pictures of README and site, from the shipped weights; that of the report needs Chromium.
pictures: $(BIN)/.installed
	PYTHONPATH=. $(BIN)/python docs/make_pictures.py

clean:
	rm -rf $(VENV) $(DEMO) site .pytest_cache .ruff_cache
