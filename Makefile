# The two commands of the README, on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install neural demo test coverage check format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# torch by its exact version first: that takes a CPU wheel where there is one. Then what needs it.
neural: $(VENV)/.neural

$(VENV)/.neural: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,neural,llm,enrich]"
	touch $@

demo: install
	$(BIN)/fivefold demo --out runs/demo

# One thread for each of the two processes: with two each, tiny networks take three times as long.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadgroup --durations 15

test: neural
	$(TEST)

# Not part of `test`: tracing makes the tests take 1.6 to 1.9 times as long.
coverage: neural
	$(TEST) --cov --cov-report term

check: neural
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .import_linter_cache .coverage
