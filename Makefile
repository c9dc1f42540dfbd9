# The verbs of the project; each installs what it needs by itself.
PYTHON = .venv/bin/python

.PHONY: setup engine demo test test-rootless lint bench check deb installed
setup:
	@scripts/setup

engine:
	@scripts/setup engine

demo: engine
	@$(PYTHON) scripts/demo.py

# All tests in several processes; those that TEST chooses one after another, for -x, -s or --pdb.
test: setup
	@$(PYTHON) -m pytest -q --own-netns $(or $(TEST),-n auto)

# What a daemon does for all, done by one of a user without rights, whom the run makes.
test-rootless: setup
	@$(PYTHON) -m pytest -q --own-netns --rootless $(or $(TEST),-n auto tests/integration)

lint check: setup
	@$(PYTHON) -m pytest -q tests/unit/rules/test_linters.py

bench: setup
	@$(PYTHON) bench/run.py $(BENCH)

deb:
	@scripts/deb

# The packages on bare machines with systemd.
installed: deb
	@for suite in $(or $(SUITES),bookworm trixie); do scripts/installed $$suite || exit; done
