# make demo    the whole pipeline on a small synthetic data set
# make demo-scale    the same with four encoders: does a larger one help? (EfficientNet-Lite0, 1, 2 and the floor)
# make demo-benchmark    three made releases with two encoders: import, official lists, ranks over data sets, a bundle
# make demo-heads    five heads, features as they are and standardised: does the order of encoders depend on them?
# make demo-tasks    tools, clips and masks on drawn pictures, with two encoders
# make demo-live    a head that sees no later frame follows a video in the terminal, at the video's own speed
# make demo-loop    label five videos, pre-label ten, correct, import, train again: what predictions save a person
# make demo-pretrain    the three stages of pretraining on drawn videos, with tiny networks
# make test    the test suite, but for what takes more than a few seconds each: about eight minutes on two cores
# make test-slow    the rest of it: clusters, several processes, browsers, whole demos
# make test-faults    kills, two writers, signals and full disks; KILLS=30 make test-faults for more kills of each command
# make test-tools    the real BORIS and Label Studio, each in an environment of its own (2 GB), and VIA where VIA_HTML names its page
# make test-floor    the suite with the oldest supported torch and transformers, and with the newest Python, each in an environment of its own (14 GB)
# make bench    every benchmark, in about ten minutes, to comparison_results/benchmarks.md; make bench-full: more of each
# make lint    the linter
# make lock    requirements.lock: the pinned versions with the hashes of their files, for pip install --require-hashes
# make audit    known vulnerabilities of the locked versions (asks the registry's database)
# Everything runs in .venv, which the first of them makes. PYTHON=python3.12 make demo chooses another Python, INSTALLER=pip pip.

PYTHON ?= python3
KILLS ?= 3
NEWEST_PYTHON ?= $(firstword $(foreach name,python3.14 python3.13 python3.12 $(PYTHON),$(shell $(name) -c "print('$(name)')" 2>/dev/null)))
SUITE := -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore=tests/faults --ignore=tests/tools
# BORIS of today asks for Python 3.12 or newer; a name that is found may still be of none (pyenv)
BORIS_PYTHON ?= $(shell for name in python3.13 python3.12 $(PYTHON); do $$name -c "" 2>/dev/null && echo $$name && break; done)
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PY := $(CURDIR)/$(BIN)/python
INSTALLED := .venv/installed
PACKAGES := -r requirements.txt -c constraints.txt
# A third of pip's time, bytecode included; pip takes over where it fails. It knows no pip.conf: INSTALLER=pip make demo leaves it out.
INSTALLER ?= uv
UV_INSTALL = test $(INSTALLER) = uv && $(PY) -m pip install --quiet uv && $(PY) -m uv pip install --quiet --compile-bytecode --python .venv
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
UV := build/tools/locking/bin/uv

.PHONY: demo demo-scale demo-benchmark demo-heads demo-tasks demo-live demo-loop demo-pretrain test test-slow test-faults test-tools test-floor bench bench-full lint lock audit

$(INSTALLED): requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, found ' + sys.version if sys.version_info < (3, 11) else 0)"
	@echo "installing into .venv: 7 GB with PyTorch's CUDA libraries, one to four minutes"
	$(PYTHON) -m venv .venv
	$(UV_INSTALL) $(PACKAGES) || $(PY) -m pip install --quiet $(PACKAGES)
	$(PY) -m pip install --quiet --no-deps -e .
	$(PY) -c "import torch, torchvision"
	touch $(INSTALLED)

demo: $(INSTALLED)
	@PYTHON=$(PY) bash data/demo.sh

demo-scale: $(INSTALLED)
	@PYTHON=$(PY) ENCODERS="EfficientNet-Lite0 EfficientNet-Lite1 EfficientNet-Lite2 ColorHistogram" bash data/demo.sh

demo-benchmark: $(INSTALLED)
	PYTHON=$(PY) bash data/demo_benchmark.sh

demo-heads: $(INSTALLED)
	PYTHON=$(PY) bash data/demo_heads.sh

demo-tasks: $(INSTALLED)
	PYTHON=$(PY) bash data/demo_tasks.sh

demo-live: $(INSTALLED)
	PYTHON=$(PY) bash data/demo_live.sh

demo-loop: $(INSTALLED)
	PYTHON=$(PY) bash data/demo_loop.sh

demo-pretrain: $(INSTALLED)
	PYTHON=$(PY) bash pretrain/demo.sh

test: $(INSTALLED)
	$(PY) $(SUITE) -m "not slow"

test-slow: $(INSTALLED)
	$(PY) $(SUITE) -m slow

test-faults: $(INSTALLED)
	KILLS=$(KILLS) $(PY) -m pytest --numprocesses 2 --maxschedchunk 1 tests/faults

build/tools/boris/installed:
	$(BORIS_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet boris-behav-obs
	touch $@

build/tools/label-studio/installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet label-studio
	touch $@

# a tool that cannot be installed here is one whose test is skipped
test-tools: $(INSTALLED)
	-$(MAKE) build/tools/boris/installed
	-$(MAKE) build/tools/label-studio/installed
	$(PY) -m pytest tests/tools -rs

bench: $(INSTALLED)
	$(PY) -m tests.benchmarks.bench

bench-full: $(INSTALLED)
	$(PY) -m tests.benchmarks.bench --full

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# uv: with most versions left open pip is still resolving after ten minutes
build/floor/installed: requirements.txt constraints-floor.txt pyproject.toml | build/tools/locking/installed
	$(PYTHON) -m venv --clear $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python -r requirements.txt -c constraints-floor.txt
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps -e .
	touch $@

build/newest/installed: requirements.txt constraints.txt pyproject.toml | build/tools/locking/installed
	$(NEWEST_PYTHON) -m venv --clear $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python -r requirements.txt -c constraints.txt
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps -e .
	touch $@

# both are run, whatever the first says
test-floor: build/floor/installed build/newest/installed
	build/floor/bin/python -c "import sys, torch, transformers; print('Python', sys.version.split()[0], 'torch', torch.__version__, 'transformers', transformers.__version__)"
	build/newest/bin/python -c "import sys, torch, transformers; print('Python', sys.version.split()[0], 'torch', torch.__version__, 'transformers', transformers.__version__)"
	code=0; for name in floor newest; do build/$$name/bin/python $(SUITE) || code=1; done; exit $$code

build/tools/locking/installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet uv pip-audit
	touch $@

lock: build/tools/locking/installed
	$(UV) pip compile requirements.txt -c constraints.txt --generate-hashes --no-annotate --quiet \
		--custom-compile-command "make lock" --python-version 3.11 --python-platform x86_64-manylinux_2_28 -o requirements.lock

# --strict: a version that could not be asked about is no version without findings
audit: build/tools/locking/installed
	build/tools/locking/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock
