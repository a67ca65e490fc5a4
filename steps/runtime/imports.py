"""Imports before threads start: concurrent imports of one package can fail with ``_DeadlockError``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextlib import suppress


def import_modules(names: Iterable[str]) -> None:
    """Import modules; one that is not installed is reported by the code that needs it."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)
