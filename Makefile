# Every target makes .venv on its first use and brings it up to date when pyproject.toml or
# constraints.txt change. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
# tests are many and small: a process per core, each with one thread, takes a third of the time
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
PYTEST = $(ONE_THREAD) $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCHMARKS := benchmarks/figures.py benchmarks/subset_numpy.py benchmarks/solvers.py \
	benchmarks/reductors.py benchmarks/methods.py benchmarks/soundness.py \
	benchmarks/soundness_norms.py benchmarks/soundness_systems.py \
	benchmarks/realised_coverage.py benchmarks/observed_bounds.py

.PHONY: help demo test test-slow lint docs bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED) ## keep 30 % of the bundled network's states, print the table, leave a picture in demo/
	$(BIN)/ssmred reduce zoo:fashion-mnist-s4d --states 0.3 --out demo --force

test: $(INSTALLED) ## run the fast tests (more options: make test FLAGS="-n 0 -k gramian")
	$(PYTEST) $(FLAGS)

test-slow: $(INSTALLED) ## run the tests marked slow
	$(PYTEST) -m slow $(FLAGS)

lint: $(INSTALLED) ## check style, types, import order and CITATION.cff
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/cffconvert --validate

docs: $(INSTALLED) ## run the code of README.md, docs/ and examples/, check their links
	$(BIN)/python -m pytest -m docs $(FLAGS)

bench: $(INSTALLED) ## measure the figures of README.md and docs/, write them there; soundness searches (hours)
	@set -e; for script in $(BENCHMARKS); do \
		echo "== $$script"; $(BIN)/python $$script; \
	done

clean: ## remove caches and what demo left; .venv stays
	rm -rf demo build dist .cache .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find ssmred tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
