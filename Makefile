# Everything from nothing. `make` alone lists the targets.

PYTHON ?= python3
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
CHAOS ?= chaos
DEMO_INPUTS ?= out/demo-inputs
DEMO_MANIFEST ?= $(DEMO_INPUTS)/manifest.jsonl
DEMO_FACES ?= $(DEMO_INPUTS)/faces.jsonl
DEMO_OUTPUT ?= out/demo
FILM_SONG ?= out/song.flac
FILM_OUTPUT ?= out/film.mp4
PORT ?= 8000
SERVE_ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Ray would send usage statistics, and under `uv run` copy this folder to every worker.
export RAY_USAGE_STATS_ENABLED := 0
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
# The environment decides what is imported, not the caller's shell.
unexport PYTHONPATH PYTHONHOME

# The environment fits one Python and one folder (its scripts hold absolute paths). When either differs from what the stamp
# says, or its Python no longer starts, it is made again.
ABI := import platform, sys; print(sys.implementation.cache_tag, platform.machine())
WANTED := $(shell $(PYTHON) -c '$(ABI)' 2>/dev/null)
FOUND := $(shell $(RUN) -c '$(ABI)' 2>/dev/null)
STAMPED := $(shell cat $(STAMP) 2>/dev/null)
REBUILD := $(if $(filter-out $(WANTED) $(CURDIR),$(FOUND) $(STAMPED))$(if $(FOUND),,none),rebuild)

.DEFAULT_GOAL := help
.PHONY: help venv demo film serve test chaos check clean rebuild

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP)  ## install pinned versions of everything into .venv (the other targets do it when needed)

demo: $(STAMP)  ## edit the bundled pictures with the bundled sounds; the results are out/demo/index.html and out/demo-faces/index.html
	$(RUN) -m soundguide.miniature.demo $(DEMO_INPUTS)
	$(RUN) jobs/bulk_manipulate.py --manifest $(DEMO_MANIFEST) --output $(DEMO_OUTPUT)
	$(RUN) jobs/bulk_manipulate.py --manifest $(DEMO_FACES) --output $(DEMO_OUTPUT)-faces --preset miniature-faces

film: $(STAMP)  ## film a picture that follows half a minute of synthesised music; the result is out/film.mp4, with sound
	$(RUN) -m soundguide.miniature.song $(FILM_SONG)
	$(VENV)/bin/soundguide film $(FILM_SONG) --seed 28 -o $(FILM_OUTPUT)

serve: $(STAMP)  ## edit in the browser and over HTTP, at http://127.0.0.1:8000 (PORT=8001 for another port)
	$(RUN) serve/run.py --port $(PORT) $(SERVE_ARGS)

test: $(STAMP)  ## run the test suite (PYTEST_ARGS='-k name' for a part of it, TEST_PROCESSES=0 for one process)
	$(RUN) -m pytest -m 'not chaos' -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

chaos: $(STAMP)  ## break things while jobs run: killed processes, lost machines, full disks, faulty stores (15 minutes)
	$(RUN) -m pytest -m '$(CHAOS)' $(PYTEST_ARGS)

check: $(STAMP)  ## lint, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict --package soundguide

clean:  ## remove .venv, out/, build outputs and caches
	rm -rf $(VENV) out build dist soundguide.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt $(REBUILD)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "SoundGuide needs Python 3.11 or newer; '$(PYTHON)' is `$(PYTHON) -V 2>&1 || true`." \
			"Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if [ -n "$(REBUILD)" ] || ! $(RUN) -m pip --version >/dev/null 2>&1; then \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) || { \
			echo "$(PYTHON) cannot make a virtual environment. Install its venv module (Debian: apt install python3-venv)," \
				"or name another Python with PYTHON=." >&2; rm -rf $(VENV); exit 1; }; \
	fi
	@echo "installing into $(VENV) (some minutes, 7 GB)"
	@$(RUN) -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[ray,demo,identity,music,dev]' \
		>$(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log >&2; \
			echo "The install failed; all of its output is in $(VENV)/install.log. Run make again to go on." >&2; exit 1; }
	@echo "$(WANTED) $(CURDIR)" >$@
