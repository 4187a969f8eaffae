# make demo   the whole thing on this machine, in a small internet of its own
# make quick  the checks, and the tests that need no engine
# make test   these, and the image's tests
# make bench  figures
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The name of the image that is built and tested: another one leaves yours alone.
IMAGE ?= tambo
export TAMBO_IMAGE = $(IMAGE)
# Processes that run tests at once: as many as the machine bears, or a number.
export WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
SCRIPTS := tools/*.sh tests/world/roles/*.sh rootfs/usr/lib/tambo/acme rootfs/usr/lib/tambo/mda hook/*.sh .ci/run
# The base image's name, found once, when first needed: the engine must run by then.
BASE = $(eval BASE := $$(shell tools/base-image.sh))$(or $(BASE),$(error no base image))
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
REVISION := $(shell git describe --always --dirty --exclude='*' 2>/dev/null)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: engine
engine: ## a running Docker engine, installed if this is a bare machine
	@tools/engine.sh

.PHONY: compiler
compiler: ## a C compiler for the hook's tests, installed if this is a bare machine
	@tools/compiler.sh

.PHONY: image
image: engine ## build the image, called tambo (IMAGE=other: another name)
	@echo "building the image on $(BASE)"
	@docker build -q --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t $(IMAGE) . >/dev/null

.PHONY: demo
demo: image ## send real mail through a small internet, and show the receiver's verdicts
	@TAMBO_BASE=$(BASE) python3 -m tests.world.demo $(if $(BREAK),--break $(BREAK))

.PHONY: demo-down
demo-down: engine ## remove all that the demo made
	@python3 -m tests.world.demo --down

$(VENV)/done: requirements/dev.txt requirements/build.txt tools/venv.sh
	@tools/venv.sh $(VENV)
	@touch $@

.PHONY: check
check: engine compiler $(VENV)/done ## linters, types, layers, generated files
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck $(SCRIPTS)
	hook/build.sh -fanalyzer -c -o /dev/null
	$(BIN)/hadolint Dockerfile tests/clients/Dockerfile tests/parsers/Dockerfile tests/world/Dockerfile
	$(BIN)/yamllint --strict .
	$(BIN)/python -m tools.generate --check
	printf 'services: {mail: {env_file: !override [.env.example]}}' | docker compose -f compose.yaml -f - config -q
	WORLD_NET4=198.51.100 WORLD_NET6=2001:db8:7 WORLD_RESOLV_CONF=/dev/null docker compose -f tests/world/compose.yaml config -q

.PHONY: unit
unit: compiler $(VENV)/done ## the tests that need no engine (WORKERS=1: one at a time)
	@tools/tests.sh "not image and not long" --cov=entrypoint --cov-report= --cov-fail-under=0
	@$(BIN)/coverage report --skip-covered

.PHONY: quick
quick: check unit ## what to run after each change: no image, three minutes

.PHONY: test
test: quick image ## everything but what takes long
	@TAMBO_BASE=$(BASE) tools/tests.sh "image and not long"

.PHONY: test-long
test-long: image $(VENV)/done ## attacks, floods, kill loops, all mail programs: CI runs these too
	@TAMBO_BASE=$(BASE) tools/tests.sh long

.PHONY: mutants
mutants: $(VENV)/done ## wrong changes of policy and routing that no unit test notices (MODULES=policy/decide: only there)
	@nice $(BIN)/python -m tools.mutants $(MODULES)

.PHONY: generate
generate: $(VENV)/done ## write .env.example and docs/settings.md from the settings' definitions
	$(BIN)/python -m tools.generate

.PHONY: lock
lock: ## pin every dependency by hash
	tools/lock.sh

.PHONY: bench
bench: image ## figures: start, verbs, submission, restarts, memory; what the policy costs
	@TAMBO_BASE=$(BASE) python3 -m tests.bench.bench
	@TAMBO_BASE=$(BASE) python3 -m tests.bench.policy
