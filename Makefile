# The one door: each target prepares what it needs in .venv, and does so again only when the needs change.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# pip would compile all modules on one core, in about a minute. Those of other versions of Python cannot be compiled.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 -x /tests/ $(VENV)/lib || true
INSTALL := $(PIP) install --quiet --no-compile --disable-pip-version-check -c constraints.txt

# Compiled files are kept, whatever the environment says: each of the many processes of the tests imports the package.
unexport PYTHONDONTWRITEBYTECODE
# One process more than there are cores: many tests wait for a server or a browser.
WORKERS := $(shell $(PYTHON) -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
TEST := $(BIN)/python -m pytest --maxprocesses 4 --dist worksteal --numprocesses
# Shapes and types are checked at run time where arrays are computed, which doubles the time of a small training.
COMMA := ,
COMPUTED := $(shell sed -n '/^COMPUTED = (/,/^)/p' tests/conftest.py | grep -o '"[a-z_]*"' | tr -d '"' | sed 's/^/variseq./' | paste -s -d , -)
COMPUTED_TESTS = $(subst variseq.,tests/,$(subst $(COMMA), ,$(COMPUTED)))

.PHONY: help demo test quick test-lowest check docs bench competitors format setup hooks clean
# The folder with a folder for each data set of the benchmarks, and the CPU minutes that each competitor trains there.
DATA ?= data
MINUTES ?= 16
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/ready-to-use  ## the whole journey on real data, in minutes
	$(BIN)/variseq demo

test: $(VENV)/ready-to-develop  ## all tests and docstring examples; those of arrays with their shapes and types checked
	$(TEST) auto -m "computed and not slow" --jaxtyping-packages=$(COMPUTED),beartype.beartype $(COMPUTED_TESTS)
	$(TEST) $(WORKERS) -m "slow or not computed"

quick: $(VENV)/ready-to-develop  ## the fast tests, about a minute
	$(TEST) $(WORKERS) --hypothesis-profile quick -m "not slow and not browser and not redis and not spark and not network"

# Tests that drive a browser are left out: an old playwright does not know the browser that is installed.
test-lowest: $(LOWEST)/ready-to-test  ## the core tests with the lowest versions that pyproject.toml allows
	PYTHONPATH= $(LOWEST)/bin/python -m pytest tests/events tests/sequences tests/model tests/recommend tests/inference \
		tests/serving --ignore tests/serving/explore

check: $(VENV)/ready-to-develop  ## style, types, layers and the public API
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_public_api.py

docs: $(VENV)/ready-to-document  ## the documentation site in docs/_build/html; notebooks run, warnings are errors
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

bench: $(VENV)/ready-to-use  ## speed and quality of this package, in minutes (DATA=folder of data sets)
	$(BIN)/python -m benchmarks.speed kernels --out .competitors/bench.jsonl
	$(BIN)/python -m benchmarks.startup --out .competitors/bench.jsonl
	$(BIN)/python -m benchmarks.competitors.run ml-100k --data $(DATA) --cpu-minutes 10 --systems variseq \
		--out .competitors/bench.jsonl
	$(BIN)/python -m benchmarks.tables --print .competitors/bench.jsonl

competitors: $(VENV)/ready-to-use  ## compare with other libraries, in hours, resumable (DATA=folder; QUICK=1: half an hour)
ifeq ($(QUICK),1)
	$(BIN)/python -m benchmarks.competitors.run --data $(DATA) --quick --out .competitors/quick.jsonl
	$(BIN)/python -m benchmarks.tables --print .competitors/quick.jsonl
else
	$(BIN)/python -m benchmarks.competitors.run amazon-beauty --data $(DATA) --cpu-minutes $(MINUTES)
	$(BIN)/python -m benchmarks.competitors.run ml-100k --data $(DATA) --cpu-minutes 5
	$(BIN)/python -m benchmarks.competitors.run ml-1m --data $(DATA) --only-cost
	$(BIN)/python -m benchmarks.tables --print .competitors/competitors.jsonl
endif

format: $(VENV)/ready-to-develop  ## put files into the common form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/ready-to-develop  ## the environment for development

hooks: $(VENV)/ready-to-develop  ## checks before each commit
	$(INSTALL) pre-commit
	$(BIN)/pre-commit install

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and with its exact version: a looser wish may fetch a build for GPUs, several GB large.
$(VENV)/ready-to-use: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; \
	this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.11 ...")'
	@echo "Preparing $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools torch==2.13.0
	$(INSTALL) --no-build-isolation -e ".[train,report,serve]"
	@touch $@

# pyspark has no wheel on the index: it is built on another core meanwhile.
$(VENV)/ready-to-develop: $(VENV)/ready-to-use
	$(PIP) wheel --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -w $(VENV)/wheels pyspark & \
	$(INSTALL) --no-build-isolation -e ".[train,report,serve,index,redis,postgresql,lake,privacy,federate,test,check]" && \
	{ wait $$! && $(INSTALL) $(VENV)/wheels/*.whl || \
	echo "pyspark (450 MB) is not installed: tests of Spark are skipped"; }
	@rm -rf $(VENV)/wheels
	$(COMPILE)
	@touch $@

$(VENV)/ready-to-document: $(VENV)/ready-to-use
	$(INSTALL) --no-build-isolation -e ".[train,report,serve,docs]"
	@touch $@

# torch alone is not the lowest: an old one comes with GPU libraries of several GB, so it is the tested CPU build.
$(LOWEST)/ready-to-test: pyproject.toml constraints.txt .ci/lowest_requirements.py
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools torch==2.13.0
	$(LOWEST)/bin/python .ci/lowest_requirements.py pyproject.toml > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -r $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
