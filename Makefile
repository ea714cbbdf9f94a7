# Needs Python 3.11 or newer and make; everything else is installed into .venv by the targets themselves.
PYTHON ?= python3
STUDY ?= sweep-smoke
FIGURE ?= fig5
PRESET ?= laptop
WORKERS ?= 1
PORT ?= 5000
ARGS ?=
# On Linux PyPI serves a CUDA build of torch, several GB; this index has the CPU build. Unreachable is no
# error: pip then takes what its own configuration offers.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := .venv/bin
OUROLOOP := $(BIN)/ouroloop
# Python compiles a module when it is first imported; to compile all of every package takes longer than the rest
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install sweep leaderboard run figure ui status register report bench pictures test test-heavy test-slow test-browser check lint types architecture format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## make .venv and install what running needs

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ouroloop needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --no-deps --retries 0 --timeout 20 --extra-index-url $(TORCH_INDEX) torch
	$(INSTALL) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable '.[dev]'
	@touch $@

sweep: .venv/.installed ## run a study over the synthetic proportion (STUDY=sweep-smoke WORKERS=1)
	$(OUROLOOP) sweep $(STUDY) --workers=$(WORKERS) $(ARGS)

run: .venv/.installed ## run one loop (PRESET=laptop, ARGS="--cycle.kind=balanced")
	$(OUROLOOP) run $(PRESET) $(ARGS)

figure: .venv/.installed ## run a figure's study and the same with the ideal learner; results go into experiments/results (FIGURE=fig5)
	@for study in $(FIGURE) $(FIGURE)-ideal; do \
		$(OUROLOOP) sweep $$study --workers=$(WORKERS) $(ARGS) && \
		$(OUROLOOP) report $$study --folder=experiments/results/$$study || exit 1; \
	done
	$(BIN)/python -m ouroloop.report.archive experiments/results/$(FIGURE)

ui: .venv/.installed ## browse the runs in the MLflow UI, on this machine only (PORT=5000)
	$(OUROLOOP) ui --port=$(PORT)

status: .venv/.installed ## what ran, runs, failed and is left
	$(OUROLOOP) status

leaderboard: .venv/.installed ## what stops the collapse: every method compared (LEARNER=empirical: the ideal learner)
	$(OUROLOOP) leaderboard $(if $(LEARNER),--learner=$(LEARNER)) --workers=$(WORKERS) $(ARGS)

report: .venv/.installed ## what a study or loop found as one HTML page (STUDY=sweep-smoke)
	$(OUROLOOP) report $(STUDY)

BENCH := $(if $(filter --gpu,$(ARGS)),bench_gpu.py,bench.py) $(ARGS)
BENCH := $(if $(filter --workers,$(ARGS)),bench_workers.py $(filter-out --workers,$(ARGS)),$(BENCH))

bench: .venv/.installed ## compare our speed with stock libraries' on this machine (ARGS=--quick: two minutes, --loop: whole loops, --workers: two against one, --gpu)
	$(BIN)/python experiments/$(BENCH)

pictures: .venv/.installed-dev ## redraw the pictures of README and docs: from their tables, and screenshots by an installed Chromium
	$(BIN)/python -m ouroloop.report.archive $(dir $(wildcard experiments/results/*/findings.json)) experiments/results/leaderboard-retention.csv experiments/results/leaderboard-depth.csv
	$(BIN)/python experiments/pictures.py

register: .venv/.installed ## register the models of each collapse stage (STUDY=sweep-smoke)
	$(OUROLOOP) register $(STUDY)

test: .venv/.installed-dev ## run the default test suite
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

test-heavy: .venv/.installed-dev ## the default suite and what is heavy: whole loops and studies, processes, large samples
	$(BIN)/pytest -n auto --dist worksteal -m "not slow and not browser" $(ARGS)

test-slow: .venv/.installed-dev ## tests that take minutes: processes that are killed, the wheel, two machines
	$(BIN)/pytest -m slow $(ARGS)

test-browser: .venv/.installed-dev ## the report and the MLflow UI in a headless Chromium, where there is one
	$(BIN)/pytest -m browser $(ARGS)

check: lint types architecture test-heavy test-browser ## what CI runs first, and before a commit

lint: .venv/.installed-dev ## style and forbidden calls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev ## static types, strict
	$(BIN)/mypy

architecture: .venv/.installed-dev ## which module may import which
	$(BIN)/lint-imports --no-cache

format: .venv/.installed-dev ## fix what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches; never touches mlruns/
	rm -rf .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
