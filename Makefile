# Lakeloop. `make` alone prints this help. Everything is safe to run twice.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
STATE := $(CURDIR)/.lakeloop
UV := $(shell command -v uv || echo $(STATE)/tools/bin/uv)
UV_VERSION := 0.13.9
RUN := $(UV) run --quiet --frozen
OPERATOR := $(RUN) --project operator
LOCAL := $(RUN) --project localcluster localcluster
PYTEST := -q --durations=20 --durations-min=5 --import-mode=importlib -p no:cacheprovider
export KUBECONFIG_FILE := $(STATE)/kubeconfig
# Else each of the hundreds of programs that the tests start compiles all that it imports: seven seconds of a processor.
unexport PYTHONDONTWRITEBYTECODE
# What mypy knows of a file it knows by the file's hash: a new checkout need not begin anew.
MYPY_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lakeloop/mypy

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use
.PHONY: demo up down status
demo: up ## Everything from nothing to a served prediction; leaves the cluster up
	PATH=$(STATE)/bin:$$PATH $(OPERATOR) python -m lakeloop.cli.demo --kubeconfig $(STATE)/kubeconfig

up: tools ## A cluster with the platform and the operator (kind if a Docker engine answers, else localcluster)
	$(LOCAL) platform up

down: tools ## The cluster and all that `make up` made, gone again
	$(LOCAL) platform down

status: tools ## What runs, and where its logs are
	$(LOCAL) status

##@ Develop
.PHONY: test lint unit integration e2e bench generate update-golden screenshots images tools format
test: tools ## Lint, unit, integration and e2e; installs what it needs
	@# two at a time, since much of it waits; the longest first, so that none is left over at the end: it would not be
	@# first, if it had the cluster to wait for
	$(MAKE) --no-print-directory --jobs=2 up $(UNIT) lint
	$(MAKE) --no-print-directory --jobs=2 UP=tools $(E2E_FIRST) $(INTEGRATION) $(E2E_REST)

lint: tools ## ruff, mypy, import-linter, and drift of generated files
	@for p in $(PROJECTS); do echo "── lint $$p"; $(RUN) --project $$p ruff check $$p; $(RUN) --project $$p ruff format --check $$p; (cd $$p && $(RUN) mypy --cache-dir $(MYPY_CACHE)/$$p); done
	$(OPERATOR) ruff check --config operator/pyproject.toml tests benchmarks docs samples
	$(OPERATOR) ruff format --check --config operator/pyproject.toml tests benchmarks docs samples
	cd benchmarks && $(RUN) --project ../operator mypy --config-file ../operator/pyproject.toml --cache-dir $(MYPY_CACHE)/benchmarks $$(ls *.py | grep -v server_bench)
	cd operator && $(RUN) lint-imports --config .importlinter
	$(OPERATOR) python -m lakeloop.codegen --check

unit: tools ## Pure tests, seconds
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(UNIT)

UNIT := unit-trainer unit-operator unit-others
.PHONY: $(UNIT)
unit-trainer: tools
	$(RUN) --project images/trainer pytest $(PYTEST) tests/unit/trainer

unit-operator: tools
	$(OPERATOR) pytest $(PYTEST) tests/unit --ignore tests/unit/trainer --ignore tests/unit/server

unit-others: tools
	$(RUN) --project images/model-server pytest $(PYTEST) tests/unit/server
	$(RUN) --project localcluster pytest -q -m "not node and not api" tests/localcluster
	$(RUN) --project localcluster pytest $(PYTEST) tests/images

INTEGRATION := integration-trainer integration-operator integration-server
.PHONY: $(INTEGRATION)
integration: $(INTEGRATION) ## A real etcd, kube-apiserver, Spark, MLflow and model server; the charts by a real Helm

integration-trainer: tools
	$(RUN) --project images/trainer pytest $(PYTEST) tests/trainer

integration-operator: tools
	$(LOCAL) binaries
	$(RUN) --project localcluster pytest -q -m api tests/localcluster
	$(OPERATOR) pytest $(PYTEST) tests/integration tests/charts

integration-server: tools
	$(RUN) --project images/model-server pytest $(PYTEST) tests/server

# The images are only looked into, and the second cluster is one beside whatever runs.
UP := up
E2E_FIRST := e2e-node
E2E_REST := e2e-images e2e-second
.PHONY: $(E2E_FIRST) $(E2E_REST)
e2e: $(E2E_FIRST) $(E2E_REST) ## A real node: the samples and documented commands as written, the images, and a second cluster up and down

e2e-node: $(UP)
	PATH=$(STATE)/bin:$$PATH $(OPERATOR) pytest $(PYTEST) tests/e2e

e2e-images: $(UP)
	$(RUN) --project localcluster pytest $(PYTEST) -m images tests/images

e2e-second: $(UP)
	$(RUN) --project localcluster pytest -q -m node tests/localcluster

bench: up ## Speed and memory beside what a user would pick instead; BENCH="submit --write docs/benchmarks.md"
	PATH=$(STATE)/bin:$$PATH UV=$(UV) $(OPERATOR) python benchmarks/run_all.py $(BENCH)

generate: tools ## CRDs, RBAC, values schema, API reference from the types
	$(OPERATOR) python -m lakeloop.codegen

update-golden: tools ## Rewrite the golden files of rendered manifests
	UPDATE_GOLDEN=1 $(OPERATOR) pytest $(PYTEST) tests/unit tests/charts/test_golden.py --ignore tests/unit/trainer --ignore tests/unit/server

screenshots: tools ## The pictures in docs/, from the cluster of `make demo` (needs chromium)
	PATH=$(STATE)/bin:$$PATH $(OPERATOR) python docs/screenshots.py

images: tools ## Build the images and load them into the cluster
	$(LOCAL) images build && $(LOCAL) images load

format: tools ## Format the code
	@for p in $(PROJECTS); do $(RUN) --project $$p ruff check --fix -q $$p; $(RUN) --project $$p ruff format -q $$p; done
	$(OPERATOR) ruff format -q --config operator/pyproject.toml tests benchmarks docs samples

tools: $(UV)
$(STATE)/tools/bin/uv:
	python3 -m venv $(STATE)/tools
	$(STATE)/tools/bin/pip install --quiet uv==$(UV_VERSION)

PROJECTS := operator localcluster images/trainer images/model-server
