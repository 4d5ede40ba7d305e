# Three commands do all set-up: `make demo`, `make test`, `make page`. Each builds .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test page check fuzz demo-weights viewer clean

MINUTES ?= 30

demo: $(VENV)/.installed
	$(BIN)/carzero demo --overwrite

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

page: $(VENV)/.installed-serve
	$(BIN)/carzero serve

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site goes into site/; a broken link stops it.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.reference > docs/reference.md
	$(BIN)/zensical build --clean --strict --config-file mkdocs.yml

# Reads mutated files of every kind for MINUTES; the same SEED makes the same inputs (SECURITY.md).
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Rebuilds the bundled weights from DATA, a folder with nih/, pneumonia/ and hannover/, and BOXES, NIH's BBox_List_2017.csv
# or .csv.gz (see docs/demo-weights.md).
demo-weights: $(VENV)/.installed-training
	mkdir -p runs
	$(BIN)/python recipes/demo/build_table.py $(DATA) runs/demo.csv $(BOXES)
	$(BIN)/carzero train recipes/demo/recipe.yaml --table runs/demo.csv --out runs/demo

# The viewer OHIF, prebuilt (50 MB, MIT licence), that tests/clinical/test_viewer.py looks at results with.
viewer: build/ohif/package/dist/index.html

build/ohif/package/dist/index.html:
	rm -rf build/ohif && mkdir -p build/ohif/new
	cd build/ohif && npm pack --silent @ohif/app@3.13.2 && tar xzf ohif-app-3.13.2.tgz -C new && rm ohif-app-3.13.2.tgz
	mv build/ohif/new/package build/ohif/package

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# constraints.txt pins torch: an unpinned torch may bring gigabytes of GPU libraries that a CPU run never loads.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-serve: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[serve]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-training: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo-training]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo_output site
