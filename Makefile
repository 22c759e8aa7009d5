# Needs Python ≥ 3.11 and make; everything else comes into .venv and static/vendor.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
PYTEST_ARGS ?=

.PHONY: setup run test faults bench check clean lock
.DEFAULT_GOAL := run

setup:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found." >&2; exit 2; }
	@$(PYTHON) scripts/set_up.py

run: setup
	@exec .venv/bin/briefly-admin up

test: setup
	@scripts/install_chromium.sh
	@exec .venv/bin/python -m pytest -n 3 $(PYTEST_ARGS)

# All rows of the promises' first table, or one: make faults ROW=kills; one trial again: make faults ROW=kills SEED=12.
faults: setup
	@exec .venv/bin/python -m tests.faults $(ROW) $(if $(SEED),--seed $(SEED)) $(if $(TRIALS),--trials $(TRIALS))

# A row's name measures that row alone: make bench ROW=migrate
bench: setup
	@exec .venv/bin/python -m benchmarks $(ROW)

check: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# Data in .briefly/ stay.
clean:
	rm -rf .venv node_modules static/vendor build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: setup
	@scripts/lock.sh
