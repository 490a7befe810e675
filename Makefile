# Two commands do everything: `make run` and `make test`. Only Python 3.11 or newer with venv is needed.

PORT ?= 8080
PACKAGES ?= packages
ARGS ?=

# The first interpreter on PATH that is new enough; `make PYTHON=/path/to/python3.13 run` overrides.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11 python,\
  $(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(p))))
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run test test-unit test-long bench lint format clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	@exec $(BIN)/pypiserver-ng run --port $(PORT) $(ARGS) $(PACKAGES)

test: $(VENV)/.installed-test
	@$(BIN)/python -m tests.tools.provision
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest $(TOGETHER) $(ARGS)

# Two at a time: most tests wait for a server or a client. The tests of one file share what they start.
TOGETHER = -n 2 --dist loadfile

# What people run while they work: under a minute; without real clients, restarts, containers and failing disks.
SLOW = tests/clients tests/faults tests/test_shadow_rule.py tests/test_cli.py tests/test_commands.py tests/test_docker.py \
	tests/mirror tests/test_fetch.py tests/test_update.py tests/test_upstream_check.py \
	tests/property/test_answers_from_memory.py
test-unit: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -q $(TOGETHER) $(SLOW:%=--ignore %) $(ARGS)

# Hundreds of kills and power cuts: about an hour.
test-long: $(VENV)/.installed-test
	@TEST_LONG=1 $(BIN)/python -m pytest -s tests/faults $(ARGS)

# The table of docs/performance.md, measured on this machine; `make bench ARGS="pages uploads"` measures these groups.
bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.installed-test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name one: make PYTHON=/path/to/python3 run" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot create $(VENV): install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV); this takes about half a minute" >&2
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	@echo "installing the test tools into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --group test
	@touch $@

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache build dist
