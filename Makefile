# Everything happens in .venv; `make quickstart` and `make test` set it up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
SITE := site

.PHONY: quickstart reference gpu test fast lint docs clean

quickstart: .venv/installed
	$(BIN)/harness sweep sweeps/quickstart.yaml
	$(BIN)/harness report --sweep quickstart --out reports/quickstart

# Every laptop sweep, report and bench, on a machine that does nothing else: hours. Then the tables of results/README.md.
reference: .venv/installed
	$(BIN)/python -m benchmarks.reference
	$(BIN)/python -m benchmarks.reference --readme

# What a GPU makes of the samplers, in 8 minutes: docs/gpu.md. Needs no installation, only what it imports.
gpu:
	$(PYTHON) -m benchmarks.gpu --out $(OUT) $(GPU)

test: lint
	CI=$${CI:-1} $(BIN)/python -m pytest -q -m "not ray and not nightly"
	CI=$${CI:-1} $(BIN)/python -m pytest -q -m "ray and not nightly" tests/harness

# Thousands of damaged stores and odd sweep files, laws over many samples, two dozen kills of a sweep on a cluster; and the
# slow tests with the shapes of all tensors checked, which at each push they are in the other tests only.
nightly: .venv/installed
	$(BIN)/python -m pytest -q -n 0 -s -m nightly
	CHECK_SHAPES=1 $(BIN)/python -m pytest -q -m "slow and not ray and not nightly"
	CHAOS_KILLS=24 CHAOS_SEED=$$(date +%j) $(BIN)/python -m pytest -q -n 0 -s tests/harness/test_chaos.py

# In a minute: without slow tests, and without a check of every tensor's shape, which `make test` has.
fast: .venv/installed
	$(BIN)/python -m pytest -q --jaxtyping-packages= -m "not ray and not slow and not nightly"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pages, API reference, notebook and search, as a site; a link that leads nowhere is an error. Nothing is downloaded.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -d $(abspath $(SITE))
	@echo "The documentation is $(SITE)/index.html"

# torch first and alone: its pinned version decides which of the larger packages are pulled in after it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[samples,dev]'
	touch $@

clean:
	rm -rf .venv runs reports site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
