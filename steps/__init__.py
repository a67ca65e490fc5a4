"""What each pod does: one plain function a file, typed dataclass in, typed dataclass out.

Run one by hand with ``python -m steps.NAME --help``. Never imports ``hera`` or ``workflows``.
"""
