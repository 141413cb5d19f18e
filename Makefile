# Two commands, each with all of its own set-up: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= passive

KERNELS := setup.py $(wildcard src/melastic/native/*.h src/melastic/native/*.cpp)

.PHONY: demo test bench clean

demo: $(VENV)/.demo
	@sh examples/demo.sh $(BIN)

test: $(VENV)/.test
	@echo "[1/3] style"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "[2/3] types"
	@$(BIN)/mypy --no-error-summary
	@echo "[3/3] tests"
	@$(BIN)/python -m pytest -q

bench: $(VENV)/.bench
	@for script in benchmarks/bench_*.py; do echo "$$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

clean:
	rm -rf $(VENV) demo

$(VENV)/.python:
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt $(KERNELS)
	@echo "installing melastic (a few minutes on the first run)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt $(KERNELS)
	@echo "installing melastic and its test tools (a few minutes on the first run)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

$(VENV)/.bench: $(VENV)/.python pyproject.toml constraints.txt $(KERNELS)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@
