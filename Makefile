# `make demo` and `make test` are the README's two commands; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: install demo ui ui-stop test lint check use clean

install: $(VENV)/.installed

# Bytecode is compiled once here: every step is a process that imports torch.
# uv where it can be had (seconds), pip otherwise (minutes). The lock names torch without a build, so that every machine takes its own.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv || true
	@if [ -x $(BIN)/uv ]; then \
	  UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -r requirements.lock && \
	  $(BIN)/uv pip install -q -p $(BIN)/python --no-deps -e . ; \
	else \
	  $(BIN)/python -m pip install -q -r requirements.lock && $(BIN)/python -m pip install -q --no-deps -e . ; \
	fi
	touch $@

demo: install
	stockpot run tiny

ui: install
	stockpot ui

ui-stop: install
	stockpot ui --stop

# Two at a time: most end-to-end tests wait for one process or the other.
test: install
	pytest -n 2 --dist worksteal

lint: install
	ruff check .
	ruff format --check .
	pyright
	lint-imports

check: lint
	pytest -n 2 --dist worksteal -m "not slow"

use: install
	stockpot use tiny

clean:
	rm -rf .stockpot out
