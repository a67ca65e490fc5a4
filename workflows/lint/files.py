"""Files to lint: paths, directories, globs, standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from workflows.errors import InvalidInput, Problem

SUFFIXES = (".yaml", ".yml", ".json")
_SKIPPED_DIRECTORIES = {"node_modules", "__pycache__"}


def read_files(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and text of each file that the names select, each once.

    Raises:
        InvalidInput: a file cannot be read, or a glob or directory has no file.
    """
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for name in names:
        paths = list(_expand(name))
        if not paths:
            what = "the directory has" if Path(name).is_dir() else "the pattern matches"
            problems.append(Problem(f"{what} no YAML or JSON file", file=name, fix="check the path"))
        for path in paths:
            if path in texts:
                continue
            try:
                data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
                texts["stdin" if path == "-" else path] = data.decode("utf-8-sig")
            except OSError as error:
                problems.append(Problem(f"can't be read: {error.strerror}", file=path, fix="check the path"))
            except UnicodeDecodeError:
                problems.append(Problem("is not UTF-8 text", file=path, fix="save it as UTF-8"))
    if problems:
        raise InvalidInput(problems)
    return list(texts.items())


def _expand(name: str) -> Iterator[str]:
    if name == "-":
        yield name
    elif Path(name).is_dir():
        yield from map(str, _walk(Path(name)))
    elif any(sign in name for sign in "*?[") and not Path(name).exists():
        yield from sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())
    else:
        yield name


def _walk(directory: Path) -> Iterator[Path]:
    """Yield the YAML and JSON files below a directory, except in hidden directories."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            if not entry.name.startswith(".") and entry.name not in _SKIPPED_DIRECTORIES:
                yield from _walk(entry)
        elif entry.suffix in SUFFIXES:
            yield entry
