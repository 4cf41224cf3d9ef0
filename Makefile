# make fit    sets everything up and fits the hierarchical model to the synthetic panel
# make test   sets everything up and runs the tests
# make bench  times the hot paths; python -m src.bench has the benchmarks of docs/benchmarks.md
# make peers  makes the environments of the other samplers that src.bench measures
PYTHON := $(firstword $(foreach v,3.13 3.12,$(shell command -v python$(v) >/dev/null 2>&1 && python$(v) -c 'print("python$(v)")' 2>/dev/null)))
BIN := .venv/bin

.PHONY: install fit test lint bench peers clean

install: .venv/installed

fit: install
	$(BIN)/python -m src.fit model=hier

test: install
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/benchmarks

peers: install
	$(BIN)/python -m src.bench install=true 'parts=[]'

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "hierdid needs Python 3.12 or 3.13 on the path" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
