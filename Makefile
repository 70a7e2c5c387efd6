# `make test` on a fresh clone makes the environment and runs the tests. It needs Python >= 3.10 and nothing else.

PYTHON ?= python3
VENV ?= .venv
NODE ?= .node
OLDEST ?= .venv-oldest
BIN = $(VENV)/bin
PYTEST_ARGS ?=
DEMO_ARGS ?=
MINI ?= runs/mini-weights
MINI_ARGS ?=
BENCH_ARGS ?=
ABLATIONS_ARGS ?= --seeds 3
CXX_SOURCES = $(shell find eg3d_ops tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
NPM_PACKAGES = gltf-validator@2.0.0-dev.3.10 three@0.187 @playcanvas/splat-transform@2.7
SOURCES = eg3d_ops dreamportrait benchmarks datasets eval tools train.py

# Each process computes with one thread (tests/conftest.py): threads of several processes block each other.
PARALLEL = -n auto --maxprocesses 8 --dist worksteal

# Images of containers often set it. Each process would then compile anew what it imports: half of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test test-fast test-slow test-faults test-viewers test-gpu test-ops test-oldest lint format check-cuda bench demo mini-weights mini-styles mini-splats mini-head ablations notebook clean

test: $(VENV)/.installed  ## everything but the slow tests
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed  ## the inner loop: without tests that train, build packages or start processes
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not lengthy and not faults" $(PYTEST_ARGS)

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# Needs the command `ip` and the right to make network namespaces for two machines; otherwise it uses two addresses.
test-faults: $(VENV)/.installed  ## kills, hangs and starves trainings, and writes what that cost
	FAULTS_RESULTS=benchmarks/results/faults.json \
	$(BIN)/python -m pytest -m faults tests/faults $(PYTEST_ARGS)

# Without npm or Chromium, tests of them are skipped and say so.
test-viewers: $(VENV)/.installed $(NODE)/.installed  ## exported files in other programs: Khronos' validator, three.js, ...
	NODE_PATH=$(abspath $(NODE))/node_modules \
	$(BIN)/python -m pytest -m slow tests/export tests/viewer $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

# On a machine without make's environment: python3 tests/support/only_torch.py pytest -m gpu tests/ops ...
test-ops: $(VENV)/.installed  ## the ops and EG3D's networks without the packages of training, which are refused
	$(BIN)/python tests/support/only_torch.py pytest tests/ops tests/eg3d/test_generator_gpu.py $(PYTEST_ARGS)
	$(BIN)/python tests/support/only_torch.py benchmarks.ops --help > /dev/null

test-oldest: $(OLDEST)/.installed  ## with the oldest version of every dependency that we support: tests/oldest.txt
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo clang-format --dry-run
	@$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	$(BIN)/mypy $(SOURCES)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@echo clang-format -i
	@$(BIN)/clang-format -i $(CXX_SOURCES)

check-cuda: $(VENV)/.installed  ## compiles the CUDA sources; needs nvcc, no GPU
	$(BIN)/python tools/check_cuda.py

# BENCH_ARGS="--official PATH" adds the comparison with the official EG3D.
bench: $(VENV)/.installed  ## every benchmark, quickly, into benchmarks/results/bench.json
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Stop it at any time: the same command continues it. DEMO_ARGS="--set run.name=other" starts another one.
demo: $(VENV)/.installed  ## trains both stages on the miniature world: minutes on a CPU
	$(BIN)/python -m dreamportrait.mini.demo $(DEMO_ARGS)

# Stop it at any time: the same command continues it. The variables keep freed memory for reuse.
mini-weights: $(VENV)/.installed  ## trains the miniature world anew: hours on a CPU
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 \
	$(BIN)/python -m dreamportrait.mini.train all --work $(MINI)/work --out $(MINI)/weights $(MINI_ARGS)

# Stop it at any time: the same command continues it. It starts from the mini/diffusion and mini/eg3d of the package.
mini-styles: $(VENV)/.installed  ## trains the models of styled heads anew: hours on a CPU
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 \
	$(BIN)/python -m dreamportrait.mini.train styles --work $(MINI)/work --out $(MINI)/weights $(MINI_ARGS)

# Stop it at any time: the same command continues it.
mini-splats: $(VENV)/.installed  ## trains the corrections of splats for the shipped `mini`, in their place: 15 minutes
	$(BIN)/python -m dreamportrait.mini.splats --work runs/mini-splats \
	--out dreamportrait/mini/weights/splats --overwrite

mini-head: $(VENV)/.installed  ## builds the morphable head of the miniature world, in its place: a minute
	$(BIN)/python -m dreamportrait.mini.head --out dreamportrait/mini/weights/head --overwrite

# Stop it at any time: the same command continues it.
ablations: $(VENV)/.installed  ## trains every row of the paper's ablations and writes docs/ablations.md: hours on a CPU
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 \
	$(BIN)/python eval/ablations.py --world mini --split test $(ABLATIONS_ARGS)

notebook: $(VENV)/.installed  ## runs the notebook and stores it with its pictures
	$(BIN)/python tools/store_notebook.py

# torch is gigabytes: the environment is made once, and pip runs again only when the requirements change.
# Without --no-compile, pip would compile 18 000 modules in two minutes; a quarter of them is ever imported.
define install
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 14) else f"Python 3.10 to 3.13 needed, $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --no-compile --editable '.[dev]' $(1)
	touch $@
endef

$(VENV)/.installed: pyproject.toml setup.py
	$(call install,)

$(NODE)/.installed:
	mkdir -p $(@D)
	if command -v npm >/dev/null; then npm install --prefix $(@D) --no-audit --no-fund $(NPM_PACKAGES) && touch $@; fi

$(OLDEST)/.installed: pyproject.toml setup.py tests/oldest.txt
	$(call install,--requirement tests/oldest.txt)

clean:  ## everything made here except the environments
	rm -rf build dist *.egg-info eg3d_ops/lib .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
