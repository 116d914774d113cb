# The targets a person and CI use. Stamp files inside .venv keep a second run from installing again;
# what `make dev` installs is a superset of what `make up` needs, so both share one .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
CODE := $(wildcard src tests benchmarks scripts)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: setup ## Start Zene on this machine, installing what is missing (ARGS="--port 8421")
	@exec $(BIN)/zene up $(ARGS)

.PHONY: setup
setup: system-packages .venv/.run ## Install everything `make up` needs, without starting it

.PHONY: dev
dev: .venv/.dev ## Install what the checks and tests need into .venv

.PHONY: test
test: test-packages .venv/.dev ## Run all tests (ARGS="tests/unit -x")
	@$(BIN)/python -m pytest $(ARGS) </dev/null

.PHONY: coverage
coverage: test-packages .venv/.dev ## Run all tests and say which lines they do not reach
	@$(BIN)/python -m pytest --cov=zene --cov-report=term $(ARGS) </dev/null

.PHONY: check
check: .venv/.dev ## Check format, lint, types, import contracts, unused code and dependencies
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/unused_code.py $(CODE)
	$(BIN)/deptry src

.PHONY: format
format: .venv/.dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

.PHONY: bench
bench: test-packages .venv/.dev ## Measure Zene against the bare loop (ARGS="--help")
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: chaos
chaos: test-packages .venv/.dev ## Let everything go wrong at once for a minute (ARGS="--seed 1 --seconds 60")
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: test-packages .venv/.dev ## The same for two hours: 60 plays, each with a seed of its own
	@$(BIN)/python -m tests.chaos --plays 60 --seconds 90 $(ARGS)

.PHONY: bench-scale
bench-scale: test-packages .venv/.dev ## Measure many processes on PostgreSQL and Redis (ARGS="--quick")
	@$(BIN)/python -m benchmarks.scale $(ARGS)

.PHONY: lock
lock: .venv/.dev ## Lock the dependencies anew after a change in pyproject.toml (ARGS="--upgrade")
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/lock $(ARGS)

.PHONY: uninstall
uninstall: ## Remove what Zene set up outside and inside the checkout (PURGE=1: its data too)
	@PURGE="$(PURGE)" scripts/uninstall

.PHONY: system-packages
system-packages:
	@scripts/system-packages

.PHONY: test-packages
test-packages:
	@scripts/system-packages test

.venv/bin/python:
	@scripts/create-venv

.venv/.run: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the locked dependencies into .venv"
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock pyproject.toml | .venv/bin/python
	@echo "Installing the locked dependencies for development into .venv"
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ .venv/.run
