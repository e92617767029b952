# `make search` runs the main job on this machine; `make test` runs every test that needs no GPU.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: search test check gpu-test dashboard clean

search: $(VENV)/.installed
	$(BIN)/launch-search $(ARGS)

dashboard: $(VENV)/.installed
	$(BIN)/linearch dashboard $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

gpu-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	.ci/typecheck $(BIN)/python

# pip's own variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) decide where packages come from.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
