# kdbench. `make table1` and `make test` install what they need; later calls skip this.
#
#   PYTHON=python3.12       Python of the environment (3.11 or later)
#   TORCH="..."             torch to install; TORCH=none: use the one installed for PYTHON
#   TORCH_INDEX=URL         package index of torch; https://download.pytorch.org/whl/cpu is small
#   PROFILE=demo|quick|paper  size of `make table1`; default: paper if a GPU or Slurm answers,
#                           otherwise demo

PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.kdbench-installed
# Evaluated once, and only if a recipe needs it. If Slurm's commands are installed without a cluster,
# sinfo takes long to give up.
ANSWERS = nvidia-smi -L >/dev/null 2>&1 || \
    { nodes=$$($$(command -v timeout >/dev/null && echo timeout 5) sinfo -h 2>/dev/null) && test -n "$$nodes"; }
PROFILE ?= $(eval PROFILE := $(shell if $(ANSWERS); then echo paper; else echo demo; fi))$(PROFILE)
GRID_demo := experiments/demo.yaml
GRID_quick := experiments/quick.yaml
GRID_paper := experiments/table1.yaml
GRID = $(GRID_$(PROFILE))
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
.DEFAULT_GOAL := help
.PHONY: help setup table1 demo test test-avx2 test-torch-2.11 test-slow test-slurm test-slurm-slow test-browser test-gpu fuzz gpu-check lint types notebooks bench verify-results check smoke wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## create .venv and install kdbench into it

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"kdbench needs Python 3.11 or later, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12") if v < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(if $(filter none,$(TORCH)),--system-site-packages) $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifneq ($(TORCH),none)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
endif
	$(BIN)/python -m pip install --quiet --editable '.[dev,tensorboard]'
	@touch $@

table1: setup ## train, write the leaderboard, print Table 1 (PROFILE=demo|quick|paper)
	@test -n "$(GRID)" || { echo "PROFILE=$(PROFILE): unknown; accepted: demo, quick, paper" >&2; exit 2; }
	$(BIN)/kdbench run --grid $(GRID)

demo: ## make table1 with PROFILE=demo: minutes on any machine
	@$(MAKE) --no-print-directory table1 PROFILE=demo

test: setup ## run the tests
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not slurm and not browser and not gpu"

test-avx2: setup ## run the tests with the kernels of a processor without AVX-512
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(MAKE) --no-print-directory test

# An older torch, in a separate environment. Not in CI: it takes 6 GB.
test-torch-2.11: ## run the tests with torch 2.11.0, in .venv-2.11
	@$(MAKE) --no-print-directory test VENV=.venv-2.11 TORCH="torch==2.11.0 torchvision==0.26.0"

test-slow: setup ## run the slow tests: kills on the command line, the wheel
	$(BIN)/python -m pytest -q -m "slow and not slurm and not browser and not gpu"

test-browser: setup ## test the pages in headless Chromium; KDBENCH_REQUIRE=browser fails without it
	$(BIN)/python -m pytest -q -m browser

test-gpu: setup ## test on a GPU that it gives the right numbers; KDBENCH_REQUIRE=gpu fails without one
	$(BIN)/python -m pytest -q -m gpu

fuzz: setup ## give every reader 2,000 damaged or invented inputs; minutes
	KDBENCH_FUZZ=2000 $(BIN)/python -m pytest -q -n $(JOBS) --timeout 3600 tests/fuzz

test-slurm: setup ## run the tests that need Slurm; KDBENCH_REQUIRE=slurm installs it (Debian, root)
	$(BIN)/python -m pytest -q -m "slurm and not slow"

test-slurm-slow: setup ## test real time limits, and an array of two hundred jobs
	$(BIN)/python -m pytest -q -m "slurm and slow"

lint: setup ## check style, spelling and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache

types: setup ## check types
	$(BIN)/mypy

notebooks: setup ## run the notebooks from the first cell to the last
	$(BIN)/python -m pytest -q -n $(JOBS) --nbmake --timeout 900 notebooks

verify-results: setup ## make every leaderboard in results/ again and compare byte by byte
	$(BIN)/kdbench verify

BENCHMARKS := startup data table compiled growth memory scaling methods plan report slurm kills

bench: setup ## run the benchmarks: one JSON line per figure; an hour on an idle machine
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

gpu-check: setup ## check this machine's GPU in six minutes; results in gpu-check/
	$(BIN)/python -m benchmarks.gpu_check --out gpu-check

smoke: setup ## train a two-method grid to its leaderboard, in seconds
	$(BIN)/python -m pytest -q tests/whole/test_end_to_end.py

wheel: setup ## build the wheel and list the methods from another folder
	$(BIN)/python -m pytest -q -m slow tests/whole/test_wheel.py

check: lint types test test-slow notebooks ## run the checks that need only Python

clean: ## remove the environment, caches and builds; keep runs/, data/ and results/
	rm -rf $(VENV) .venv-2.11 build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
