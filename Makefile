# Each target works on a machine with Python >= 3.11, make and a compiler: it makes .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
VERSION := 0.1.0

.PHONY: help install test demo bench soak images e2e e2e-kserve lint format crds e2e-local clean

help:            ## show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## make .venv with fairlead and all that its tests need

test: install    ## unit and integration tests
	$(BIN)/pytest

e2e-local: install  ## end-to-end scenarios on the embedded cluster (needs kubectl)
	$(BIN)/pytest e2e --cluster=local

demo: install    ## handwritten digits: served, rolled out as a canary, promoted, rolled back; then a pipeline on Ray Serve that loses a replica
	$(BIN)/python -m demo.run

e2e: install images  ## the same scenarios on kind (needs docker, kind, kubectl, helm)
	$(BIN)/pytest e2e --cluster=kind

PYTHON_KSERVE = $(BIN)/python

e2e-kserve: install images  ## KServe's own end-to-end tests on kind: KSERVE=checkout/test/e2e PYTHON_KSERVE=python-with-kserve[test] TESTS="predictor/test_sklearn.py -k v2"
	@test -n "$(KSERVE)" || { echo "KSERVE=path/to/kserve/test/e2e says where the tests are"; exit 1; }
	$(BIN)/python -m e2e.kserve_suite $(KSERVE) --python $(PYTHON_KSERVE) $(TESTS)

IMAGES = operator haproxy runtime-core runtime-ray
SIZES  = $(PYTHON) tools/image_sizes.py $(patsubst %,fairlead/%:$(VERSION),$(1))

images:          ## build the container images that the end-to-end tests use; print their sizes and what takes the space
	docker build -q -f operators/image/Dockerfile -t fairlead/operator:$(VERSION) .
	docker build -q -f operators/image/haproxy.Dockerfile -t fairlead/haproxy:$(VERSION) .
	docker build -q -f runtimes/images/core.Dockerfile -t fairlead/runtime-core:$(VERSION) .
	docker build -q -f runtimes/images/ray.Dockerfile --build-arg CORE=fairlead/runtime-core:$(VERSION) -t fairlead/runtime-ray:$(VERSION) .
	@$(call SIZES,$(IMAGES))

images-all: images  ## PyTorch's too (PIP_FIND_LINKS=… names a page of CPU builds, or it has gigabytes of CUDA)
	docker build -q -f runtimes/images/torch.Dockerfile --network host --build-arg CORE=fairlead/runtime-core:$(VERSION) \
	  --build-arg PIP_FIND_LINKS=$(PIP_FIND_LINKS) -t fairlead/runtime-torch:$(VERSION) .
	@$(call SIZES,runtime-torch)

bench: install   ## print the figures of all benchmarks; for a quiet machine
	for name in gateway control_plane runtime autoscaling_simulation autoscaling_tick; do $(BIN)/python benchmarks/$$name.py || exit 1; done

soak: install    ## a million requests, good and bad, over every protocol, on both engines: every answer checked, memory watched
	for engine in process ray; do $(BIN)/python benchmarks/soak.py --engine $$engine || exit 1; done

bench-kind: install images  ## the same of benchmarks on kind: about a quarter of an hour
	for name in kubernetes autoscaling; do $(BIN)/python benchmarks/$$name.py || exit 1; done

lint: install    ## ruff, mypy --strict, import layers, stale generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy operators/fairlead runtimes/fairlead
	$(BIN)/lint-imports
	$(BIN)/python -m fairlead.api.crd --check

format: install  ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

crds: install    ## generate manifests/crds from the types in fairlead.api
	$(BIN)/python -m fairlead.api.crd

clean:           ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
