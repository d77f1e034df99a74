# Two commands for a newcomer, each with its own set-up: `make smoke` and `make test`.
# Needs Python 3.11 or later and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The torch build: extra pip arguments, such as `--index-url URL` of the CPU wheels (see README.md).
TORCH_ARGS ?=
SMOKE := smoke
WORKERS ?= auto
# The slow tests often wait: for containers, for Slurm, for a stage that is to be killed.
SLOW_WORKERS ?= 3
# Where `make verify-minkowski` keeps its build, by default outside of the tree.
MINKOWSKI_VENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bench/minkowski
GPU_PYTHON ?= $(BIN)/python
# Files of tests side by side; WORKERS=0 runs them one after the other, ARGS adds arguments of pytest or of a program.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=20
# The tests start hundreds of interpreters, each of which would compile the project again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup smoke test test-slow test-all lint docs dist perf openblas perf-minkowski verify verify-status verify-statistics verify-faults verify-cluster verify-values verify-power-cut verify-crash-points verify-strangers verify-learning verify-tasks verify-minkowski verify-minkowski-image verify-gpu verify-gpu-minkowski verify-gpu-stages verify-gpu-headline lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-22s %s\n", $$1, $$2 }'

setup: $(VENV)/.installed ## make the virtual environment and install from the locks

$(VENV)/.installed: requirements.lock requirements-torch.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) -r requirements-torch.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

smoke: setup ## run ours and scratch on embedded synthetic data, then the report (about 2 minutes)
	$(BIN)/bench run --method ours --task s3dis-sem --budget smoke --runs $(SMOKE)/runs
	$(BIN)/bench run --method scratch --task s3dis-sem --budget smoke --runs $(SMOKE)/runs
	$(BIN)/bench report --runs $(SMOKE)/runs --out $(SMOKE)/report

test: setup ## the fast tests: at most 6 minutes on two cores; no Docker, no browser
	$(PYTEST) $(ARGS)

test-slow: setup ## the other tests: long ones, and those that need Docker or a browser and are skipped without
	$(PYTEST) -n $(SLOW_WORKERS) -m "slow or docker or browser" $(ARGS)

test-all: setup ## all tests
	$(PYTEST) -m "" $(ARGS)

lint: setup ## ruff, mypy, codespell, and the phrases that docs/style.md bans
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z '*.md' '*.py' '*.yaml' '*.yml' '*.toml' '*.cff' Makefile .ci | xargs -0 $(BIN)/codespell
	$(BIN)/python -m tests.style

$(VENV)/.docs-installed: $(VENV)/.installed requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	touch $@

docs: $(VENV)/.docs-installed ## build the documentation site in site/; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(VENV)/.docs-installed ## build sdist and wheel in dist/ and check them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

perf: setup ## measure the sparse engine; writes perf.json
	$(BIN)/python -m tests.performance $(ARGS)

# Comes before `setup`, which downloads too.
openblas: ## whether OpenBLAS is there, which MinkowskiEngine is built with
	@test -e "$(MINKOWSKI_VENV)/made" || $(PYTHON) tests/verification/has_openblas.py

perf-minkowski: openblas setup ## the same beside MinkowskiEngine, which is built first
	MINKOWSKI_VENV="$(MINKOWSKI_VENV)" PYTHON="$(BIN)/python" tests/verification/minkowski.sh
	"$(MINKOWSKI_VENV)/bin/python" -m tests.performance $(ARGS)

verify: verify-minkowski verify-minkowski-image verify-gpu verify-gpu-minkowski verify-gpu-stages verify-gpu-headline verify-learning verify-tasks verify-faults verify-cluster verify-values verify-power-cut verify-crash-points verify-strangers verify-statistics
verify: ## every long verification; each writes a report to docs/verification/

verify-status: setup ## whether each verification report is fresh, and why not
	$(BIN)/python -m tests.verification.status

verify-statistics: setup ## coverage and error rates of the statistics, simulated
	$(BIN)/python -m tests.verification.statistics

verify-faults: setup ## kill runs at random moments and count what is left
	$(BIN)/python -m tests.verification.faults

# Needs ../shared/tools/start-slurm.sh; CLUSTER_ARGS="--stages 1000" measures more.
verify-cluster: setup ## stages on a Slurm of two nodes: overhead, packing, kills
	$(BIN)/python -m tests.verification.cluster $(CLUSTER_ARGS)

verify-values: setup ## damage values in every layout: a problem, an error or the same result (10 minutes)
	$(BIN)/python -m tests.verification.values

verify-strangers: setup ## 2,000 hostile stores, bundles and specs: no hang, no fault, nothing outside touched (20 minutes)
	$(BIN)/python -m tests.verification.strangers

verify-crash-points: setup ## kill publishing before each of its system calls, twice in a row (5 minutes)
	$(BIN)/python -m tests.verification.crash_points

# Needs root, for an ext4 file system on a loop device.
verify-power-cut: setup ## cut the power of a store's file system at random moments; needs root (10 minutes)
	$(BIN)/python -m tests.verification.power_cut

# An hour on two cores; resumes where it was interrupted.
verify-learning: setup ## every method learns what it trains for (an hour on two cores; resumes)
	$(BIN)/python -m tests.verification.learning

# 40 minutes on two cores; resumes where it was interrupted.
verify-tasks: setup ## every task can be learnt (40 minutes on two cores; resumes)
	$(BIN)/python -m tests.verification.tasks

# Builds MinkowskiEngine from its source package (10 minutes on two cores, once) in a virtual environment beside this one.
verify-minkowski: openblas setup ## the sparse engine against MinkowskiEngine 0.5.4
	MINKOWSKI_VENV="$(MINKOWSKI_VENV)" PYTHON="$(BIN)/python" tests/verification/minkowski.sh
	"$(MINKOWSKI_VENV)/bin/python" -m tests.verification.minkowski

# Needs a container engine; IMAGE_ARGS="--base debian:12 --torch-args '--index-url ...'" chooses another base and torch.
verify-minkowski-image: setup ## MinkowskiEngine in the base image; needs a container engine
	$(BIN)/python -m tests.verification.minkowski_image $(IMAGE_ARGS)

# Needs torch and numpy only: `make verify-gpu GPU_PYTHON=python3` on a machine that has them.
verify-gpu: ## the sparse engine on a GPU; needs torch and numpy only, of GPU_PYTHON
	$(GPU_PYTHON) -m tests.verification.gpu

# Both backends on the GPU; needs MinkowskiEngine built for CUDA.
verify-gpu-minkowski: ## both backends on a GPU
	$(GPU_PYTHON) -m tests.verification.gpu_minkowski

# Every stage on the GPU against the CPU; needs what `pip install .[dev]` installs, with a torch that finds the GPU.
verify-gpu-stages: ## every stage on a GPU against the CPU
	$(GPU_PYTHON) -m tests.verification.gpu_stages

# A few steps of every stage at full size on the GPU; needs the same, and 32 GB of GPU memory.
verify-gpu-headline: ## a few steps of every stage at full size on a GPU with 32 GB
	$(GPU_PYTHON) -m tests.verification.gpu_headline

lock: ## resolve the locks again
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "pip<26" pip-tools
	$(VENV)-lock/bin/pip-compile --quiet --extra dev --generate-hashes --unsafe-package torch --no-emit-index-url \
		--no-emit-find-links --no-emit-options --strip-extras --no-annotate --no-header \
		--constraint requirements-torch.lock --output-file $(VENV)-lock/requirements.lock pyproject.toml
	echo '# Everything but torch, with hashes; made by `make lock`. torch stands in requirements-torch.lock.' > requirements.lock
	sed '/^# WARNING/,$$d' $(VENV)-lock/requirements.lock >> requirements.lock
	$(VENV)-lock/bin/pip-compile --quiet --extra docs --extra release --generate-hashes --unsafe-package torch --no-emit-index-url \
		--no-emit-find-links --no-emit-options --strip-extras --no-annotate --no-header \
		--constraint requirements-torch.lock --constraint requirements.lock --output-file $(VENV)-lock/docs.lock pyproject.toml
	echo '# The tools of `make docs` and `make dist`, with hashes; made by `make lock`.' > requirements-docs.lock
	sed '/^#/d' $(VENV)-lock/docs.lock >> requirements-docs.lock
	echo '# What stages need besides torch, with hashes; made by `make lock`.' > docker/requirements.lock
	$(VENV)-lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-options \
		--strip-extras --no-annotate --no-header --constraint requirements.lock \
		--output-file $(VENV)-lock/stage.lock docker/requirements.in
	sed '/^# WARNING/,$$d' $(VENV)-lock/stage.lock >> docker/requirements.lock
	echo '# torch for CUDA with all that it needs, with hashes (x86-64, Python 3.12, as in the public base); made by `make lock`.' > docker/torch-cuda.lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --no-config --quiet --generate-hashes --python-platform x86_64-manylinux_2_28 \
		--python-version 3.12 --no-annotate --no-header -c docker/requirements.lock requirements-torch.lock >> docker/torch-cuda.lock
	rm -r $(VENV)-lock

clean: ## remove the virtual environment, the smoke run, the site and the distributions
	rm -rf $(VENV) $(SMOKE) site dist
