# Everything from a fresh clone: Python 3.11 or newer, nothing else installed, no root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GRAPHIQL := gateway/static/graphiql
.DEFAULT_GOAL := help
.PHONY: help up token doctor test check bench simulate chaos capacity format schema lock audit clean
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1
# Compiled once, though the shell may say otherwise: up and test start many processes.
export PYTHONDONTWRITEBYTECODE :=

help: ## What there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.ready $(GRAPHIQL)/.ready ## Run everything here (Valkey, Stripe sandbox, gateway, worker) with demo data; Ctrl-C ends it
	@exec $(BIN)/python -m demo up

token: $(VENV)/.ready ## Print one token: ROLE=support, ROLE=metering or ROLE=customer CUSTOMER=cus_…
	@$(BIN)/python -m demo token --role '$(ROLE)' --customer '$(CUSTOMER)'

doctor: $(VENV)/.ready ## Check the Stripe account of BILLING_STRIPE_API_KEY, reading only
	@$(BIN)/python -m billing doctor $(ARGS)

# Three processes for two cores, because tests wait for each other's parts; the browser's stay together.
test: $(VENV)/.ready-dev $(GRAPHIQL)/.ready ## Run the whole suite against real parts, four minutes on two idle cores (ARGS=tests/schema for a part)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(ARGS)

check: $(VENV)/.ready-dev ## Lint, format, types, import contracts, SDL drift
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m schema --check

bench: $(VENV)/.ready-dev ## Run the benchmarks, each with its floor in the same run (ONLY=reads for one)
	@$(BIN)/python -m benchmarks $(ONLY)

simulate: $(VENV)/.ready-dev ## Try crash schedules on the real ledger and flush: SCHEDULES=10000 SEED=1
	@$(BIN)/python -m tests.simulation --schedules $(or $(SCHEDULES),10000) --seed $(or $(SEED),1)

chaos: $(VENV)/.ready-dev ## Kill every process at random while usage comes in, then compare the bills: SECONDS=60 SEED=1
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

capacity: $(VENV)/.ready-dev ## What staleness a Stripe allowance buys, for 10 k, 100 k and 1 M customers
	@$(BIN)/python -m benchmarks.capacity

format: $(VENV)/.ready-dev ## Put the code into its format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

schema: $(VENV)/.ready ## Write schema/schema.graphql and the panel's documents.json from the code
	@$(BIN)/python -m schema

lock: ## Resolve pyproject.toml's dependencies anew (needs uv and npm) into the files with hashes
	@uv pip compile pyproject.toml --extra demo -o requirements.txt $(LOCK)
	@uv pip compile pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt $(LOCK)
	@uv pip compile ide/requirements.in -o ide/requirements.txt $(LOCK)
	@cd ide && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --silent
LOCK := --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11

audit: $(VENV)/.ready ## Look the locked dependencies up in the advisories of PyPI and npm (needs the internet)
	@test -x .audit/bin/pip-audit || ($(PYTHON) -m venv .audit && .audit/bin/pip install --quiet pip-audit)
	@.audit/bin/pip-audit --disable-pip --require-hashes -r requirements-dev.txt -r requirements.txt
	@$(BIN)/python ide/build.py --audit

$(GRAPHIQL)/.ready: ide/build.py ide/package-lock.json | $(VENV)/.ready
	@echo "Fetching GraphiQL's files for /graphiql from npm's registry, half a minute the first time …"
	@$(BIN)/python ide/build.py $(GRAPHIQL)

clean: ## Remove what was set up and the demo's data
	@rm -rf $(VENV) .audit $(GRAPHIQL) .data

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python requirements.txt pyproject.toml
	@echo "Setting up $(VENV): pip fetches $$(grep -c '==' requirements.txt) packages and checks their hashes, a minute or two the first time …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@echo "$(VENV) is ready."
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	@echo "Adding what tests and checks need …"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
