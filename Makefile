# `make demo` and `make test` each do all that is needed on a fresh machine. PYTHON: 3.10 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
INSTALLED := $(VENV)/.installed

SITE = $(shell $(CURDIR)/$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# The tree as it is installed, for tools that read files: kernels/ and bench/ inside fastgen.
PACKAGE := build/package
PYTHON_SOURCES := fastgen kernels bench tests
CXX_SOURCES = $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')

.PHONY: setup demo test lint types contract format bench package gpu clean tree

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(CXX_SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch numpy setuptools scikit-build-core pybind11 cmake ninja
	.ci/triton $(BIN)/python
	$(PIP) --no-build-isolation --editable '.[dev,peers]'
	touch $@

demo: setup
	$(BIN)/fastgen demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

lint: setup
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: setup
	$(BIN)/ruff check --fix $(PYTHON_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/clang-format -i $(CXX_SOURCES)

types: setup tree
	$(BIN)/mypy

contract: setup tree
# Without the site's .pth files, of which the editable install's would lead past the linked tree.
	cd $(PACKAGE) && PYTHONPATH=$(SITE) $(CURDIR)/$(BIN)/python -S $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml

tree:
	rm -rf $(PACKAGE)/fastgen
	mkdir -p $(PACKAGE)/fastgen
	ln -s $(CURDIR)/fastgen/* $(CURDIR)/kernels $(CURDIR)/bench $(PACKAGE)/fastgen

bench: setup
	$(BIN)/fastgen bench --without-avx512 --json bench/results/cpu.json

package: setup
	.ci/package $(BIN)/python

gpu:
	.ci/gpu $(PYTHON)

clean:
	rm -rf build dist $(VENV)
