"""Steps of a run: each is a directory with settings, a function ``Settings -> Result``, and an entry point.

Run one by hand with ``python -m steps.NAME --help``. Never imports ``hera`` or ``workflows``.
"""
