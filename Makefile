# The verbs of the project; each installs what it needs by itself.
PYTHON = .venv/bin/python

.PHONY: setup engine demo test lint bench check
setup:
	@scripts/setup

engine:
	@scripts/setup engine

demo: engine
	@$(PYTHON) scripts/demo.py

test: setup
	@$(PYTHON) -m pytest -q $(TEST)

lint check: setup
	@$(PYTHON) -m pytest -q tests/unit/test_linters.py

bench: setup
	@$(PYTHON) bench/run.py $(BENCH)
