.DEFAULT_GOAL := help
VENV := .venv
AIB := $(VENV)/bin/aib

.PHONY: help
help:
	@echo "make demo    build fixtures/templates/hello-linux.json to the end"
	@echo "make test    run all tests (real virtual machines included)"
	@echo "make check   linters, types and the tests that need no virtual machine"

.PHONY: setup
setup: $(VENV)/.installed

# The packages are looked at each time (half a second); the environment is made anew only when its inputs change.
$(VENV)/.installed: pyproject.toml .ci/constraints.txt | host
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[build,dev]'
	touch $@

.PHONY: host
host:
	@.ci/install-packages

.PHONY: demo
demo: setup
	$(AIB) gallery create demo --location eastus --if-missing
	$(AIB) gallery define demo hello-linux --os linux --generation V1 --if-missing
	$(AIB) build fixtures/templates/hello-linux.json
	$(AIB) outputs hello-linux

.PHONY: test
test: setup
	$(VENV)/bin/pytest

.PHONY: check
check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pytest -m "not vm"
