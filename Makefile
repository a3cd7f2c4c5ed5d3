# Everything a newcomer or a developer runs. Each verb sets up what it needs in .venv, from the lock files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 2000
TEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up test check format bench bench-cqrs bench-rebalance bench-raft sim sim-moves demo demo-raft lock clean

help:
	@echo "make up          run a local deployment with real servers (Ctrl-C stops it; UP_ARGS='--shards 2' for options)"
	@echo "make test        run the tests against real servers"
	@echo "make check       format, lint, types, import contract"
	@echo "make bench       the benchmarks of the user service, bounded      make bench-raft  those of the consensus"
	@echo "make bench-cqrs  replay, searches, lag and faults of the read models, bounded"
	@echo "make bench-rebalance  a deployment grows by a shard under load (BENCH_ARGS='--users 2000000' for its size)"
	@echo "make demo        a narrated tour of the user service              make demo-raft   one of the consensus"
	@echo "make sim SEEDS=N the seeded simulation of the consensus, N runs"
	@echo "make sim-moves SEEDS=N the same of the moves: control plane, executors, databases, writers, operators"
	@echo "make format      format the code       make lock  renew the lock files       make clean  remove .venv and caches"

$(VENV)/run.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Denizen needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Denizen into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.lock
	@echo "installing the development tools into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

up: $(VENV)/run.stamp
	@exec $(BIN)/denizen up $(UP_ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check src tests
	@$(BIN)/ruff check src tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	@$(BIN)/ruff format src tests
	@$(BIN)/ruff check --fix src tests

bench: $(VENV)/dev.stamp
	@exec $(BIN)/denizen bench all

bench-cqrs: $(VENV)/dev.stamp
	@exec $(BIN)/denizen bench cqrs $(BENCH_ARGS)

bench-rebalance: $(VENV)/dev.stamp
	@exec $(BIN)/denizen bench rebalance $(BENCH_ARGS)

bench-raft: $(VENV)/dev.stamp
	@exec $(BIN)/python -m denizen.bench.raft

sim: $(VENV)/dev.stamp
	@exec $(BIN)/python -m denizen.raft.sim --seeds $(SEEDS)

sim-moves: $(VENV)/dev.stamp
	@exec $(BIN)/python -m denizen.control.sim --seeds $(SEEDS)

demo: $(VENV)/run.stamp
	@exec $(BIN)/denizen demo

demo-raft: $(VENV)/run.stamp
	@exec $(BIN)/denizen raft demo

lock: $(VENV)/dev.stamp
	@for extra in "" "--extra dev"; do \
		$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-header --no-annotate --no-emit-index-url \
			--no-emit-trusted-host --no-emit-find-links --unsafe-package pip --unsafe-package setuptools \
			$$extra -o requirements$$(test -z "$$extra" || echo -dev).lock pyproject.toml; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
