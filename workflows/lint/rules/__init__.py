"""Rules, a file for each concept; the docstring of a rule is its line in docs/LINT.md."""
