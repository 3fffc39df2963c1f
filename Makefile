# Two commands: `make book` renders the course, `make test` proves it. Each sets up what it needs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
PROOF  := $(VENV)/proof
PARTS  := _build/parts
BOOK   := _build/html/index.html
CODE   := $(wildcard labkit/*.py) $(wildcard labs/lab01_first_run/*)
LATEST := _build/latest
# The limits are for a busy machine: on a quiet one a tenth of them would do.
NBVAL  := --nbval --nbval-current-env --nbval-cell-timeout 1200 --nbval-kernel-startup-timeout 300 \
          --nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: book test test-latest settings lab notebooks bench clean env

book: $(PROOF)
	@$(BIN)/labkit doctor
	@$(BIN)/python book/_ext/vendor.py
	@$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo
	@echo "The book:        file://$(CURDIR)/$(BOOK)"
	@echo "In JupyterLab:   make lab"

test: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/python book/_ext/vendor.py
	@$(BIN)/pytest tests -q -n 2 --dist loadfile
	@$(BIN)/python tests/parts.py chapters $(PARTS)
	@$(BIN)/pytest $(NBVAL) chapters $(PARTS) -q

# The newest releases that pyproject.toml allows, in an environment of their own: do the tests still pass?
test-latest:
	@$(PYTHON) labkit/install.py $(LATEST) --latest
	@$(LATEST)/bin/labkit doctor --compile
	@$(LATEST)/bin/ruff check .
	@$(LATEST)/bin/pytest tests -q -n 2 --dist loadfile -k "not what_was_pinned"

# Every chapter as other machines would run it.
settings: $(READY)
	@$(BIN)/python tests/settings.py

lab: $(READY)
	@$(BIN)/jupyter lab chapters/01_overview.ipynb

notebooks: $(READY)
	@$(BIN)/python tests/notebooks.py chapters/*.ipynb

bench: $(READY)
	@$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) _build runs book/_static/vendor .pytest_cache .ruff_cache .hypothesis *.egg-info

env: $(READY)

# The environment: packages in one resolve, then what DeepSpeed compiles, once.
$(READY): pyproject.toml constraints.txt labkit/install.py
	@$(PYTHON) labkit/install.py $(VENV)
	@$(BIN)/labkit doctor --compile
	@touch $@

# Lab 1 on two ranks: proof that DeepSpeed runs here. Again only when its code has changed.
$(PROOF): $(READY) $(CODE)
	@$(BIN)/labkit run lab01 --ranks 2
	@touch $@
