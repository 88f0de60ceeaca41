# Every target sets itself up from nothing: the first use creates .venv and installs the tested versions.
PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo

# One thread a process: a fixed number, so that two runs add in one order, and models this small lose time on more.
TEST_ENV := OMP_NUM_THREADS=1
DEMO_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false

.PHONY: help env demo test test-kill check

help:
	@echo "make demo   fine-tune a small LLaVA on VizWiz-format data, score it before and after, write a page"
	@echo "make test   run the tests"
	@echo "make test-kill   kill -9 twenty runs at random moments, resume and compare them"
	@echo "make check  check format, lint and types"
	@echo "make env    only create .venv"

env: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,demo]"
	@touch $@

demo: env
	$(DEMO_ENV) $(BIN)/python scripts/make_demo.py
	$(DEMO_ENV) $(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sft_vizwiz.py --config recipes/configs/demo_cpu.yaml
	rm -rf $(DEMO)/eval
	$(DEMO_ENV) $(BIN)/python scripts/evaluate.py --model question_only --data $(DEMO)/data --out $(DEMO)/eval/question_only
	$(DEMO_ENV) $(BIN)/python scripts/evaluate.py --model recipes/demo/base --data $(DEMO)/data --out $(DEMO)/eval/base
	$(DEMO_ENV) $(BIN)/python scripts/evaluate.py --model $(DEMO)/adapter --data $(DEMO)/data --out $(DEMO)/eval/adapter
	$(DEMO_ENV) $(BIN)/python scripts/compare.py $(DEMO)/eval/* --data $(DEMO)/data --run $(DEMO)/adapter --page $(DEMO)/report.html --title "VizWiz demo: easy-VQA pictures, simulated annotators"

test: env
	$(TEST_ENV) $(BIN)/python -m pytest -n 2

test-kill: env
	$(TEST_ENV) $(BIN)/python -m pytest -m kill tests/resume

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
