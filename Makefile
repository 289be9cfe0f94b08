# Two commands on a fresh clone: `make demo` and `make test`. Each checks what the machine must offer, makes .venv,
# installs the pinned requirements and repairs what must be repaired; the second time it starts at once.
#
#   make demo ACCEL=gpu            the same on one NVIDIA GPU, with jobs/configs/demo-gpu.yaml; not yet run on one
#   make demo ARGS="--seed=1"      settings for the job; with `make test`, arguments for pytest
#   make test PYTHON=python3.12    another interpreter

ACCEL  ?= cpu
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
ARGS   ?=
SPREAD := --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
DOORS  := tests/unit/test_doors.py::test_every_heavy_library_goes_through_its_door

DEMO_cpu := jobs/configs/demo.yaml
DEMO_gpu := jobs/configs/demo-gpu.yaml

BIN   := .venv/bin
KEY   := $(shell cat pyproject.toml constraints.txt avere_ray/environment.py | cksum | cut -d ' ' -f 1)
READY := .venv/.ready-$(ACCEL)-$(KEY)
OTHER := $(filter-out $(ACCEL),cpu gpu)

QUICK_STUDY := --run_dir=runs/miniature-quick --study.out=runs/miniature-quick/miniature --study.seeds=[0] \
	--study.learning_rates=[0.001] --study.betas=[0.1] --study.sft_weights=[] --study.doses=[] \
	--study.methods='["dpo","avem_dpo","avem_dpo_without_text_prior"]'

# Bytecode is kept of what is imported. Without it, every process would compile torch and transformers anew, seven
# seconds each; to compile all that is installed takes minutes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test faults lint unit reproduce tiny-base setup clean

help:  ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(READY)  ## the whole loop on synthetic clips, with a table before/after at the end
	@$(BIN)/avere-ray pipeline --config $(DEMO_$(ACCEL)) $(ARGS)

test: lint  ## lint, then every test but those of `make faults`
	@$(BIN)/python -m pytest $(SPREAD) -m "not faults" $(ARGS)

faults: $(READY)  ## jobs that lose processes, nodes and heads (not part of `make test`: a build server has no time for it)
	@$(BIN)/python -m pytest -m faults tests $(ARGS)

unit: $(READY)  ## the fast tests alone
	@$(BIN)/python -m pytest $(SPREAD) tests/unit $(ARGS)

lint: $(READY)  ## style, formatting, import floors and doors, types, cluster manifests
	@$(BIN)/mypy & types=$$!; code=0; \
	  $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && \
	  $(BIN)/python -m pytest -qq $(DOORS) && $(BIN)/python -m jobs.validate_manifests cluster || code=1; \
	  wait $$types || code=1; exit $$code

reproduce: $(READY)  ## compares preference-learning methods on the synthetic world (within an hour on 2 cores; QUICK=1: three, one seed)
	@$(BIN)/avere-ray reproduce --config jobs/configs/miniature.yaml $(if $(QUICK),$(QUICK_STUDY)) $(ARGS)

tiny-base: $(READY)  ## trains the tiny base model from nothing (under 20 minutes on 2 cores)
	@$(BIN)/python -m jobs.tiny_base $(ARGS)

setup: $(READY)  ## what demo and test do first

clean:  ## removes .venv and caches; runs/ stays
	@rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .grimp_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@case "$(ACCEL)" in cpu|gpu) ;; *) echo "ACCEL=$(ACCEL): allowed are cpu and gpu" >&2; exit 2;; esac
	@test -n "$(PYTHON)" || { echo "no Python found: install Python 3.11 or newer, or set PYTHON=/path/to/it" >&2; exit 1; }
	@$(PYTHON) -m avere_ray.environment check
	@if [ -e .venv/.accel-$(OTHER) ]; then echo "switching to ACCEL=$(ACCEL): making .venv anew"; rm -rf .venv; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@touch .venv/.accel-$(ACCEL)
	@echo "installing the pinned requirements into .venv (minutes the first time)"
	@$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[$(ACCEL),dev]' || { \
	  echo "The requirements could not be installed. If torch 2.13.0+cpu was not found: set PIP_EXTRA_INDEX_URL to" \
	       "PyTorch's index of CPU wheels and run again (see Set-up in README.md)." >&2; exit 1; }
	@$(BIN)/python -m avere_ray.environment repair
	@rm -f .venv/.ready-*
	@touch $@
