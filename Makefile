# The front door. `make` alone lists what can be asked for; every target that needs
# an environment builds it first. What the project does is done by `dscpp`: the
# targets only call it, so that an interrupted one goes on when it is called again.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What a user may set goes on as typed, through the environment: neither make nor the
# shell finds a $ or a quote of its own in it.
VARIABLES := DATA PRESET LOSSES SEEDS REPLICATE SPLIT_SEED SPLIT SPLIT_BY FOLDS EPOCHS JOBS
VARIABLES += RESULTS STUDY STATUS PROFILE PHANTOM BACKEND GPU PYTHON ONLY UPGRADE
SET := $(foreach name,$(VARIABLES),$(if $(filter undefined,$(origin $(name))),,$(name)))
$(foreach name,$(SET),$(eval override $(name) := $$(value $(name))))
export $(SET)

BACKENDS := tensorflow torch jax
BACKEND ?= tensorflow
ifeq ($(filter $(BACKEND),$(BACKENDS)),)
$(error BACKEND: expected one of: $(BACKENDS); received "$(BACKEND)")
endif
ifneq ($(GPU),)
ifeq ($(BACKEND),torch)
$(error GPU=1 is prepared for BACKEND=tensorflow and jax: see requirements/README.md)
endif
endif

# Each backend has an environment of its own, and with GPU=1 another.
FLAVOUR := $(BACKEND)$(if $(GPU),-gpu)
FLAVOUR := $(FLAVOUR:tensorflow-gpu=gpu)
VENV := .venv$(patsubst %,-%,$(filter-out tensorflow,$(FLAVOUR)))
LOCK := requirements/$(FLAVOUR).txt

# The first Python of the right age; looked for only when an environment is built.
FOUND = $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)

# Nothing from outside leaks in: without bytecode, each process would compile all that it
# imports, TensorFlow for ten seconds. Keras reads the backend from its variable.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE := 1
export KERAS_BACKEND := $(BACKEND)

# $(call flag,VARIABLE,option): `--option="$VARIABLE"` when the variable is set.
flag = $(if $($(1)), --$(2)="$$$(1)")
RUNNER = $(call flag,JOBS,jobs)$(call flag,RESULTS,results)$(call flag,PROFILE,slurm)$(if $(STATUS), --status)
FLAGS = $(call flag,PRESET,preset)$(call flag,LOSSES,losses)$(call flag,SEEDS,seeds)
FLAGS += $(call flag,EPOCHS,epochs)$(RUNNER)$(call flag,REPLICATE,replicate)
FLAGS += $(call flag,FOLDS,folds)
FLAGS += $(call flag,SPLIT_SEED,split-seed)$(call flag,SPLIT_BY,split-by)$(if $(SPLIT), --split $$SPLIT)
DATA_FLAGS = $(call flag,DATA,data)$(if $(PHANTOM), --phantom)

.PHONY: help install demo study reproduce-drive reproduce-bus2017 reproduce-dsb2018
.PHONY: reproduce-isic2018 reproduce-cvc-clinicdb reproduce-hippocampus kits19
.PHONY: tables figures report docs site
.PHONY: errata test test-all lint test-backends test-backend test-ports test-torch test-slurm
.PHONY: recipes bench
.PHONY: bench-losses bench-training bench-step bench-coverage bench-verdicts bench-evaluation lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-23s %s\n", $$1, $$2}' Makefile
	@echo "Variables: DATA PRESET LOSSES SEEDS REPLICATE SPLIT_SEED SPLIT SPLIT_BY FOLDS EPOCHS"
	@echo "JOBS RESULTS STUDY STATUS PROFILE (of SLURM) PHANTOM BACKEND (tensorflow, torch or"
	@echo "jax), GPU=1. Example:"
	@echo '  make reproduce-drive DATA=data/DRIVE PRESET=reduced LOSSES="DSC,DSC++"'

install: $(VENV)/.ready ## build the environment from its lock

$(VENV)/.ready: $(LOCK) requirements/install.sh setup.cfg pyproject.toml
	@requirements/install.sh "$(VENV)" "$(LOCK)" "$${PYTHON:-$(FOUND)}"

demo: $(VENV)/.ready ## train CE, DSC and DSC++ on phantoms and print the table (minutes)
	@$(VENV)/bin/dscpp demo$(FLAGS)

reproduce-drive: $(VENV)/.ready ## train on DRIVE (DATA=folder) and write its tables (hours)
	@$(VENV)/bin/dscpp reproduce --dataset drive$(DATA_FLAGS)$(FLAGS)

reproduce-bus2017: $(VENV)/.ready ## the same on BUS2017, dataset B (DATA=folder or zip)
	@$(VENV)/bin/dscpp reproduce --dataset bus2017$(DATA_FLAGS)$(FLAGS)

reproduce-dsb2018: $(VENV)/.ready ## the same on 2018DSB (DATA=folder or zip)
	@$(VENV)/bin/dscpp reproduce --dataset dsb2018$(DATA_FLAGS)$(FLAGS)

reproduce-isic2018: $(VENV)/.ready ## the same on ISIC2018, task 1 (DATA=folder)
	@$(VENV)/bin/dscpp reproduce --dataset isic2018$(DATA_FLAGS)$(FLAGS)

reproduce-cvc-clinicdb: $(VENV)/.ready ## the same on CVC-ClinicDB (SPLIT_BY=sequence: by video)
	@$(VENV)/bin/dscpp reproduce --dataset cvc-clinicdb$(DATA_FLAGS)$(FLAGS)

kits19: $(VENV)/.ready ## the same on KiTS19 in 3D (DATA=folder; PHANTOM=1 simulates)
	@$(VENV)/bin/dscpp reproduce --dataset kits19$(DATA_FLAGS)$(FLAGS)

reproduce-hippocampus: $(VENV)/.ready ## the same on small MR volumes in 3D (not in the paper)
	@$(VENV)/bin/dscpp reproduce --dataset hippocampus$(DATA_FLAGS)$(FLAGS)

study: $(VENV)/.ready ## make the runs of a list at low priority (DATA=folder of all; STATUS=1)
	@$(VENV)/bin/dscpp study$(if $(STUDY), "$$STUDY")$(call flag,DATA,data)$(RUNNER)

tables: $(VENV)/.ready ## write every table anew from the committed runs
	@$(VENV)/bin/dscpp tables --readme README.md docs/results.md docs/practice.md results/README.md
	@$(VENV)/bin/python -m errata --source run --write >/dev/null

figures: $(VENV)/.ready ## draw every figure anew; those with images where DATA is
	@$(VENV)/bin/dscpp figures$(call flag,DATA,data)

report: $(VENV)/.ready ## write report.html: all results on one page, with images where DATA is
	@$(VENV)/bin/dscpp report$(call flag,DATA,data)$(call flag,RESULTS,results)

docs: $(VENV)/.ready ## draw the plots of docs/losses.md anew
	@$(VENV)/bin/python docs/plot_losses.py

site: .venv-site/.ready ## build the documentation site into .work/site
	@# Not --quiet: strict counts only the warnings that are shown.
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build
	@echo "Read it with search: python3 -m http.server --directory .work/site"

errata: $(VENV)/.ready ## measure what each errata entry does (DATA=folder of DRIVE, kits19)
	@nice $(VENV)/bin/python -m errata --write$(call flag,DATA,data)

# A file's tests share what they have trained: a process takes whole files, in the order
# of tests/conftest.py. A process that crashes ends the run: replaced, it would hang.
PROCESSES ?= auto
PYTEST = bin/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 4
PYTEST += --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# $(call with,MARKERS): the files that have one of them; the others are not imported.
with = $$(grep -lE 'mark\.($(1))\b' tests/test_*.py)

test: lint ## style, types, import rules and the quick tests (minutes)
	@$(VENV)/$(PYTEST) -m "not slow"

# Some tests wait for SLURM, for a signal, for a process: one more uses the processor.
test-all: PROCESSES := $$(($$(getconf _NPROCESSORS_ONLN) + 1))
test-all: lint ## the same with the slow tests: all that continuous integration runs
	@$(VENV)/$(PYTEST)

lint: $(VENV)/.ready ## style, types and import rules alone
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --config setup.cfg

# A backend that is missing fails here: importing Keras does, and conftest.py turns
# a skip for a missing backend into a failure when DSCPP_REQUIRE_BACKEND is set.
test-backends: ## the tests that depend on the backend, on all three (ONLY=...), and the recipes
	@failed=; for backend in $${ONLY:-$(BACKENDS)}; do \
		echo "== $$backend"; \
		$(MAKE) --no-print-directory test-backend BACKEND=$$backend GPU= \
			|| failed="$$failed $$backend"; \
	done; \
	echo "== recipes"; \
	$(MAKE) --no-print-directory recipes || failed="$$failed recipes"; \
	if [[ -n $$failed ]]; then echo "Failed:$$failed" >&2; exit 1; fi

test-backend: $(VENV)/.ready
	@DSCPP_REQUIRE_BACKEND=$(BACKEND) $(VENV)/$(PYTEST) -m backend $(call with,backend)

# Keras, MONAI and nnU-Net together, in an environment of their own.
recipes: .venv-peers/.ready ## the recipes, with the libraries that they are for
	@KERAS_BACKEND=torch DSCPP_REQUIRE_PEERS=1 .venv-peers/$(PYTEST) -m peers

test-ports: .venv-peers/.ready ## the PyTorch port: its losses, MONAI, nnU-Net, its wheel
	@KERAS_BACKEND=torch DSCPP_REQUIRE_PEERS=1 .venv-peers/$(PYTEST) -m ports

# The lock of the peers holds that of PyTorch: one environment for all three.
test-torch: .venv-peers/.ready ## all that needs PyTorch: Keras on it, the recipes, the port
	@KERAS_BACKEND=torch DSCPP_REQUIRE_BACKEND=torch DSCPP_REQUIRE_PEERS=1 \
		.venv-peers/$(PYTEST) -m "backend or peers or ports" \
		$(call with,backend|peers|ports)

test-slurm: $(VENV)/.ready ## runs as jobs of a real SLURM on this machine (5 minutes; as root)
	@for name in munged slurmctld slurmd; do \
		[[ $$(id -u) == 0 ]] && command -v $$name >/dev/null || { \
			echo "test-slurm: expected root and $$name: apt-get install slurm-wlm munge" >&2; \
			exit 1; \
		}; \
	done
	@DSCPP_REQUIRE_SLURM=1 $(VENV)/bin/python -m pytest -m slurm

.venv-peers/.ready: requirements/peers.txt requirements/peers-sdist.txt
.venv-peers/.ready: requirements/install.sh setup.cfg pyproject.toml
	@requirements/install.sh .venv-peers requirements/peers.txt "$${PYTHON:-$(FOUND)}"

.venv-site/.ready: requirements/site.txt requirements/install.sh setup.cfg pyproject.toml
	@requirements/install.sh .venv-site requirements/site.txt "$${PYTHON:-$(FOUND)}"

# Each environment adds its own rows to benchmarks/results.csv; the page is made of all.
# GPU=1 is not for PyTorch's part.
FOR_BACKEND = BACKEND=$$backend GPU=$$([[ $$backend == torch ]] || echo "$${GPU:-}")

bench: $(VENV)/.ready bench-losses ## measure speed and memory beside the peers (an hour)
	@$(VENV)/bin/python -m benchmarks.samples
	@for backend in $(BACKENDS); do \
		$(MAKE) --no-print-directory bench-training $(FOR_BACKEND); \
	done
	@$(MAKE) --no-print-directory bench-evaluation
	@$(VENV)/bin/python -m benchmarks.page

# Of JAX the steps alone: on a CPU each takes three times as long as TensorFlow's.
bench-training: $(VENV)/.ready ## time the steps and epochs of a training on one BACKEND
	@$(VENV)/bin/python -m benchmarks.step
ifneq ($(BACKEND),jax)
	@$(VENV)/bin/python -m benchmarks.epoch
endif

bench-losses: .venv-peers/.ready ## time the losses in a training step and against MONAI's
	@for backend in $(BACKENDS); do \
		$(MAKE) --no-print-directory bench-step $(FOR_BACKEND); \
	done
	@KERAS_BACKEND=torch .venv-peers/bin/python -m benchmarks.losses peers
	@KERAS_BACKEND=torch PYTHONPATH=ports/torch .venv-peers/bin/python -m benchmarks.losses port

bench-step: $(VENV)/.ready
	@$(VENV)/bin/python -m benchmarks.losses step

bench-verdicts: $(VENV)/.ready ## how often the rules of the verdicts err (3 minutes)
	@nice $(VENV)/bin/python -m benchmarks.verdicts

bench-coverage: $(VENV)/.ready ## how often the 95 % intervals hold the true mean (20 minutes)
	@nice $(VENV)/bin/python -m benchmarks.coverage

bench-evaluation: $(VENV)/.ready ## time and memory of volumes, beside the notebooks' way (8 GB)
	@$(VENV)/bin/python -m benchmarks.evaluation

lock: ## choose versions anew and write the locks (UPGRADE=1: the newest)
	@requirements/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## remove caches and .work; environments, data and results stay (dscpp clean: more)
	@rm -rf .work build ./*.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find benchmarks conformance data_io errata losses pipelines ports recipes tests \
		-name __pycache__ -prune -exec rm -rf {} +
