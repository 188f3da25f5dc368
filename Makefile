# On a fresh machine `make demo` and `make test` do everything: they make a virtual environment in
# .venv, install what is needed into it, once, and run.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# So many tests run at once; with more, those with time limits need a machine to match.
JOBS   ?= 2
BENCHMARKS := $(filter-out __init__ common made_up ssh_hosts %_peer,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: help demo test test-netns simulate lint check format bench clean

help:
	@echo 'make demo    search for a network that reads digits, on this machine (under 2 minutes)'
	@echo 'make test    run the tests; with ARGS="-k curves" only some of them'
	@echo 'make simulate  SEEDS=3000 searches in a simulated world, in which much goes wrong'
	@echo 'make test-netns  as root: nodes in network namespaces, cut off in every way (4 minutes)'
	@echo 'make check   lint, types and tests'
	@echo 'make format  let ruff rewrite what `make check` would refuse'
	@echo 'make bench   measure the figures of benchmarks/'
	@echo 'make clean   remove .venv and everything else that was built; results stay'

demo: $(VENV)/.installed-demo
	$(BIN)/python tutorials/02_digits_torch.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

simulate: $(VENV)/.installed-test
	$(BIN)/python -m distsearch.testing.world $(or $(SEEDS),3000) $(ARGS)

test-netns: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/netns -m netns $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-test
	@for name in $(BENCHMARKS); do \
	    $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-%: setup.py pyproject.toml | $(BIN)/python
	@echo "Installing distsearch[$*] into $(VENV) (PyTorch is large: a minute or two, once)"
	$(PIP) -e '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "distsearch needs Python 3.10 or newer, but '$(PYTHON)' is not (or is missing)."; \
	    echo "Name another one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are"; \
	    echo "missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
