"""The faster lookup of installed packages gives what importlib.metadata gives."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions as slow
from pathlib import Path

import pytest

from steps.runtime import installed_packages

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Python 3.12 has other rules, and keeps its lookup"
)


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    """Find the packages anew, and leave none of a test to libraries that are imported later in this process."""
    installed_packages.packages_distributions.cache_clear()
    yield
    installed_packages.packages_distributions.cache_clear()


def test_the_packages_of_this_environment_are_those_of_importlib() -> None:
    installed = installed_packages.packages_distributions()
    assert {module: sorted(packages) for module, packages in installed.items()} == {
        module: sorted(packages) for module, packages in slow().items()
    }
    assert "PyYAML" in installed["yaml"]


@pytest.mark.parametrize(
    "files",
    [
        {"RECORD": "first.py,,\nsecond/__init__.py,sha256=x,1\nsecond/part.py,,\nthing-1.0.data/scripts/program,,\n"},
        {"RECORD": '"with,comma/__init__.py",,\nthird/data.json,,\n'},
        {"RECORD": "", "top_level.txt": "first\nsecond\n"},
        {"RECORD": "first.py,,\n", "top_level.txt": "\n"},
        {"RECORD": "first.pyc,,\nfirst.py.txt,,\n"},
        {},
    ],
)
def test_packages_without_and_with_declared_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    metadata = "Metadata-Version: 2.1\nName: The.Thing\nVersion: 1.0\n\nName: not this one\n"
    for name, text in (files | {"METADATA": metadata}).items():
        (folder / name).write_text(text)
    for row in csv.reader(files.get("RECORD", "").splitlines()):
        # Where mlflow has imported the importlib_metadata package, that leaves out files that do not exist.
        (tmp_path / row[0]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row[0]).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed_packages.packages_distributions() == slow()


def test_transformers_and_trl_use_it() -> None:
    """In another process, since libraries call it when they are imported."""
    program = """
from steps.models.model import prepare_libraries
from steps.runtime import installed_packages
prepare_libraries()
import trl
print(installed_packages.packages_distributions.cache_info())
"""
    process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "hits=1, misses=1" in process.stdout
