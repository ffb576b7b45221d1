# The one entry to everything: `make up` serves, `make test` tests.

PYTHON ?= python3
VENV ?= .venv
POETRY ?= poetry
BIN := $(VENV)/bin
COMPOSE ?= docker compose --env-file docker/.env --file docker/compose.yaml
PACKAGES := contract export gateway k8s loadtest monitoring serving tests tidegate training mkdocs_hooks.py

.DEFAULT_GOAL := help
.PHONY: help up install install-tensorrt test chaos lint format docs console bench pipeline load lock compose-up compose-down images-check k8s-monitoring clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

up: $(VENV)/.serve ## Serve model_repository/ on this machine
	@exec $(BIN)/tidegate up

install: $(VENV)/.all ## Install everything: serving, export, load tests, development, docs

install-tensorrt: $(VENV)/.all ## Add torch-tensorrt, several GB, where a GPU is to build TensorRT plans
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/tensorrt.txt

test: $(VENV)/.all ## Lint, check the types and run every test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest $(PYTEST_ARGS)

chaos: $(VENV)/.all ## Do every fault to real servers, write docs/reliability.md and build/chaos.json (45 minutes); ROWS are names of some
	$(BIN)/python -m tests.chaos $(ROWS)

lint: $(VENV)/.all ## Check format, imports and types
	$(BIN)/black --check --quiet $(PACKAGES) || { $(BIN)/black --diff --quiet $(PACKAGES); exit 1; }
	$(BIN)/isort --check $(PACKAGES)
	$(BIN)/mypy

format: $(VENV)/.all ## Format the code
	$(BIN)/isort --quiet $(PACKAGES)
	$(BIN)/black --quiet $(PACKAGES)

docs: $(VENV)/.all ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

console: ## Build the console's page from console/ into gateway/console/ (needs Node.js)
	cd console && npm ci --no-audit --no-fund && npm run build

bench: $(VENV)/.all ## Measure the gateway beside the machine's limit, Triton, a relay and a C proxy; needs h2load
	$(BIN)/python -m loadtest.bench $(BENCH_ARGS)

pipeline: $(VENV)/.all ## Train the demo model, export, verify and publish it into model_repository/
	$(BIN)/tidegate train
	$(BIN)/tidegate export .tidegate/checkpoints/digits.ckpt

load: $(VENV)/.all ## Load the running `make up` for a few seconds and report; LOAD_ARGS are options of `tidegate load`
	$(BIN)/tidegate load $(LOAD_ARGS)

lock: ## Resolve the dependencies anew and export what pip installs (needs Poetry and poetry-plugin-export)
	$(POETRY) lock
	$(POETRY) export --only main --output requirements/serve.txt
	$(POETRY) export --with dev,docs,export,load,monitoring --output requirements/all.txt
	$(POETRY) export --only tensorrt --output requirements/tensorrt.txt

compose-up: docker/.env ## Build and start everything in containers, where there is Docker
	$(COMPOSE) up --build --detach

compose-down: docker/.env ## Stop them; the volumes stay
	$(COMPOSE) down

k8s-monitoring: $(VENV)/.all ## Write the rules and dashboards of monitoring/ as Kubernetes manifests
	$(BIN)/python k8s/generate.py

images-check: $(VENV)/.all ## Build the images of the gateway and the CPU Triton without Docker, and classify with them
	$(BIN)/python -m tests.image_check

docker/.env:
	@umask 077 && $(PYTHON) -c 'import re, secrets, sys; \
		sys.stdout.write(re.sub("(?m)=$$", lambda _: "=" + secrets.token_hex(20), sys.stdin.read()))' < docker/.env.example > $@

clean: ## Remove what was built; keeps .venv and .tidegate
	rm -rf build dist site .mypy_cache .pytest_cache

# A stamp a set: `make up` after `make install` installs nothing.
$(VENV)/.serve: requirements/serve.txt pyproject.toml | $(VENV)/bin/python
	@test -e $(VENV)/.all || $(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/serve.txt
	@$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.all: requirements/all.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/all.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $(VENV)/.serve $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Tidegate needs Python 3.11 or 3.12; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
