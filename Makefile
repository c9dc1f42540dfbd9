# The verbs of the project; each installs what it needs by itself.
PYTHON = .venv/bin/python

.PHONY: setup engine demo test lint bench check
setup:
	@scripts/setup

engine:
	@scripts/setup engine

demo: engine
	@$(PYTHON) scripts/demo.py

# All tests in several processes; those that TEST chooses one after another, for -x, -s or --pdb.
test: setup
	@$(PYTHON) -m pytest -q --own-netns $(or $(TEST),-n auto)

lint check: setup
	@$(PYTHON) -m pytest -q tests/unit/rules/test_linters.py

bench: setup
	@$(PYTHON) bench/run.py $(BENCH)
