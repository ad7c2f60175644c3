# Every target does its own set-up.
#   make PYTHON=python3.12 VENV=/elsewhere/env enumerate     uses another Python, another place
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# Whose networks the tests take apart: the builds for that torch.
OTHERS ?= torchvision==0.28.0 timm==1.0.31
MAX_LEN ?= 6
CHANNELS ?= 64
DEVICE ?= cpu
# Processes that the tests run in, of a thread each: more of them would wait for each other's.
TEST_JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help enumerate test lint docs snapshots format bench-enumerate bench-groups bench-energy bench-stages bench-entropy bench-kernels kernels-aot bench-blocks bench-models bench-page long-words reproduction coverage report results test-gpu bench-gpu test-page test-ray test-spark test-store faults clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

enumerate: $(VENV)/.core  ## list the design space: funnel and best blocks (MAX_LEN=6 CHANNELS=64)
	$(BIN)/ifspace enumerate --max-len $(MAX_LEN) --channels $(CHANNELS)

test: lint  ## everything that must pass: ruff, mypy, import contracts, pytest with the examples
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist worksteal

test-gpu: $(VENV)/.test  ## the tests of the kernels on a CUDA device, compiled
	IFSPACE_TEST_DEVICE=cuda $(BIN)/python -m pytest tests/kernels

bench-gpu: $(VENV)/.test  ## on a CUDA device, in ten minutes: the tests of the kernels, then times
	$(BIN)/python -m benchmarks.gpu

test-page: $(VENV)/.browser  ## the tests of the report's page in a headless Chromium
	$(BIN)/python -m pytest tests/report/test_page_browser.py tests/report/test_page_opened.py

test-ray: $(VENV)/ray/.installed  ## the search on a node of Ray, in an environment of its own
	$(VENV)/ray/bin/python -m pytest tests/enumerate/test_engines.py -k ray

test-spark: $(VENV)/spark/.installed  ## the search on Spark, which needs Java, in one of its own
	@command -v java || { apt-get update && apt-get install --yes default-jre-headless; } || \
		echo "no Java to be had: the test says that it is skipped"
	$(VENV)/spark/bin/python -m pytest tests/enumerate/test_engines.py -k spark -rs

test-store: $(VENV)/object-store-test/.installed  ## runs in a bucket of an S3 server, in one of its own
	$(VENV)/object-store-test/bin/python -m pytest tests/enumerate/test_object_store.py

lint: $(VENV)/.test  ## ruff, mypy and the import contracts only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.test  ## write anew what the documentation shows of the commands
	$(BIN)/python docs/build.py

snapshots: $(VENV)/.test  ## write the texts that tests compare anew; read the diff
	$(BIN)/python -m pytest --snapshot-update

format: $(VENV)/.test  ## put the files into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-enumerate: $(VENV)/.plots  ## time the enumeration by width and length, into results/
	$(BIN)/python -m benchmarks.enumerate

bench-groups: $(VENV)/.plots  ## time the group counts beside other searches, into results/
	$(BIN)/python -m benchmarks.groups

bench-energy: $(VENV)/.plots  ## time layout energy: exact program, CP-SAT, brute force
	$(BIN)/python -m benchmarks.energy

bench-stages: $(VENV)/.plots  ## time stage layouts, and compare them with the organizer
	$(BIN)/python -m benchmarks.stages

bench-entropy: $(VENV)/.plots  ## layouts of the most entropy, their bound over time, into results/
	$(BIN)/python -m benchmarks.entropy

bench-kernels: $(VENV)/.test  ## time rolling pointwise kernels beside their rivals (DEVICE=cpu)
	$(BIN)/python -m ifspace.bench.kernels --device $(DEVICE)

kernels-aot: $(VENV)/.test  ## registers and shared memory of every Triton configuration
	$(BIN)/python -m benchmarks.kernels_aot

bench-blocks: $(VENV)/.test  ## time the best blocks beside named ones (DEVICE=cpu)
	$(BIN)/ifspace bench results/catalogue-64.parquet --device $(DEVICE)

bench-models: $(VENV)/.test  ## time the commands that look at real networks, into results/
	$(BIN)/python -m benchmarks.commands --models
	$(BIN)/python -m benchmarks.peak_memory

bench-page: $(VENV)/.browser  ## time the report's page of the whole catalogue in a Chromium
	$(BIN)/python -m benchmarks.page

faults: $(VENV)/.test  ## thousands of wrong arguments and damaged files, into results/; goes on
	mkdir -p $(VENV)/faults
	$(BIN)/python -m benchmarks.faults --journal $(VENV)/faults/runs.jsonl
	$(BIN)/python -m benchmarks.killed_runs

long-words: $(VENV)/.test  ## the search of blocks of up to 12 layers, into results/; goes on
	$(BIN)/python -m benchmarks.long_words $(VENV)/long-words

reproduction: $(VENV)/.plots  ## write what the papers print beside what comes out
	$(BIN)/python -m experiments.reproduction
	$(BIN)/python -m experiments.fog_funnel
	$(BIN)/python -m experiments.compact_audit

coverage: $(VENV)/.test  ## which networks of timm and torchvision pass each step: hours, goes on
	$(BIN)/python -m experiments.coverage

report: $(VENV)/.report  ## tables of results/README.md, the figures, and results/page.html
	$(BIN)/ifspace report results --html results/page.html --readme results/README.md
	$(BIN)/python -m ifspace.bench.record 'figures/*' -- report results --figures results/figures

results: $(VENV)/.plots  ## write results/ anew: catalogue, benchmarks, study
	$(BIN)/python -m ifspace.bench.record catalogue-64.parquet -- enumerate --max-len 6 --channels 64
	$(BIN)/python -m ifspace.bench.record front-64.parquet -- enumerate --front --max-len 6 --channels 64
	$(BIN)/python -m ifspace.bench.record best-64.md -- best results/catalogue-64.parquet --layers 4
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.enumerate
	$(BIN)/python -m benchmarks.enumerate --networks
	$(BIN)/python -m benchmarks.enumerate --front
	$(BIN)/python -m benchmarks.enumerate --copies
	$(BIN)/python -m benchmarks.enumerate --estimates
	$(BIN)/python -m benchmarks.groups
	$(BIN)/python -m experiments.groups_study
	$(BIN)/python -m benchmarks.energy
	$(BIN)/python -m benchmarks.stages
	$(BIN)/python -m benchmarks.entropy
	$(MAKE) reproduction
	$(MAKE) bench-kernels kernels-aot bench-models bench-blocks
	$(BIN)/python -m ifspace.bench.record --module experiments.training train-check.md
	$(BIN)/python -m experiments.training.tournament $(VENV)/tournament
	$(MAKE) report

clean:  ## remove the environment and all caches
	test ! -e $(VENV) || test -f $(VENV)/pyvenv.cfg
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file says which set is installed; a changed pyproject.toml makes all of them stale.
$(VENV)/.python:
	@echo "making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: pyproject.toml | $(VENV)/.python
	@echo "installing the core"
	$(PIP) --editable .
	@touch $@

$(VENV)/.plots: pyproject.toml | $(VENV)/.python
	@echo "installing the core and what the figures and benchmarks need"
	$(PIP) --editable '.[plots,solver]' 'psutil>=6'
	@touch $@ $(VENV)/.core

$(VENV)/.report: pyproject.toml | $(VENV)/.python
	@echo "installing the core and what reports need"
	$(PIP) --editable '.[report,solver]'
	@touch $@ $(VENV)/.core $(VENV)/.plots

# Debian's Chromium, where there is none and it can be had; else the tests say why they are skipped.
$(VENV)/.browser: $(VENV)/.test
	$(PIP) --editable '.[browser]'
	@command -v chromium || command -v chromium-browser || \
		{ apt-get update && apt-get install --yes chromium; } || echo "no chromium to be had"
	@touch $@

# Of one engine or kind of store, without torch and ortools: ray and ortools ask for different
# versions of protobuf, and each of them brings very many packages.
$(VENV)/%/.installed: pyproject.toml | $(VENV)/.python
	@echo "making $(VENV)/$* and installing the core, [$*] and what its tests need"
	$(BIN)/python -m venv $(VENV)/$*
	$(VENV)/$*/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[$*]' \
		'hypothesis>=6.140' 'pytest>=9'
	@touch $@

# torch first and by exact version, so that nothing else chooses one: those of others come without
# what they ask for, which is among what the tests need.
$(VENV)/.test: pyproject.toml | $(VENV)/.python
	@echo "installing $(TORCH), then the core and what the tests need"
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps $(OTHERS)
	@touch $@ $(VENV)/.core $(VENV)/.plots $(VENV)/.report
