# The commands a person types. Everything is installed into .venv from the hash-locked requirements.
VENV := .venv
BIN := $(VENV)/bin
NAME ?=
HERE := $(shell grep -qF "$(CURDIR)/$(VENV)/" $(BIN)/pip 2>/dev/null && $(BIN)/python -c "" 2>/dev/null && echo yes)
PYTHON ?= $(if $(HERE),$(BIN)/python,python3)

.PHONY: help setup setup-test setup-peer demo test bench soak protos clean FORCE

help:
	@echo "Commands (with another interpreter: make PYTHON=python3.12 demo; only the first one needs it):"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.runtime  ## the environment alone
setup-test: $(VENV)/.test
setup-peer: $(VENV)/.peer

# The commands in an environment name its folder: one that was moved with the tree is made again.
ifneq ($(HERE),yes)
$(VENV)/.runtime $(VENV)/.test $(VENV)/.peer: FORCE
endif
$(VENV)/.runtime: requirements/runtime.txt pyproject.toml compose/setup.py
	@$(PYTHON) compose/setup.py runtime
$(VENV)/.test: $(VENV)/.runtime requirements/test.txt
	@$(PYTHON) compose/setup.py test
$(VENV)/.peer: $(VENV)/.test requirements/peer.txt
	@$(PYTHON) compose/setup.py peer

demo: setup  ## a platform and four banks train a scorecard together
	@$(BIN)/python -m compose.demo

test: setup-test  ## lint, types, walls, generated code and all tests
	@$(BIN)/python -m tests.check
	@$(BIN)/pytest

soak: setup-test  ## 10,000 random schedules of faults
	@$(BIN)/pytest -m soak tests/simulation

bench: setup-peer  ## measure against peers; NAME=exactness, jobs, rounds, secure-sum (default: all)
	@$(BIN)/python -m bench $(NAME)

protos: setup-test  ## generate the wire types again
	@$(BIN)/python -m protos.generate

clean:  ## remove what the other commands made
	rm -rf out $(VENV) build *.egg-info
