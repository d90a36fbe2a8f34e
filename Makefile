# make demo | test | check | bench | install. Everything lands in .venv.

PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo
DEMO_DATA = $(or $(DATA),$(OUT)/cityscapes)
STEPS ?= 160
# Real masks for tests, where they are at hand; tests that need them skip with a reason otherwise.
ifneq ($(wildcard ../shared/data),)
export QUADCODEC_TEST_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.PHONY: help install scenes demo test bounds other-zarr check bench clean

help:
	@echo 'make demo    generated street scenes (or DATA=path/to/cityscapes): convert, statistics, train, pictures'
	@echo 'make test    the whole test suite'
	@echo 'make check   what CI runs: ruff, mypy, import-linter, tests, kernels with bounds checks, the other zarr'
	@echo 'make bench   size and speed beside other codecs, on the demo scenes (or DATA=...): a table, and OUT/bench.png'

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24' -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,bench,dev]'
	@touch $@

scenes: install
ifeq ($(DATA),)
	test -d $(OUT)/cityscapes || $(BIN)/python -m quadcodec.scenes $(OUT)/cityscapes --count 40 --size 512x1024 --seed 0
endif

# The demo's own scenes are made once; the store and the run are made anew each time.
demo: scenes
	$(BIN)/quadcodec convert $(DEMO_DATA) $(OUT)/labels.zarr --overwrite
	$(BIN)/quadcodec stats $(OUT)/labels.zarr
	$(BIN)/quadcodec view $(OUT)/labels.zarr 0 -o $(OUT)/levels.png --overwrite
	$(BIN)/quadcodec view $(OUT)/labels.zarr 0 --as tree -o $(OUT)/tree.png --overwrite
	$(BIN)/quadcodec report $(OUT)/labels.zarr -o $(OUT)/report.html --overwrite
	$(BIN)/qgn-train --labels $(OUT)/labels.zarr --work-dir $(OUT)/run --overwrite image_size=192x384 steps=$(STEPS)
	$(BIN)/qgn-eval --checkpoint $(OUT)/run/last.safetensors --labels $(OUT)/labels.zarr
	$(BIN)/qgn-predict $(DEMO_DATA)/leftImg8bit/val --checkpoint $(OUT)/run/last.safetensors --out $(OUT)/predictions --overwrite
	@echo
	@echo 'The store of label trees:       $(OUT)/labels.zarr'
	@echo 'Its first mask, as a tree:      $(OUT)/levels.png, $(OUT)/tree.png'
	@echo 'A report on it, for a browser:  $(OUT)/report.html'
	@echo 'The model and its log:          $(OUT)/run/last.safetensors, $(OUT)/run/log.jsonl'
	@echo 'Predicted labels and trees:     $(OUT)/predictions/'

test: install
	$(BIN)/python -m pytest

# numba reuses a cached unchecked kernel unless the cache is another one.
bounds: install
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/.venv/numba-bounds $(BIN)/python -m pytest -q \
		tests/test_pyramid.py tests/test_quadtree.py tests/test_record.py tests/test_corrupt.py tests/test_small.py tests/test_fuzz.py

# Python 3.11 gets zarr 3.1.6 at most, 3.12 and later get 3.4: a second Python tests the other one, where there is one.
OTHER := .venv/other
other-zarr: install
	@other=$$(.ci/other-python $(BIN)/python) || { echo 'other zarr: skipped, no Python on the other side of 3.12 here'; exit 0; }; \
	set -ex; \
	test -x $(OTHER)/bin/python || "$$other" -m venv $(OTHER); \
	$(OTHER)/bin/python -m pip install --quiet -c constraints.txt -e . pytest xarray; \
	$(OTHER)/bin/python -c 'import zarr; print("zarr", zarr.__version__)'; \
	$(OTHER)/bin/python -m pytest -q -p no:cacheprovider tests/test_store.py tests/test_zarr.py tests/test_pyramid_arrays.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test bounds other-zarr

bench: scenes
	$(BIN)/quadcodec bench $(DEMO_DATA) --plot $(OUT)/bench.png --overwrite

clean:
	rm -rf .venv demo build *.egg-info
