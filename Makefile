# make demo    sets up .venv, then trains, exports, proves, streams and measures on real smartwatch data
# make test    sets up .venv with the test extras, then runs the tests
# Both are safe to repeat: what is done is skipped.
#
#   PYTHON=python3.12         another interpreter (3.10 or newer) for the environment
#   PIP_ARGS="--index-url …"  passed to pip, for example to choose a CPU build of torch

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
BIN      := $(VENV)/bin
PIP      := $(BIN)/python -m pip --disable-pip-version-check
INSTALL  := $(PIP) install --quiet -c constraints.txt $(PIP_ARGS)
INPUTS   := pyproject.toml constraints.txt
# One thread a process: the models are small, and processes that share cores wait for each other's threads.
PYTEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo pretrained pretrained-digits test test-slow test-live test-witness test-arm live postgres sshd step-latency lint format clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -6

# A stamp of its own: an interpreter that was left by an interrupted set-up is made anew.
$(VENV)/.created:
	@echo "== creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edgeseq needs Python 3.10 or newer")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(INPUTS)
	@echo "== installing edgeseq with training and both runtimes into $(VENV) (torch is 200 MB and more; minutes)"
	@$(INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing the test extras"
	@$(INSTALL) -e '.[all,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/edgeseq demo har

# What edgeseq/pretrained holds: the demo's result with seed 0; and the same without the gyroscope, with the seed that
# has the best macro-F1 on the validation subject, of the three in benchmarks/results/watch.json.
pretrained: $(VENV)/.installed
	$(BIN)/edgeseq demo har --speed 0
	$(BIN)/edgeseq export demo/student --out edgeseq/pretrained/har_watch_fp32 --overwrite
	$(BIN)/edgeseq export demo/student-int8 --out edgeseq/pretrained/har_watch --overwrite
	$(BIN)/edgeseq train spar_watch_acc --model lmu --seed 0 --out runs/har_watch_acc
	$(BIN)/edgeseq quantize runs/har_watch_acc --seed 0 --out runs/har_watch_acc-int8
	$(BIN)/edgeseq export runs/har_watch_acc-int8 --out edgeseq/pretrained/har_watch_acc --overwrite

# The one for spoken digits; the recordings are not shipped: make pretrained-digits FSDD=PATH
pretrained-digits: $(VENV)/.installed
	$(BIN)/edgeseq train fsdd --data $(FSDD) --model gru --test jackson --validation lucas --set rounds=16 --set steps=60 \
	    --out runs/digits
	$(BIN)/edgeseq quantize runs/digits --method ptq --out runs/digits-int8
	$(BIN)/edgeseq export runs/digits-int8 --out edgeseq/pretrained/digits --overwrite

test: $(VENV)/.installed-dev
	@echo "== the fast tests"
	$(PYTEST) -n 2 -m "not slow and not witness and not arm and not live"

# A server for the tests of a search that several machines share, which are skipped without one. As root, on Debian.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null || \
	    (apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql)

# A server for the tests of the link to a board, which are skipped without one. As root, on Debian.
sshd:
	@test -x /usr/sbin/sshd || command -v sshd > /dev/null || \
	    (apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-client openssh-server rsync)

# A browser and a broker for the tests of the live page and its sources. As root, on Debian.
live:
	@command -v chromedriver > /dev/null && test -x /usr/sbin/mosquitto || \
	    (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver mosquitto)

test-live: $(VENV)/.installed-dev live
	@echo "== the live page in a real browser"
	$(PYTEST) -m live

test-slow: $(VENV)/.installed-dev
	@echo "== the slow tests: a wheel in an environment with the base dependencies, examples, long streams"
	$(PYTEST) -m slow

# litert-torch brings 90 packages and holds some of them back, so it lives in an environment of its own.
$(VENV)-witness/.installed: $(INPUTS)
	@echo "== creating $(VENV)-witness (over 2 GB; minutes)"
	@$(PYTHON) -m venv $(VENV)-witness
	@$(VENV)-witness/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_ARGS) \
	    -e '.[train,onnx,compress,witness,dev]'
	@touch $@

test-witness: $(VENV)-witness/.installed
	@echo "== our files against those of torch.onnx and litert-torch"
	OMP_NUM_THREADS=1 $(VENV)-witness/bin/python -m pytest -m witness

# What the boards would run, on ARM processors and whole machines that QEMU stands in for. Sets up what it needs: as root,
# on Debian, some packages; in .arm, 1.2 GB of root file systems, wheels and a disk, which are kept.
test-arm: $(VENV)/.installed-dev
	@echo "== the tests on emulated ARM machines"
	@$(BIN)/python tests/arm/stand_in.py .arm
	$(PYTEST) -n 2 --dist loadfile -m arm tests/arm

# ExecuTorch brings a torch of its own, so it lives in an environment of its own.
$(VENV)-executorch/.installed: constraints.txt
	@echo "== creating $(VENV)-executorch (1.5 GB; minutes)"
	@$(PYTHON) -m venv $(VENV)-executorch
	@$(VENV)-executorch/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_ARGS) \
	    torch executorch
	@touch $@

step-latency: $(VENV)/.installed-dev $(VENV)-executorch/.installed
	@echo "== a step in every engine beside torch, torch.compile and ExecuTorch; half an hour"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_latency.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-witness $(VENV)-executorch .arm build dist *.egg-info demo demo-quick
