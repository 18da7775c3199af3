# Every target sets up what it needs: a virtual environment in .venv, from PyPI, once.
# The longest part is llama-cpp-python, which comes as source: 4 to 7 minutes on two cores.

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
OUT     ?= out
INPUT   ?=
DATA    ?=
ARGS    ?=

# llama.cpp without what edgemod never calls: no servers, tools, network or images, and no
# OpenMP (edgemod runs one thread in each of its workers).
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF \
	-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF \
	-DLLAMA_BUILD_SERVER=OFF
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)

.PHONY: help setup demo triage test lint format type bench scoreboard docs clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing edgemod; building llama-cpp-python takes most of 4 to 7 minutes, once"
	$(BIN)/python -m pip install --quiet --editable .
	-$(BIN)/edgemod doctor
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

setup: $(VENV)/.run  ## install edgemod into .venv, compile its kernels, check the machine

demo: $(VENV)/.run  ## set up, generate 50,000 interactions, triage them
	$(BIN)/python scripts/make_demo.py demo/input
	$(BIN)/edgemod triage demo/input/comments.parquet -o demo/out/comments --restart $(ARGS)
	$(BIN)/edgemod triage demo/input/conversations.parquet -o demo/out/conversations --restart $(ARGS)
	$(BIN)/python scripts/make_demo.py demo/input --results demo/out/comments demo/out/conversations

# INPUT may be several files, folders and globs; quote a name with spaces once more:
# make triage INPUT="'my dump.parquet' more/" OUT=out
triage: $(VENV)/.run  ## triage your own dump: make triage INPUT=dump/ OUT=out/
	$(if $(INPUT),,$(error say what to triage: make triage INPUT=dump.parquet OUT=out))
	$(BIN)/edgemod triage $(INPUT) -o "$(OUT)" $(ARGS)

test: $(VENV)/.dev  ## set up and run the whole suite, with lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## ruff, writing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

bench: $(VENV)/.bench  ## benchmarks and comparisons with peers
	$(BIN)/python -m pytest bench $(ARGS)

scoreboard: $(VENV)/.bench  ## measure on labelled sets: make scoreboard DATA=folder-with-dev/
	$(if $(DATA),,$(error say where the sets are: make scoreboard DATA=folder))
	$(BIN)/python scripts/scoreboard.py "$(DATA)" --peers $(ARGS)

docs: $(VENV)/.dev  ## write the command pages, the table of licences and the model card
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/licences.py
	$(BIN)/python scripts/model_card.py

clean:  ## remove the virtual environment and what the demo made
	rm -rf $(VENV) demo/input demo/out
