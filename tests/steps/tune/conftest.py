from __future__ import annotations

from pathlib import Path

import pytest
from tuning import small_model, undisturbed_run, with_rows


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model; created once per session."""
    return small_model(tmp_path_factory.getbasetemp())


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a complete training, run once per session; tests only read it."""
    return undisturbed_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory with training rows."""
    return with_rows(tmp_path / "work")
