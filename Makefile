# Every target makes what it needs first; `make` alone lists them. Options:
#
#   PYTHON=/path/to/python3.13    the interpreter to make .venv with, instead of looking for one
#   PYTEST_ARGS="-k render -x"    for pytest
#   BACKEND=gluoncv               for `make smoke`: whose cells (torchvision)
#   LOCK_ARGS=--upgrade           for `make locks`: newer versions, not only what the .in files ask for
#   FUZZ_ARGS="--seconds 5 records"   for `make fuzz`: how long for each reader (60), and which

.DEFAULT_GOAL := help
.PHONY: help setup prepare smoke test lint bench fuzz locks clean

PYTHON ?=
PYTEST_ARGS ?=
BACKEND ?= torchvision
LOCK_ARGS ?=
FUZZ_ARGS ?=
export PYTHON
# The tests start Python some thousand times: without its cache each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# What interpreters that are older than the harness's read.
OLD := models/*.py models/fake models/gluoncv tools/bootstrap.py
LOCK := --quiet --generate-hashes --no-emit-index-url --custom-compile-command "make locks" $(LOCK_ARGS)
COMPILE := $(BIN)/uv pip compile --universal $(LOCK)

# Any Python 3.6 or newer can run it; it looks for one that is new enough itself.
define bootstrap
@for python in "$$PYTHON" python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then \
		"$$python" tools/bootstrap.py $(1); exit; \
	fi; \
done; \
echo "zoo-bench: no Python 3 was found; install Python 3.10 or newer, or run make with PYTHON=/path/to/python3.13" >&2; \
exit 1
endef

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:[^#]*## /|/' | awk -F'|' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: prepare ## make .venv with zoo-bench and everything it is developed with
	$(call bootstrap,--hint)

prepare:
	$(call bootstrap)

smoke: prepare ## train, time and evaluate all eight cells on the CPU, a few minutes; print the document
	@status=0; $(BIN)/zoo-bench run --matrix matrix.yaml --profile smoke --select 'backend=$(BACKEND)' || status=$$?; \
	if [ $$status -le 1 ]; then $(BIN)/zoo-bench render --profile smoke --backend $(BACKEND) || status=$$?; fi; \
	exit $$status
	$(call bootstrap,--hint)

test: lint ## lint, and every test: the harness's, and the worker's in its own environment
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)
	$(BIN)/python tools/worker_tests.py $(PYTEST_ARGS)
	$(call bootstrap,--hint)

lint: prepare ## ruff, mypy, and that what old interpreters read keeps to Python 3.6
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations --target=3.6- $(OLD)

bench: prepare ## the benchmarks of zoo-bench itself
	@for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

fuzz: prepare ## a minute for each reader of files that others wrote: fresh hostile ones, until one breaks it
	$(BIN)/python tools/fuzz.py $(FUZZ_ARGS)

locks: prepare ## resolve every lock again
	$(COMPILE) --python-version 3.10 setup.py --extra dev requirements/dev.in --output-file requirements/dev.txt
	$(COMPILE) --python-version 3.10 requirements/uv.in --output-file requirements/uv.txt
	$(COMPILE) --python-version 3.7 requirements/worker-tests.in --output-file requirements/worker-tests.txt
	$(BIN)/python tools/locks.py $(LOCK)

clean: ## remove what was made here, environments included; results stay
	rm -rf .venv .zoo-bench build dist bench/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bench models tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
