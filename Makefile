# Start with `make smoke` or `make test`: both install what they need. Requires Python 3.11 or later.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The torch build: extra pip arguments, such as `--index-url URL` of the CPU wheels (see README.md).
TORCH_ARGS ?=
SMOKE := smoke
WORKERS ?= auto
# The slow tests often wait: for containers, for Slurm, for a stage to be killed.
SLOW_WORKERS ?= 3
# The folder for the build of `make verify-minkowski`, by default outside of the checkout.
MINKOWSKI_VENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bench/minkowski
GPU_PYTHON ?= $(BIN)/python
# Test files run in parallel; WORKERS=0 runs them one after the other. ARGS adds arguments for pytest or another program.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=20
# The tests start hundreds of interpreters; without bytecode, each would compile the project again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup smoke test test-slow test-all lint docs dist study-pages perf openblas perf-minkowski verify verify-status verify-statistics verify-faults verify-cluster verify-ray verify-values verify-power-cut verify-crash-points verify-strangers verify-learning verify-tasks verify-minkowski verify-minkowski-image verify-gpu verify-gpu-minkowski verify-gpu-peers verify-gpu-stages verify-gpu-headline lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-22s %s\n", $$1, $$2 }'

setup: $(VENV)/.installed ## create the virtual environment and install from the locks

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

test: setup ## run the fast tests: at most 6 minutes on two cores, without Docker or browser
	$(PYTEST) $(ARGS)

test-slow: setup ## run the other tests: long ones, and those for Docker or a browser, which are skipped without
	$(PYTEST) -n $(SLOW_WORKERS) -m "slow or docker or browser" $(ARGS)

# The fast tests alone cover 90 %.
test-all: setup ## run all tests, and measure coverage; under 90 % fails
	$(PYTEST) -m "" --cov --cov-report=term --cov-fail-under=90 $(ARGS)

lint: setup ## run ruff, mypy, codespell, and the check for phrases that docs/style.md bans
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

study-pages: setup ## rewrite the tables and pictures of docs/study from its bundles
	$(BIN)/python docs/study/pages.py

perf: setup ## measure the sparse engine; writes perf.json
	$(BIN)/python -m tests.performance $(ARGS)

# Runs before `setup`, so that nothing is downloaded if OpenBLAS is missing.
openblas: ## check for OpenBLAS, which building MinkowskiEngine needs
	@test -e "$(MINKOWSKI_VENV)/made" || $(PYTHON) tests/verification/has_openblas.py

perf-minkowski: openblas setup ## build MinkowskiEngine, and measure the sparse engine against it
	MINKOWSKI_VENV="$(MINKOWSKI_VENV)" PYTHON="$(BIN)/python" tests/verification/minkowski.sh
	"$(MINKOWSKI_VENV)/bin/python" -m tests.performance $(ARGS)

verify: verify-minkowski verify-minkowski-image verify-gpu verify-gpu-minkowski verify-gpu-peers verify-gpu-stages verify-gpu-headline verify-learning verify-tasks verify-faults verify-cluster verify-ray verify-values verify-power-cut verify-crash-points verify-strangers verify-statistics
verify: ## run every long verification; each writes a report to docs/verification/

verify-status: setup ## show whether each verification report is fresh, and if not, why
	$(BIN)/python -m tests.verification.status

verify-statistics: setup ## simulate coverage and error rates of the statistics
	$(BIN)/python -m tests.verification.statistics

verify-faults: setup ## kill runs at random moments, and check that nothing is lost
	$(BIN)/python -m tests.verification.faults

# Needs a Slurm of two nodes (docs/ci.md); CLUSTER_ARGS="--stages 1000" measures more stages.
verify-cluster: setup ## run stages on a Slurm of two nodes: overhead, packing, kills
	$(BIN)/python -m tests.verification.cluster $(CLUSTER_ARGS)

verify-ray: setup ## run stages on a Ray cluster of two nodes: overhead, kills (needs requirements-cluster.lock)
	$(BIN)/python -m tests.verification.cluster_ray $(CLUSTER_ARGS)

verify-values: setup ## damage values in every layout: must give a problem, an error or the same result (10 minutes)
	$(BIN)/python -m tests.verification.values

verify-strangers: setup ## read 2,000 hostile stores, bundles and specs: no hang, no crash, no access outside (20 minutes)
	$(BIN)/python -m tests.verification.strangers

verify-crash-points: setup ## kill publishing before each of its system calls, twice in a row (5 minutes)
	$(BIN)/python -m tests.verification.crash_points

# Needs root, for an ext4 file system on a loop device.
verify-power-cut: setup ## cut the power of a store's file system at random moments; needs root (10 minutes)
	$(BIN)/python -m tests.verification.power_cut

# An hour on two cores; resumes where it was interrupted.
verify-learning: setup ## check that every method learns its objective (an hour on two cores; resumes)
	$(BIN)/python -m tests.verification.learning

# 40 minutes on two cores; resumes where it was interrupted.
verify-tasks: setup ## check that every task can be learnt (40 minutes on two cores; resumes)
	$(BIN)/python -m tests.verification.tasks

# Builds MinkowskiEngine from its source package, once (10 minutes on two cores), in a separate virtual environment.
verify-minkowski: openblas setup ## compare the sparse engine with MinkowskiEngine 0.5.4
	MINKOWSKI_VENV="$(MINKOWSKI_VENV)" PYTHON="$(BIN)/python" tests/verification/minkowski.sh
	"$(MINKOWSKI_VENV)/bin/python" -m tests.verification.minkowski

# Needs a container engine; IMAGE_ARGS="--base debian:12 --torch-args '--index-url ...'" chooses another base and torch.
verify-minkowski-image: setup ## check MinkowskiEngine in the base image; needs a container engine
	$(BIN)/python -m tests.verification.minkowski_image $(IMAGE_ARGS)

# Needs only torch and numpy: `make verify-gpu GPU_PYTHON=python3` on a machine that has them.
verify-gpu: ## check the sparse engine on a GPU; GPU_PYTHON needs only torch and numpy
	$(GPU_PYTHON) -m tests.verification.gpu

# Needs MinkowskiEngine built for CUDA.
verify-gpu-minkowski: ## compare the sparse engine with MinkowskiEngine on a GPU
	$(GPU_PYTHON) -m tests.verification.gpu_minkowski

# Needs also the libraries: PEERS="spconv-cu126=FOLDER ...", folders of `pip install --target`.
verify-gpu-peers: ## measure the sparse engine beside other libraries on a GPU (5 minutes)
	$(GPU_PYTHON) -m tests.verification.gpu_peers $(PEERS)

# Needs the packages of `pip install .[dev]`, with a torch that finds the GPU.
verify-gpu-stages: ## compare every stage on a GPU with the CPU
	$(GPU_PYTHON) -m tests.verification.gpu_stages

# Needs the same packages, and 32 GB of GPU memory.
verify-gpu-headline: ## run a few steps of every stage at full size on a GPU with 32 GB
	$(GPU_PYTHON) -m tests.verification.gpu_headline

# Locked versions stay; LOCK_ARGS=--upgrade resolves to the latest.
lock: ## resolve the lock files again; LOCK_ARGS=--upgrade also upgrades
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "pip<26" pip-tools
	cp requirements.lock $(VENV)-lock/requirements.lock
	cp requirements-docs.lock $(VENV)-lock/docs.lock
	cp requirements-cluster.lock $(VENV)-lock/cluster.lock
	cp docker/requirements.lock $(VENV)-lock/stage.lock
	$(VENV)-lock/bin/pip-compile $(LOCK_ARGS) --quiet --extra dev --generate-hashes --unsafe-package torch --no-emit-index-url \
		--no-emit-find-links --no-emit-options --strip-extras --no-annotate --no-header \
		--constraint requirements-torch.lock --output-file $(VENV)-lock/requirements.lock pyproject.toml
	echo '# All dependencies except torch, with hashes; made by `make lock`. torch is in requirements-torch.lock.' > requirements.lock
	sed '/^# WARNING/,$$d' $(VENV)-lock/requirements.lock >> requirements.lock
	$(VENV)-lock/bin/pip-compile $(LOCK_ARGS) --quiet --extra docs --extra release --generate-hashes --unsafe-package torch --no-emit-index-url \
		--no-emit-find-links --no-emit-options --strip-extras --no-annotate --no-header \
		--constraint requirements-torch.lock --constraint requirements.lock --output-file $(VENV)-lock/docs.lock pyproject.toml
	echo '# The tools of `make docs` and `make dist`, with hashes; made by `make lock`.' > requirements-docs.lock
	sed '/^#/d' $(VENV)-lock/docs.lock >> requirements-docs.lock
	$(VENV)-lock/bin/pip-compile $(LOCK_ARGS) --quiet --extra cluster-dev --generate-hashes --unsafe-package torch --no-emit-index-url \
		--no-emit-find-links --no-emit-options --strip-extras --no-annotate --no-header \
		--constraint requirements-torch.lock --constraint requirements.lock --output-file $(VENV)-lock/cluster.lock pyproject.toml
	echo '# Ray, s3fs and moto for their tests, with hashes; made by `make lock`.' > requirements-cluster.lock
	sed '/^#/d' $(VENV)-lock/cluster.lock >> requirements-cluster.lock
	echo '# What stages need besides torch, with hashes; made by `make lock`.' > docker/requirements.lock
	$(VENV)-lock/bin/pip-compile $(LOCK_ARGS) --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-options \
		--strip-extras --no-annotate --no-header --constraint requirements.lock \
		--output-file $(VENV)-lock/stage.lock docker/requirements.in
	sed '/^# WARNING/,$$d' $(VENV)-lock/stage.lock >> docker/requirements.lock
	echo '# torch for CUDA with all that it needs, with hashes (x86-64, Python 3.12, as in the public base); made by `make lock`.' > docker/torch-cuda.lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile $(LOCK_ARGS) --no-config --quiet --generate-hashes --python-platform x86_64-manylinux_2_28 \
		--python-version 3.12 --no-annotate --no-header -c docker/requirements.lock requirements-torch.lock >> docker/torch-cuda.lock
	rm -r $(VENV)-lock

clean: ## remove the virtual environment, the smoke run, the site and the distributions
	rm -rf $(VENV) $(SMOKE) site dist
