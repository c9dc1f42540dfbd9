"""Programs on clients of other projects, each run in the environment that ``scripts/clients`` makes for it."""
