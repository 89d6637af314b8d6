# Birdhouse. `make demo` shows it, `make test` proves it; `make help` lists the rest.
#
# Nothing here needs root. Building real networks does: those steps use sudo, unless you are root already, and leave
# no file of root's in the checkout.

SHELL := /bin/bash
BIN := .venv/bin
PYTHON ?= python3
SEEDS ?= 1000

# -H: caches of the libraries go to root's home; no bytecode: root writes none into the checkout.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -H env PYTHONDONTWRITEBYTECODE=1 CI=$$CI)

.DEFAULT_GOAL := help
.PHONY: help setup demo test netem check format soak bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is needed; quick when there is nothing to do
	@PYTHON=$(PYTHON) tools/setup.sh

demo: setup ## compare star, caching and gossip on a real emulated network, and write the report
	$(AS_ROOT) $(BIN)/birdhouse compare --fabric mininet

test: setup ## run all tests: side by side in the simulation, then one by one on Mininet
	$(BIN)/python -m pytest -m "not emulation and not netem" -n auto
	$(AS_ROOT) $(BIN)/python -m pytest -m emulation -p no:cacheprovider

netem: setup ## run the tests of the netem enforcer under a kernel that has netem, in QEMU (docs/netem.md)
	tools/in_qemu.py --install -- env CI=true $(BIN)/python -m pytest -m netem -p no:cacheprovider -rA \
		tests/underlay/emulation/test_netem_kernel.py

check: setup ## format, lint, types, the import rule, and no iteration over unordered sets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_set_iteration.py

format: setup ## format the code and apply the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: setup ## try every seeded test with SEEDS seeds (make soak SEEDS=10000)
	$(BIN)/python -m pytest -m "(sweep or hypothesis) and not emulation and not netem" -n auto --seeds $(SEEDS) --timeout 0

bench: setup ## measure Birdhouse against its peers; the numbers are those of docs/performance.md
	$(AS_ROOT) $(BIN)/python -m bench

lock: ## make requirements.lock anew, with the newest versions pyproject.toml allows
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --no-config --universal --upgrade --extra dev --generate-hashes \
		--no-annotate --no-header --output-file requirements.lock pyproject.toml
	rm -r build/lock

clean: ## remove what the targets above cached, but neither .venv nor the runs
	rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
