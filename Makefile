# `make` lists what it can do. Nothing but git, make and Python 3.11+ is needed.

PYTHON ?= python3
VENV   := .venv
# Processes start often here: what they import is compiled once.
unexport PYTHONDONTWRITEBYTECODE
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The tests of a file run in one process, which shares what they set up. Files start in the order of
# their names: the whole platform's, which take longest, are among the first. While some tests wait,
# others run: three processes keep two cores busy.
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder
BUF    := node_modules/.bin/buf

# One version for all who lint the contracts; the npm package carries the binary.
BUF_VERSION := 1.75.0

PROMTOOL_VERSION := 0.316.0

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-long test-unit test-integration test-e2e test-chart test-planted soak overload \
        simulate calls fuzz promtool image-test cluster-test upgrade-test check format proto bench \
        bench-scale bench-gpu speech-eval chart requirements clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

setup: $(READY) ## Make .venv with everything pinned, and generate the code from proto/

# The marker is newer than all that the environment is made from: a second run does nothing.
$(READY): pyproject.toml hatch_build.py requirements/dev.txt $(wildcard proto/steno/v1/*.proto)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Steno needs Python 3.11 or newer; try: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Start everything, transcribe a recording, as a file and then live, stop
	$(BIN)/steno demo

up: setup ## Start everything and keep it running (Ctrl-C stops it)
	$(BIN)/steno up

test: setup ## Run the tests, on real Postgres, NATS and S3
	$(PYTEST) tests --ignore tests/image --ignore tests/cluster -m "not long"

# Its tests of several languages need a model that knows some. Without network they say so.
test-long: setup ## Run the tests that take long: half an hour of speech, 2 GB, 10,000 watchers, planted bugs
	-$(BIN)/steno models pull base --from index --model-dir .models
	STENO_MODEL_DIR=$(CURDIR)/.models $(PYTEST) tests --ignore tests/image --ignore tests/cluster -m long

test-unit: setup ## Run the tests that need no server
	$(PYTEST) tests/unit

test-integration: setup ## Run the tests of each service on real servers
	$(PYTEST) tests/integration

test-e2e: setup ## Run the tests of the whole platform
	$(PYTEST) tests/e2e

test-chart: setup ## Run the tests of the Helm chart, without a cluster
	$(PYTEST) tests/chart

MINUTES ?= 60

soak: setup ## Harm the platform with the product's own settings, and check it (MINUTES=60; SEED=n)
	PYTHONPATH=tests $(BIN)/python -m faults --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
	  --uploaders 12 --speakers 3

overload: MINUTES = 5
overload: setup ## Ask for ten times what the machine can do, and see that it is borne (MINUTES=5)
	PYTHONPATH=tests $(BIN)/python -m faults.overload --minutes $(MINUTES)

test-planted: setup ## Plant bugs into the services, one by one: does the harness find each? (an hour)
	PYTHONPATH=tests $(BIN)/python -m faults.find_planted

SCHEDULES ?= 100000

# Without a seed it begins behind those that `make test` runs.
simulate: setup ## Run more schedules of jobs and sessions (SCHEDULES=100000: an hour; SEED=n; OF=jobs)
	PYTHONPATH=tests $(BIN)/python -m simulation $(if $(OF),--of $(OF)) --seed $(or $(SEED),100000) \
	  --schedules $(SCHEDULES)

CALLS ?= 100000

calls: setup ## Make 100,000 calls that hypothesis thinks of, other ones each time (CALLS=N)
	STENO_FUZZ_CALLS=$(CALLS) $(BIN)/pytest -s tests/integration/hostile/test_rpc_surface.py

$(VENV)/.fuzz-ready: $(READY) requirements/fuzz.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

SECONDS ?= 60

fuzz: $(VENV)/.fuzz-ready ## Have atheris look for bytes that make our parsers fail (SECONDS=60 for each)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(SECONDS) $(TARGET)

promtool: ## Build promtool, for the tests of alerts and dashboards (needs go; takes minutes, once)
	test -x .tools/promtool || GOBIN=$(CURDIR)/.tools \
	  go install github.com/prometheus/prometheus/cmd/promtool@v$(PROMTOOL_VERSION)

image-test: setup ## Build the image and run all services in containers (needs podman, debootstrap, root)
	$(BIN)/pytest tests/image

# Kubernetes is built once for a machine, which takes a quarter of an hour of two idle cores.
cluster-test: setup ## Use the chart on a real Kubernetes of two nodes (needs what image-test does, and go)
	PYTHONPATH=tests $(BIN)/python -m cluster $(if $(ONLY),-k $(ONLY))

# The version before this one: the last that is tagged, unless another is named.
OLD ?= $(shell git describe --tags --abbrev=0 HEAD^ 2>/dev/null)

upgrade-test: setup lint-proto ## Run an older version beside this one, OLD=<git ref>, while jobs go on
	OLD_VERSION=$(OLD) $(BIN)/pytest tests/upgrade

check: setup ## Format and lint: ruff, mypy --strict, import-linter, workflows, buf
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	@$(MAKE) --no-print-directory lint-proto

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: setup ## Generate services/steno/v1 again, and lint the contracts
	$(BIN)/python hatch_build.py
	@$(MAKE) --no-print-directory lint-proto

.PHONY: lint-proto
lint-proto:
	@if command -v npm >/dev/null; then \
	  test -x $(BUF) || npm install --silent --no-save --no-package-lock @bufbuild/buf@$(BUF_VERSION); \
	  echo "buf lint"; $(BUF) lint proto; \
	else \
	  echo "SKIPPED buf lint: there is no npm on this machine to fetch it with"; \
	fi

$(VENV)/.bench-ready: $(READY) requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

bench: $(VENV)/.bench-ready ## Measure Steno beside what it is made of (ROWS=1,3 some; ROUNDS=3)
	PYTHONPATH=tests $(BIN)/python -m bench $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-scale: setup ## Compare what calls cost beside 1,000 and beside 1,000,000 jobs (10 minutes, 4 GB)
	PYTHONPATH=tests $(BIN)/python -m bench.scale

bench-gpu: $(VENV)/.bench-ready ## Compare the engine with faster-whisper's batches on a GPU (8 minutes; OUT=file.json)
	$(BIN)/python -m bench.gpu $(if $(DEVICE),--device $(DEVICE)) $(if $(SHAPE),--shape $(SHAPE)) \
	  $(if $(OUT),--out $(OUT))

MODEL ?= tiny.en

speech-eval: $(VENV)/.bench-ready ## Compare what Steno and faster-whisper hear, in seven conditions (MODEL=base)
	PYTHONPATH=tests $(BIN)/python -m bench.speech_eval --model $(MODEL)

chart: setup ## Write the chart's schema and README anew from its values.yaml
	$(BIN)/python tools/chart.py

PIN := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

DEV_EXTRAS := dev local microphone transcription

# What images hold is the same as what is tested: dev.txt binds the others.
requirements: setup ## Pin the newest versions that pyproject.toml allows
	$(PIN) --upgrade $(DEV_EXTRAS:%=--extra %) --output-file requirements/dev.txt pyproject.toml
	@$(MAKE) --no-print-directory image-requirements

.PHONY: image-requirements
image-requirements:
	$(PIN) --constraint requirements/dev.txt --extra transcription \
	  --output-file requirements/services.txt pyproject.toml
	$(PIN) --constraint requirements/dev.txt --extra transcription --extra local \
	  --output-file requirements/local.txt pyproject.toml
	$(PIN) --constraint requirements/dev.txt --extra bench \
	  --output-file requirements/bench.txt pyproject.toml
	$(PIN) --constraint requirements/dev.txt --extra fuzz \
	  --output-file requirements/fuzz.txt pyproject.toml
	$(PIN) --constraint requirements/dev.txt --only-build-deps --build-deps-for wheel \
	  --output-file requirements/build.txt pyproject.toml

clean: ## Remove what make has made
	rm -rf $(VENV) .venv-* .image .models .tools node_modules dist services/steno/v1 .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
