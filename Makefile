# make demo | test | check | bench | install. Everything lands in .venv.

PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo
# Real masks for tests, where they are at hand; tests that need them skip with a reason otherwise.
ifneq ($(wildcard ../shared/data),)
export QUADCODEC_TEST_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test bounds check bench clean

help:
	@echo 'make demo    generated street scenes (or DATA=path/to/cityscapes): convert, statistics, pictures'
	@echo 'make test    the whole test suite'
	@echo 'make check   what CI runs: ruff, mypy, import-linter, tests, kernels with bounds checks'
	@echo 'make bench   speed and size, as ratios against named rivals'

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24' -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,bench,dev]'
	@touch $@

demo: install
	@OUT=$(OUT) DATA=$(DATA) BIN=$(BIN) bash demo.sh

test: install
	$(BIN)/python -m pytest

# numba reuses a cached unchecked kernel unless the cache is another one.
bounds: install
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/.venv/numba-bounds $(BIN)/python -m pytest -q \
		tests/test_pyramid.py tests/test_quadtree.py tests/test_record.py tests/test_corrupt.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test bounds

bench: install
	$(BIN)/python -m benchmarks.codec

clean:
	rm -rf .venv demo build *.egg-info
