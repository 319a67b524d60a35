# kdbench. `make table1` and `make test` install what they need; later calls skip this.
#
#   PYTHON=python3.12       Python of the environment (3.11 or later)
#   TORCH="..."             torch to install; TORCH=none: use the one installed for PYTHON
#   TORCH_INDEX=URL         package index of torch; default: that of the small build for CPUs if it
#                           answers and no GPU or Slurm is found, otherwise PyPI
#   YES=1                   start `make quick` and `make paper` without asking

PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.kdbench-installed
CPU_INDEX := https://download.pytorch.org/whl/cpu
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
.DEFAULT_GOAL := help
.PHONY: help setup table1 demo quick paper confirmable test test-avx2 test-torch-2.11 test-slow test-slurm test-slurm-slow test-browser test-gpu fuzz gpu-check lint types notebooks bench verify-results check smoke wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## create .venv and install kdbench into it

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"kdbench needs Python 3.11 or later, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12") if v < (3, 11) else 0'
ifeq ($(TORCH),none)
	@$(PYTHON) -c 'import torch, torchvision' 2>/dev/null || { echo "TORCH=none: $(PYTHON) has no torch with torchvision: install them there, or run make without TORCH=none" >&2; exit 2; }
endif
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(if $(filter none,$(TORCH)),--system-site-packages) $(VENV) || { rm -rf $(VENV); exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
ifneq ($(TORCH),none)
	@index="$(TORCH_INDEX)"; test -n "$$index" || ! $(SMALL_BUILD) || index=$(CPU_INDEX); \
	echo "installing $(TORCH) from $${index:-PyPI}"; \
	$(BIN)/python -m pip install --quiet $${index:+--index-url "$$index"} $(TORCH) || \
	{ test -z "$(TORCH_INDEX)" && test -n "$$index" && $(BIN)/python -m pip install --quiet $(TORCH); }
endif
	$(BIN)/python -m pip install --quiet --editable '.[dev,tensorboard]'
	@touch $@

# A cluster's login node has no GPU, but its jobs may have some: they need the large build.
SMALL_BUILD = { test "$$(uname)" = Linux && ! nvidia-smi -L && ! command -v sbatch && \
    $(BIN)/python -c 'import urllib.request as u; u.urlopen("$(CPU_INDEX)/torch/", timeout=5)'; } >/dev/null 2>&1

table1: setup ## train a small version of the paper's table in minutes, write its leaderboard
	@test -z "$(filter-out demo,$(PROFILE))" || { echo "PROFILE=$(PROFILE): not accepted any more: make quick, make paper" >&2; exit 2; }
	$(BIN)/kdbench run --grid experiments/demo.yaml

demo: table1 ## the same as make table1

quick: GRID := experiments/quick.yaml
paper: GRID := experiments/table1.yaml
quick: ## the same table on real images of 16x16 pixels: an hour on two cores; asks before it starts
paper: ## the paper's table on CIFAR-100, for GPUs: more than a hundred hours; asks before it starts
quick paper: confirmable setup
	@plan=$$($(BIN)/kdbench plan --grid $(GRID)) || exit 2; echo "$$plan" | sed -n '/ of training/p'
	@test "$(YES)" = 1 || { printf 'start $(GRID)? [y/N] '; read answer; test "$$answer" = y || { echo "not started"; exit 2; }; }
	$(BIN)/kdbench run --grid $(GRID)

confirmable:
	@test "$(YES)" = 1 || test -t 0 || { echo "this trains for an hour or more, and there is no terminal to ask: repeat make with YES=1 to start it" >&2; exit 2; }

test: setup ## run the tests
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not slurm and not browser and not gpu" $(TESTS)

# Tests of what computes with torch; nothing else depends on the kernels.
KERNELS := tests/test_*.py $(addprefix tests/,analyses cost data golden methods models registry training whole)

test-avx2: setup ## run the tests of networks and methods with the kernels of a processor without AVX-512
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(MAKE) --no-print-directory test TESTS="$(KERNELS)"

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
