"""One app for each system we compare with; each runs in an environment of its own (see ../venvs.py)."""
