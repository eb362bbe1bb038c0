.PHONY: setup
setup: .venv/.installed

.venv/.installed: pyproject.toml .ci/constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --constraint .ci/constraints.txt --editable '.[build,dev]'
	touch $@
