.DEFAULT_GOAL := help
VENV := .venv
AIB := $(VENV)/bin/aib
FUZZ_SECONDS ?= 300
FUZZ_EXAMPLES ?= 500
PAIRS ?= 5
CASES ?=

.PHONY: help
help:
	@echo "make demo    build fixtures/templates/hello-linux.json to the end"
	@echo "make demo-windows  the same for fixtures/templates/hello-windows.json, on a VM that acts as Windows"
	@echo "make test    run all tests (real virtual machines included)"
	@echo "make test-az the Azure CLI, unmodified, against aib serve (installs 700 MB once)"
	@echo "make check   linters, types and the unit tests (a minute)"
	@echo "make bench   time validate and builds beside Packer (PAIRS=5 CASES=cold,step,warm,vhd,pause,file,memory,four)"
	@echo "make fuzz    fuzz the template loader and the expressions (FUZZ_SECONDS=300 each), and the endpoint"

.PHONY: setup
setup: $(VENV)/.installed

# The packages are looked at each time (half a second); the environment is made anew only when its inputs change.
$(VENV)/.installed: pyproject.toml .ci/constraints.txt | host
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[build,serve,dev]'
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

# The source image is a stand-in for Windows: a small Linux that answers as Windows does (fixtures/guests/windows).
WINDOWS_SOURCE := /subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib/providers/Microsoft.Compute/images/windows-source

.PHONY: demo-windows
demo-windows: setup
	image=$$($(VENV)/bin/python -m fixtures.guests.windows.vm.build) && \
	{ $(AIB) image remove $(WINDOWS_SOURCE) 2>/dev/null || true; } && \
	$(AIB) image import "$$image" --managed-image-id $(WINDOWS_SOURCE) --location eastus --os windows --generation V1
	$(AIB) build fixtures/templates/hello-windows.json
	$(AIB) outputs hello-windows

.PHONY: test
test: setup
	$(VENV)/bin/pytest -n 2 --dist loadgroup -m "not alone"
	$(VENV)/bin/pytest -m alone

.PHONY: test-az
test-az: setup
	$(VENV)/bin/pytest tests/az

.PHONY: check
check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pytest -n 2 tests/unit

.PHONY: bench
bench: setup
	$(VENV)/bin/python tests/bench/validate_bench.py
	$(VENV)/bin/python tests/bench/build_bench.py --pairs $(PAIRS) --cases "$(CASES)" --readme README.md
	$(VENV)/bin/python tests/bench/serve_bench.py
	$(VENV)/bin/python tests/bench/upload_bench.py

# atheris comes for Linux and macOS alone, and only this target needs it.
.PHONY: fuzz
fuzz: setup
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[fuzz]'
	mkdir -p build/fuzz
	cd build/fuzz && for what in templates expressions; do \
		../../$(VENV)/bin/python ../../tests/fuzz/fuzz_$$what.py -max_total_time=$(FUZZ_SECONDS) -max_len=8192 $$what || exit 1; \
	done
	AIB_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(VENV)/bin/pytest --timeout 0 tests/contract/test_openapi.py tests/contract/test_service_deployment_fuzz.py
