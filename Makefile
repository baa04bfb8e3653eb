# make train   train the quickstart (scikit-learn's digits) and say where its pictures are
# make test    the tests          make lint    style and types          make wheel   dist/*.whl
# make slow, make slurm, make browser: the tests that take minutes (with the mutated configurations), a SLURM (slurm-wlm, munge), a headless Chromium
# make all-tests: test, slow and browser, in one go
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# In the order of the files: a process that has compiled a network cannot fork into ranks that train (torch's autograd).
WORKERS := -n 3
# Without bytecode each process compiles all modules, and each worker rewrites all assertions.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test slow slurm browser all-tests lint wheel clean

train: .venv/installed
	$(BIN)/lightning fit --config configs/vae/digits.yaml

test: .venv/installed
	$(PYTEST) $(WORKERS) $(ARGS)

slow: .venv/installed
	$(PYTEST) $(WORKERS) -m slow $(ARGS)

slurm: .venv/installed
	$(PYTEST) -m slurm $(ARGS)

browser: .venv/installed
	$(PYTEST) -m browser $(ARGS)

all-tests: .venv/installed
	$(PYTEST) $(WORKERS) -m 'not gpu and not download and not slurm' $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: .venv/installed
	$(BIN)/python -m build --wheel

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: lit_vae needs Python 3.11 or later; $(PYTHON) is older. Run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
