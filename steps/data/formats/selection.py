"""Selection of the data files of a folder, local or remote, by their names.

As in Spark and Hadoop, folders and files that begin with ``.`` are not data, nor folders that begin with ``_``
(``_temporary``, ``_delta_log``), except partitions (``_lang=en``), nor files that are being copied (``._COPYING_``).
The files of a Delta table are those that its log lists. Imports no heavy library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from steps.data.formats import delta_log, file_names
from steps.data.locations import patterns
from steps.runtime.errors import BadInput

METADATA_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""Files that the datasets library writes next to the data."""
MAX_SHOWN = 5


@dataclass(frozen=True)
class Selection:
    """Data files of a folder, in the order of their names."""

    files: list[str]
    ignored: list[str] = field(default_factory=list)
    """Visible files that are not data."""
    partitions: list[str] = field(default_factory=list)
    """Columns in the names of folders (``lang=en``), which are not read."""


def select_data_files(
    names: Sequence[str], pattern: str | None = None, *, open_file: Callable[[str], BinaryIO] | None = None
) -> Selection:
    """Return the data files among ``names``, which are relative to the folder and separated by ``/``.

    Args:
        names: all files of the folder, at any depth.
        pattern: glob pattern of the names (see ``locations/patterns.py``); None or empty: all.
        open_file: opens a file by its name, to read the log of a Delta table.

    Raises:
        BadInput: no data files, files of several formats, or a table that cannot be read.
    """
    ordered = sorted(names, key=lambda name: name.split("/"))
    _refuse_tables(ordered)
    roots = sorted({name[: found.start()] for name in ordered if (found := re.search(r"(^|(?<=/))_delta_log/", name))})
    if roots:
        if open_file is None:
            raise BadInput(f"{roots[0] or 'the folder'} is a Delta table", "read it from a folder or a bucket")
        ordered = _only_live(ordered, roots, open_file)
    hidden = {name for name in ordered if _is_hidden(name, pattern)}
    visible = [name for name in ordered if name not in hidden]
    files = [name for name in visible if (patterns.matches(pattern, name) if pattern else _is_data(name))]
    if not files:
        raise BadInput(
            f"no file matches {pattern!r}: the folder contains {_list(visible)}"
            if pattern
            else f"no data file found: the folder contains {_list(visible)}",
            "correct the pattern" if pattern else f"add files of a supported format: {file_names.SUPPORTED}",
        )
    _check_formats(files)
    partitions = dict.fromkeys(
        part.partition("=")[0] for name in files for part in name.split("/")[:-1] if "=" in part.strip("=")
    )
    kept = set(files)
    return Selection(files, [name for name in visible if name not in kept], list(partitions))


def _is_data(name: str) -> bool:
    return file_names.is_readable(name) and name.rpartition("/")[2] not in METADATA_FILES


def _is_hidden(name: str, pattern: str | None) -> bool:
    """Return True if a part of the name is hidden, and not written in the pattern."""
    *folders, file = name.split("/")
    hidden = [part for part in folders if part.startswith((".", "_")) and not ("=" in part and part[0] == "_")]
    if file.startswith(".") or re.match(r"_(SUCCESS|committed_|started_|metadata$|common_metadata$)", file):
        hidden.append(file)
    written = set((pattern or "").split("/"))
    return not written.issuperset(hidden) or name.endswith("._COPYING_")


def _refuse_tables(names: Sequence[str]) -> None:
    """Refuse folders of table formats whose deleted rows are still in the files."""
    for marker, table in (
        (r"(^|/)metadata/[^/]+\.metadata\.json$", "an Apache Iceberg table"),
        (r"(^|/)\.hoodie/", "an Apache Hudi table"),
    ):
        if found := next((name for name in names if re.search(marker, name)), ""):
            raise BadInput(
                f"the folder is {table} ({found}), whose files can contain deleted rows",
                "export its rows to parquet files",
            )


def _only_live(names: Sequence[str], roots: Sequence[str], open_file: Callable[[str], BinaryIO]) -> list[str]:
    """Return the names without the files of Delta tables that their logs do not list."""
    outside = [name for name in names if not any(name.startswith(root) for root in roots)]
    existing = set(names)
    live: list[str] = []
    for root in roots:
        logs = [name for name in names if name.startswith(f"{root}_delta_log/")]
        listed = [f"{root}{path}" for path in delta_log.read_live_files(logs, open_file)]
        if missing := [path for path in listed if path not in existing]:
            raise BadInput(
                f"{root}_delta_log lists files that are not in the folder: {_list(missing)}",
                "copy the whole table, or export its rows to parquet files",
            )
        live += listed
    return sorted({*outside, *live}, key=lambda name: name.split("/"))


def _check_formats(files: Sequence[str]) -> None:
    """Refuse files that cannot be read, and folders with files of several formats."""
    if unknown := [name for name in files if file_names.unsupported_extension(name)]:
        raise BadInput(f"not a supported format: {_list(unknown)}", f"use {file_names.SUPPORTED}")
    examples = {file_names.parse_name(name)[0]: name for name in reversed(files)}
    if len(examples) > 1:
        raise BadInput(
            f"the folder contains files of several formats: {_list(list(examples.values()))}",
            "remove the files that are not data, or select files by a pattern: pipeline.data.pattern",
        )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more if names else "nothing"
