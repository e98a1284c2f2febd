# Two commands do all the set-up: `make demo` and `make test`. What is missing they bring themselves (scripts/bootstrap).

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench docs fmt build clean

PORT ?= 8000
ARGS ?= --write
export PATH := $(CURDIR)/.node/bin:$(PATH)

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## Start everything on an embedded PostgreSQL and print the address (PORT=8000; Ctrl-C stops it all)
	@scripts/bootstrap python web && exec .venv/bin/lastcall demo --port "$(PORT)"

test: ## All tests: lint, types, imports, unit, SQL, integration, conformance, faults, browser
	@scripts/bootstrap python web browser compiler && exec .venv/bin/python scripts/steps.py test

check: ## The fast part of the tests, under a minute
	@scripts/bootstrap python node && exec .venv/bin/python scripts/steps.py check

bench: ## Measure, print the table and put it into docs/reference/benchmarks.md (ARGS=--quick …)
	@scripts/bootstrap python bench && exec .venv/bin/python -m bench $(ARGS)

docs: ## Write the reference pages that come from the code
	@scripts/bootstrap python && .venv/bin/python scripts/reference.py

fmt: ## Format the code
	@scripts/bootstrap python node && .venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

build: ## Build the pages that the applications serve
	@scripts/bootstrap python web

clean: ## Remove what was installed and built here (never data)
	rm -rf .venv .tools .node node_modules build dist apps/torncat/src/torncat/web .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
