# One command from a fresh clone to a result: `make sweep`. `make help` lists the rest.
# Everything is installed into .venv here; nothing global is touched.

# Given by whoever calls, on the command line or in the environment:
ARGS ?=
PYTEST_ARGS ?=
# Empty: the first suitable one of python3, python3.13, python3.12, python3.11.
PYTHON ?=
# Empty: torch comes from wherever pip is configured to look.
TORCH_INDEX ?=

# bash, for pipefail and PIPESTATUS: pip's own status counts, not that of the filter behind it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# A recipe is one script, so that it can define functions.
.ONESHELL:
# No built-in rules: they only guess at files that do not exist here.
MAKEFLAGS += --no-builtin-rules

python := .venv/bin/python
# Two processes where the kernels run in the interpreter; one GPU is not shared.
PARALLEL = $(if $(wildcard /dev/nvidia0),,-n 2 --dist worksteal)

.PHONY: help venv sweep gpu test test-full check format clean preflight
.DEFAULT_GOAL := help

help:
	@cat <<'end'
	make sweep       install into .venv, run the default sweep, print its table, write results/<run>/
	make gpu         on a GPU: conformance, stability, speed and training, their tables last; ends within nine minutes
	make test        install what tests need, run a sample of every suite (at most ten minutes on two cores)
	make test-full   run everything, for nightly runs
	make check       formatting, lint and types
	make format      rewrite the code as `make check` wants it
	make venv        only make .venv: the package, its dependencies and the peers
	make clean       remove .venv, caches and build files; results/ stays
	
	ARGS="--quick"              options of `stability run`, for make sweep
	PYTEST_ARGS="-k normalize"  options of pytest, for make test and make test-full
	PYTHON=python3.12           the interpreter .venv is made from (3.11 to 3.13)
	TORCH_INDEX=URL             where to take torch from, e.g. the CPU build's index on PyTorch's install page
	end

# `-m harness` rather than .venv/bin/stability: it also works after the checkout has moved.
sweep: .venv/core.stamp
	@$(python) -m harness run $(ARGS)

# Needs a CUDA device; each suite writes a run directory of its own as it goes.
gpu: .venv/dev.stamp
	@$(python) -m harness run --profile gpu $(ARGS)

test: .venv/dev.stamp
	@rm -rf results/test
	$(python) -m pytest -m "not full" --quick --out results/test $(PARALLEL) $(PYTEST_ARGS)

test-full: .venv/dev.stamp
	@rm -rf results/test
	$(python) -m pytest --out results/test $(PARALLEL) $(PYTEST_ARGS)

check: .venv/dev.stamp
	@$(python) -m ruff format --check
	$(python) -m ruff check
	$(python) -m mypy

format: .venv/dev.stamp
	@$(python) -m ruff format
	$(python) -m ruff check --fix

venv: .venv/core.stamp

clean:
	@rm -rf .venv .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find harness kernels suites -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Set-up. A stamp means: complete for the pyproject.toml of that moment. It goes before an installation starts and
# comes back when it has succeeded; .venv/unfinished stands while one is under way, and an environment found with it
# was cut off half-way and is made anew. (When pip gives up before it unpacks anything, .venv is kept as it was.)

.venv/core.stamp: pyproject.toml | preflight
	@$(setup)
	make_venv
	rm -f $@
	say "Installing into .venv. Once; some minutes, since torch is large. Log: .venv/pip.log"
	# torch alone from TORCH_INDEX, so that its build is that index's whatever versions others offer; then the rest.
	if [[ -n "$${TORCH_INDEX-}" ]]; then
		install --no-deps --index-url "$$TORCH_INDEX" "$$(torch_requirement)"
		install --extra-index-url "$$TORCH_INDEX" --editable ".[peers]"
	else
		install --editable ".[peers]"
	fi
	touch $@

.venv/dev.stamp: .venv/core.stamp
	@$(setup)
	rm -f $@
	say "Installing what tests and checks need into .venv. Log: .venv/pip.log"
	install $${TORCH_INDEX:+--extra-index-url "$$TORCH_INDEX"} --editable ".[peers,dev]"
	touch $@

# Costs nothing once .venv stands, and says what is wrong before anything is downloaded.
preflight:
	@$(require_linux)$(setup)
	if [[ -n "$${PYTHON-}" || ! -e .venv/core.stamp ]]; then chosen=$$(pick_python); fi
	if [[ -n "$${PYTHON-}" && -e .venv && ! -e .venv/unfinished ]]; then
		present=$$(version $(python) || true)
		[[ "$$present" == "$$(version "$$chosen")" ]] \
			|| fail "the .venv here runs Python $$present, not PYTHON=$$PYTHON; run 'make clean' and try again."
	fi

# When make expands it, not in the shell: so it also works in the make of macOS, which ignores .ONESHELL.
require_linux = $(if $(filter Linux,$(shell uname -s 2>&1)),,$(error This needs Linux (or WSL2, or a Linux \
	container): Triton, which the kernels are written in, publishes wheels for Linux only))

export PYTHON TORCH_INDEX

# The functions of the recipes above.
define setup
say() { printf '%s\n' "$$*"; }
fail() { printf 'Error: %s\n' "$$*" >&2; exit 1; }

supported() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' &>/dev/null; }
makes_venvs() { "$$1" -c 'import ensurepip, venv' &>/dev/null; }
version() { "$$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# Prints the interpreter to make .venv from. One is tried by running it: a version manager's shim may run nothing.
pick_python() {
	local candidate found= without_venv= seen= candidates=(python3 python3.13 python3.12 python3.11)
	if [[ -n "$${PYTHON-}" ]]; then candidates=("$$PYTHON"); fi
	for candidate in "$${candidates[@]}"; do
		found=$$(version "$$candidate") || continue
		seen+="$${seen:+, }$$candidate is Python $$found"
		supported "$$candidate" || continue
		if makes_venvs "$$candidate"; then printf '%s\n' "$$candidate"; return; fi
		without_venv=$${without_venv:-$$candidate}
	done
	if [[ -n "$$without_venv" ]]; then
		found=$$(version "$$without_venv")
		fail "$$without_venv (Python $$found) lacks the venv module; install it" \
			"(on Debian and Ubuntu: apt install python$${found%.*}-venv) and run this again."
	fi
	if [[ -z "$$seen" && -n "$${PYTHON-}" ]]; then
		fail "PYTHON=$$PYTHON cannot be run; this needs Python 3.11, 3.12 or 3.13."
	fi
	fail "this needs Python 3.11, 3.12 or 3.13, but $${seen:-no python3 was found}; install one of them," \
		"or say where one is with PYTHON=/path/to/python."
}

# Makes .venv, unless a whole one stands.
make_venv() {
	local base
	if [[ -e .venv/unfinished ]] || ! $(python) -m pip --version &>/dev/null; then rm -rf .venv; fi
	if [[ -e .venv ]]; then
		supported .venv/bin/python || fail "the .venv here runs Python $$(version .venv/bin/python), and" \
			"this needs 3.11, 3.12 or 3.13; run 'make clean' and try again."
		return
	fi
	base=$$(pick_python)
	say "Making .venv with $$base (Python $$(version "$$base"))"
	mkdir .venv 2>/dev/null || fail "cannot write in $$PWD, where .venv belongs."
	touch .venv/unfinished
	if ! "$$base" -m venv .venv &>.venv/venv.log; then
		tail -n 5 .venv/venv.log >&2
		fail "$$base could not make .venv; its last words are above."
	fi
	rm .venv/unfinished
}

# pip install into .venv, with pip's own configuration. Shows the larger steps; the log has everything.
install() {
	local status
	trap 'exit 130' INT
	touch .venv/unfinished
	set +e
	$(python) -m pip install --no-input --disable-pip-version-check "$$@" </dev/null 2>&1 \
		| tee .venv/pip.log \
		| sed -u -n -e 's/^ *\(Downloading .*\.whl (.*\)/  \1/p' -e 's/^Installing collected.*/  Unpacking/p'
	status=$${PIPESTATUS[0]}
	set -e
	if (( status )); then
		grep -q '^Installing collected' .venv/pip.log || rm .venv/unfinished
		explain_failure
	fi
	rm .venv/unfinished
}

explain_failure() {
	local reason="pip could not install what is needed" signs=(
		'connection broken by' 'ConnectionError' 'Connection(Refused|Reset)' 'ProxyError' 'timed out'
		'Name or service not known' 'Temporary failure in name resolution' 'Network is unreachable'
		'from versions: none'
	)
	if grep -q -i 'no space left on device' .venv/pip.log; then
		reason="the disk is full: pip could not install what is needed"
	elif grep -q -E "$$(IFS='|'; printf '%s' "$${signs[*]}")" .venv/pip.log; then
		reason="pip could not reach a package index: no network, or a proxy or mirror that pip's configuration does not name"
	fi
	printf '\n' >&2
	# Without pip's frame around the output of a pip that it called itself.
	grep -v -E '^ *$$|^ *note: |end of output|subprocess|╰|×|│' .venv/pip.log | tail -n 8 | cut -c 1-300 \
		| sed 's/^ */    /' >&2 || true
	fail "$$reason. The last lines of .venv/pip.log are above; run the same command again to go on."
}

torch_requirement() {
	$(python) - <<'end'
	import tomllib
	project = tomllib.load(open("pyproject.toml", "rb"))["project"]
	print(next(requirement for requirement in project["dependencies"] if requirement.startswith("torch")))
	end
}
endef
