# `make help` explains itself from the comments behind `##`.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/python
STACK := $(RUN) -m include.stack

# The value of a variable as one word of a shell, whatever it holds: $, #, quotes, spaces.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)),$(1) $(call quoted,$(2)))

.DEFAULT_GOAL := help
.PHONY: help setup demo up down status import export withdraw decide account accounts test soak env docker-proof lint format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables: PYTHON=python3.12 (which Python), AIRFLOW_PORT, MLFLOW_PORT, SERVING_PORT, S3_PORT, SMTP_PORT.\n'

setup: $(STAMP) ## make the virtual environment (everything else does so by itself)

$(STAMP): requirements-dev.txt pyproject.toml
	@test -x $(RUN) || { \
		command -v $(PYTHON) >/dev/null \
			|| { echo "there is no '$(PYTHON)': install Python 3.11 to 3.13, or name one: make PYTHON=python3.12 setup" >&2; exit 1; }; \
		$(PYTHON) include/check_python.py && $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
	@$(RUN) include/check_python.py
	@echo "Installing the locked requirements into $(VENV) …"
	@$(RUN) -m pip install -qq --disable-pip-version-check uv || echo "uv cannot be had; going on with pip" >&2
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip install --quiet -r requirements-dev.txt \
		|| $(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP) ## from images to a served model: make demo [TASK=classification], or with your own: make demo DATA=folder [PROJECT=name]
	@$(STACK) demo $(call option,--data,DATA) $(call option,--project,PROJECT) $(call option,--map,MAP) $(call option,--task,TASK)

up: $(STAMP) ## start the local stack and wait until it is healthy
	@$(STACK) up

down: $(STAMP) ## stop the local stack; its data stays in var/
	@$(STACK) down

status: $(STAMP) ## show every process of the stack: state, memory, address, health
	@$(STACK) status

import: $(STAMP) ## put images into a project's inbox: make import DATA=folder [PROJECT=name] [TASK=classification] [MAP="folder=good;…"] [YES=1]
	@$(if $(value DATA),,echo "say which folder: make import DATA=folder [PROJECT=name]" >&2; exit 1;) \
		$(STACK) import $(call option,--data,DATA) $(call option,--project,PROJECT) $(call option,--map,MAP) $(call option,--task,TASK)

export: $(STAMP) ## write a dataset version to files: make export [PROJECT=name] [FORMAT=mvtec|coco|yolo|labelstudio] [TO=folder] [VERSION=id]
	@$(STACK) export $(call option,--to,TO) $(call option,--project,PROJECT) $(call option,--format,FORMAT) $(call option,--version,VERSION)

withdraw: $(STAMP) ## keep a sample out of later dataset versions: make withdraw SAMPLE=sha256 [PROJECT=name] [REASON="…"] [UNDO=1]
	@$(if $(SAMPLE),,echo "say which sample: make withdraw SAMPLE=sha256 [PROJECT=name]" >&2; exit 1;) \
		$(STACK) withdraw --sample "$(SAMPLE)" $(if $(PROJECT),--project "$(PROJECT)") $(if $(REASON),--reason "$(REASON)") $(if $(UNDO),--undo)

decide: $(STAMP) ## settle a disputed sample: make decide SAMPLE=sha256 LABEL=good|anomaly|class [PROJECT=name]
	@$(if $(and $(SAMPLE),$(LABEL)),,echo "say which sample and label: make decide SAMPLE=sha256 LABEL=good" >&2; exit 1;) \
		$(STACK) decide --sample "$(SAMPLE)" --label $(call quoted,LABEL) $(if $(PROJECT),--project "$(PROJECT)")

account: $(STAMP) ## make an account for serving, or reset its password: make account NAME=ann [ROLE=administrator]
	@$(if $(NAME),,echo "say whose: make account NAME=ann [ROLE=administrator]" >&2; exit 1;) \
		$(STACK) account --name "$(NAME)" $(if $(ROLE),--role "$(ROLE)")

accounts: $(STAMP) ## make the accounts that a CSV lists (name, password, role): make accounts FILE=users.csv
	@$(if $(value FILE),,echo "say which file: make accounts FILE=users.csv" >&2; exit 1;) \
		$(STACK) accounts $(call option,--file,FILE)

test: $(STAMP) ## run every test, in two processes (about 35 minutes on two cores)
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(STAMP) ## run the long load and kill tests
	@$(RUN) -m pytest -m soak $(ARGS)

env: ## write .env for docker compose, with random passwords and keys
	@$(PYTHON) include/docker/make_env.py

docker-proof: ## build the images, start them all, and train through them (needs Docker; ARGS=--help says more)
	@$(PYTHON) tests/docker/prove.py $(ARGS)

lint: $(STAMP) ## check style, types and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(STAMP) ## put the code into the project's format
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

lock: $(STAMP) ## resolve requirements*.in anew into the locked requirements*.txt
	@for each in requirements requirements-dev; do \
		VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip compile --quiet --no-annotate --no-header --universal --python-version 3.11 \
			--output-file $$each.txt $$each.in; done

clean: ## take the virtual environment away (var/ stays)
	rm -rf $(VENV)
