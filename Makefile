# make train   train the quickstart (scikit-learn's digits) and say where its pictures are
# make test    the tests          make lint    style and types          make wheel   dist/*.whl
# make slow, make slurm, make browser: the tests that take minutes (with the mutated configurations), a SLURM (slurm-wlm, munge), a headless Chromium
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test slow slurm browser lint wheel clean

train: .venv/installed
	$(BIN)/lightning fit --config configs/vae/digits.yaml

test: .venv/installed
	$(BIN)/python -m pytest -n 3 $(ARGS)

slow: .venv/installed
	$(BIN)/python -m pytest -m slow -n 3 $(ARGS)

slurm: .venv/installed
	$(BIN)/python -m pytest -m slurm $(ARGS)

browser: .venv/installed
	$(BIN)/python -m pytest -m browser $(ARGS)

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
