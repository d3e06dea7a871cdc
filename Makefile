# The same recipes serve people and CI. They need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Linters, types and tests run side by side, and the tests in this many processes.
WORKERS ?= 2
MAKEFLAGS += --jobs=2
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup

.PHONY: demo own page test check lint types all-tests quick-tests fuzz kill clean

# Complete the centre of the face in a photo of an astronaut, by NASA and in the public domain, with the bundled weights.
demo: $(VENV)/installed
	@mkdir -p demo
	@$(BIN)/python -m completion --mask center --output demo/completed.png --strip --overwrite docs/astronaut.jpg

# Fine-tune the bundled networks on a folder of photos, and complete a photo with the result, see docs/training.md.
# In float32, as most processors are slower in bfloat16.
PHOTOS ?= photos
PHOTO ?= docs/astronaut.jpg
KIMG ?= 6
own: $(VENV)/installed-train
	$(BIN)/python -m align $(PHOTOS) own/aligned
	$(BIN)/python -m dcgan encode faces-64 own/aligned --output own/run --kimg $(KIMG) --lr 1e-4 --lr-generator 0.25 --precision fp32
	$(BIN)/python -m dcgan export own/run own/faces.safetensors --overwrite
	$(BIN)/python -m completion --weights own/faces.safetensors --mask center --output own/completed.png --strip --overwrite $(PHOTO)

# Install the page, without torch (1 GB), and open it in the browser.
page: $(VENV)/installed-page
	@$(BIN)/python -m ui

# What CI runs.
test: lint types all-tests

# What a commit should pass: within a minute on two idle cores.
check: lint types quick-tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

all-tests: $(VENV)/installed-dev
	$(PYTEST)

quick-tests: $(VENV)/installed-dev
	$(PYTEST) -m "not slow"

# Read damaged files of every kind, each kind for this many seconds.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/installed-dev
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(PYTEST) tests/test_fuzz.py

# Kill batches, training and the page so many times, at random moments.
KILLS ?= 50
kill: $(VENV)/installed-dev
	KILLS=$(KILLS) $(PYTEST) tests/test_killed.py

# The stamp files keep later runs from installing again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-train: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]"
	@touch $@

$(VENV)/installed-page: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[page]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# Delete everything that the recipes above create, except own/, as its weights took time.
clean:
	rm -rf $(VENV) demo build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
