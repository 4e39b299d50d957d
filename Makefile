# Every target sets up what it needs first.
SHELL := /bin/bash
VENV ?= .venv
# the first interpreter that is new enough; make PYTHON=... to choose another
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
DEMO := runs/demo/$(shell date +%Y-%m-%d_%H-%M-%S)

.DELETE_ON_ERROR:
.PHONY: help demo study pretraining setup dev test test-all test-recipes lint format docs bench gpu faults fuzz clean

help:
	@echo "make demo    train MaskCLR and its baselines on toy data, compare them (minutes)"
	@echo "make test    the quick tests"
	@echo "make test-all   also trainings, notebooks, README commands, the wheel"
	@echo "make test-recipes   every experiment= for an epoch on real data in ../shared/data, and its memory (half an hour)"
	@echo "make lint    ruff, mypy, import layers, spelling, wording"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make study   the demo's table with three seeds (three times as long)"
	@echo "make pretraining DATA=folder   what pre-training is worth on utd_mhad and gtu3d (two hours)"
	@echo "make bench   speed, as ratios measured side by side"
	@echo "make gpu     checks and figures of a GPU, in eight minutes; PART=smoke, run, memory, compile, bench"
	@echo "make fuzz    20,000 damaged files for readers and commands (many minutes)"
	@echo "make faults  kills commands at random moments and writes, and compares (twenty minutes)"
	@echo "make setup   only install into $(VENV)"
	@echo "make clean   remove $(VENV) and caches (runs/ and data/ stay)"

$(VENV)/.base: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed, none was found; type make PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (once, some minutes)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: python -m venv failed; on Debian and Ubuntu type: apt install python3-venv"; exit 1; }
	@# torch alone first, so that nothing else chooses its build
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

setup: $(VENV)/.base
dev: $(VENV)/.dev

demo: $(VENV)/.base
	@echo "== 1/5 supervised baseline: one pathway, cross-entropy"
	@$(PY) -m maskclr_pl.train experiment=demo loss=ce masking=none output_dir=$(DEMO)/supervised
	@echo "== 2/5 two pathways, random masking"
	@$(PY) -m maskclr_pl.train experiment=demo masking=random output_dir=$(DEMO)/random_masking
	@echo "== 3/5 MaskCLR: two pathways, attention-guided masking"
	@$(PY) -m maskclr_pl.train experiment=demo output_dir=$(DEMO)/maskclr
	@echo "== 4/5 perturbed test clips"
	@$(PY) -m maskclr_pl.evaluate -m draws=2 \
		ckpt_path=$(DEMO)/supervised,$(DEMO)/random_masking,$(DEMO)/maskclr
	@echo "== 5/5 side by side"
	@$(PY) -m maskclr_pl.report "runs=[$(DEMO)/supervised,$(DEMO)/random_masking,$(DEMO)/maskclr]" \
		output_dir=$(DEMO)/comparison
	@echo "Toy data and one seed: not a result about any benchmark."
	@echo "what was masked   $(DEMO)/maskclr/figures/masked_joints.png"
	@echo "run folders       $(DEMO)"
	@echo "next              $(PY) -m maskclr_pl.train seed=1"

STUDY := runs/study/$(shell date +%Y-%m-%d_%H-%M-%S)

study: $(VENV)/.base
	@for seed in 0 1 2; do \
		$(PY) -m maskclr_pl.train experiment=demo seed=$$seed loss=ce masking=none output_dir=$(STUDY)/supervised_$$seed && \
		$(PY) -m maskclr_pl.train experiment=demo seed=$$seed masking=random output_dir=$(STUDY)/random_$$seed && \
		$(PY) -m maskclr_pl.train experiment=demo seed=$$seed output_dir=$(STUDY)/maskclr_$$seed && \
		$(PY) -m maskclr_pl.evaluate -m draws=2 \
			ckpt_path=$(STUDY)/supervised_$$seed,$(STUDY)/random_$$seed,$(STUDY)/maskclr_$$seed || exit 1; \
	done
	@$(PY) -m maskclr_pl.report output_dir=$(STUDY)/comparison \
		"runs=[$(STUDY)/supervised_0,$(STUDY)/supervised_1,$(STUDY)/supervised_2,$(STUDY)/random_0,$(STUDY)/random_1,$(STUDY)/random_2,$(STUDY)/maskclr_0,$(STUDY)/maskclr_1,$(STUDY)/maskclr_2]" \
		"labels=[supervised,supervised,supervised,random,random,random,maskclr,maskclr,maskclr]"

EPOCHS := 320

pretraining: $(VENV)/.base
	@test -n "$(DATA)" || { echo "error: type make pretraining DATA=FOLDER, with utd_mhad/ and gtu3d/ in it"; exit 1; }
	@$(PY) -m benchmarks.pretraining "$(DATA)" --epochs $(EPOCHS)

# files in the order of their names: by default, long files with few tests would come last
PYTEST = $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.dev
	@$(PYTEST) tests

test-all: $(VENV)/.dev
	@$(PYTEST) -m "not recipes" tests

test-recipes: $(VENV)/.dev
	@$(PY) -m pytest -v -m recipes tests

PROSE := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs notebooks conf
lint: $(VENV)/.dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(VENV)/bin/codespell $(PROSE) src benchmarks Makefile
	@$(PY) -m tests.style.voice $(PROSE) src
	@echo "lint: clean"

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "docs: site/index.html"

format: $(VENV)/.dev
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

bench: $(VENV)/.dev
	@$(PY) -m benchmarks.augment
	@$(PY) -m benchmarks.transforms3d
	@$(PY) -m benchmarks.ntu_text
	@$(PY) -m benchmarks.convert
	@$(PY) -m benchmarks.store
	@$(PY) -m benchmarks.loader
	@for backbone in dstformer_lite transformer sttformer; do \
		$(PY) -m benchmarks.step $$backbone || exit 1; done
	@$(PY) -m benchmarks.step dstformer_lite --growth

# with the torch that is installed: a CUDA build, which constraints.txt does not choose
PART := all
gpu: $(VENV)/.dev
	@$(PY) -m benchmarks.gpu --part $(PART)

fuzz: $(VENV)/.dev
	@$(PY) -m tests.fuzz.readers 20000

faults: $(VENV)/.dev
	@$(PY) -m tests.faults.campaign

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
