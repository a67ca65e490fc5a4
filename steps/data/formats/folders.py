"""Data files of a local folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.data.formats import file_names
from steps.data.formats.selection import Selection, select_data_files
from steps.data.locations import patterns
from steps.runtime.errors import BadInput

MAX_SHOWN = 5
RUN_FILE = "workflow.json"
"""File of the folder of a local run, next to `volumes`: the rows that the run has converted are not data."""


@dataclass(frozen=True)
class FoundFiles:
    """Data files of a folder."""

    files: dict[str, Path]
    """Name, relative to the folder -> path; in the order of names."""
    ignored: list[str]
    partitions: list[str]

    def describe(self) -> Iterator[str]:
        """Yield lines for the log about what is not read."""
        yield from describe_ignored(self.ignored, self.partitions)


def describe_ignored(ignored: Sequence[str], partitions: Sequence[str]) -> Iterator[str]:
    """Yield lines for the log about files and partition columns that are not read."""
    if ignored:
        more = f" and {len(ignored) - MAX_SHOWN} more" if len(ignored) > MAX_SHOWN else ""
        yield f"ignored files: {', '.join(ignored[:MAX_SHOWN])}{more}"
    if partitions:
        yield f"ignored partition columns (from names of folders): {', '.join(partitions)}"


def find_data_files(source: Path, pattern: str | None = None) -> FoundFiles:
    """Return the data files of a folder, or a single file; ``source`` can end with a glob pattern.

    Raises:
        BadInput: nothing was found, or ``select_data_files`` refuses what was.
    """
    if not source.exists() and (glob := _split_glob(source)):
        source, pattern = glob
    if not source.exists():
        raise BadInput(f"{source} not found", f"pass a folder or a file of a supported format: {file_names.SUPPORTED}")
    if source.is_file():
        return FoundFiles({source.name: source}, [], [])
    files = [path for path in source.rglob("*") if path.is_file()]
    runs = {path.parent for path in files if path.name == RUN_FILE and (path.parent / "volumes").is_dir()}
    names = [path.relative_to(source).as_posix() for path in files if not runs.intersection(path.parents)]
    try:
        selection: Selection = select_data_files(names, pattern, open_file=lambda name: (source / name).open("rb"))
    except BadInput as error:
        raise BadInput(f"{source}: {error.message}", error.fix) from None
    return FoundFiles({name: source / name for name in selection.files}, selection.ignored, selection.partitions)


def _split_glob(source: Path) -> tuple[Path, str] | None:
    """Return folder and pattern of a path with a glob pattern; None if it has none."""
    text = source.as_posix()
    if not patterns.is_pattern(text):
        return None
    folder = patterns.literal_folder(text)
    return Path(folder or source.anchor), text[len(folder) :].lstrip("/")
