# The same recipes serve people and CI. They need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test fuzz clean

# Complete the centre of the face in a photo of an astronaut, by NASA and in the public domain, with the bundled weights.
demo: $(VENV)/installed
	@mkdir -p demo
	@$(BIN)/python -m completion --mask center --output demo/completed.png --strip --overwrite docs/astronaut.jpg

# Lint, type-check and test: about 11 minutes on two idle cores.
test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# Read damaged files of every kind, each kind for this many seconds.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/installed-dev
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/test_fuzz.py

# The stamp files keep later runs from installing again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# Delete everything that the recipes above create.
clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
