"""Files that a location names: one, those of a folder, or those that match a pattern."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from steps.data.formats.selection import select_data_files
from steps.data.locations import hub, object_store, patterns
from steps.data.locations.http_file import HttpFile
from steps.data.locations.location import HttpLocation, HubLocation, Location, ObjectLocation
from steps.data.locations.object_store import ObjectFile, ObjectReaders
from steps.data.locations.remote_file import FileState, RemoteFile
from steps.runtime.errors import BadInput

MAX_FILES = 100_000
MAX_LOG_BYTES = 256 << 20
"""Maximum size of a file of a Delta table's log."""


@dataclass(frozen=True)
class FoundFile:
    """A file of a location."""

    file: RemoteFile
    name: str
    """Path in the bucket or repository, or the URL."""
    size: int | None


def find_files(location: Location, readers: ObjectReaders, allow_private: bool) -> list[FoundFile]:
    """Return the data files of a location, sorted by name; the commit of a hub dataset is resolved.

    Raises:
        BadInput: nothing there, no data files, or no access.
        TransientError: the server is unreachable.
    """
    if isinstance(location, HttpLocation):
        return [FoundFile(HttpFile(location.url, location.shown, allow_private), location.url, None)]
    if isinstance(location, HubLocation):
        return _find_in_dataset(location, allow_private)
    return _find_objects(location, readers, allow_private)


def _find_in_dataset(location: HubLocation, allow_private: bool) -> list[FoundFile]:
    pinned = hub.pin(location, allow_private)
    is_file, sizes = hub.list_files(pinned, allow_private, converted=location.revision == hub.CONVERTED)
    names = _select(location, is_file, sizes)
    return [FoundFile(hub.file(pinned, name, allow_private), name, sizes[name]) for name in names]


def _find_objects(location: ObjectLocation, readers: ObjectReaders, allow_private: bool) -> list[FoundFile]:
    folder = patterns.literal_folder(location.path)
    pattern = location.path[len(folder) :].lstrip("/") if patterns.is_pattern(location.path) else ""
    listed = dataclasses.replace(location, path=folder)
    is_file, sizes = object_store.list_files(listed, readers, allow_private)

    def find(name: str) -> ObjectFile:
        return ObjectFile(dataclasses.replace(location, path=name), readers, allow_private, sizes[name])

    names = _select(listed, is_file, sizes, pattern, find)
    return [FoundFile(find(name), name, sizes[name]) for name in names]


def _select(
    location: HubLocation | ObjectLocation,
    is_file: bool,
    sizes: dict[str, int],
    pattern: str = "",
    find: Callable[[str], ObjectFile] | None = None,
) -> list[str]:
    """Return the names of data files: the one that is named, or those of a folder.

    ``find`` returns a file by its name, to read the log of a Delta table.
    """
    if is_file:
        return list(sizes)
    if len(sizes) > MAX_FILES:
        raise BadInput(f"{location.shown}: {len(sizes)} files (maximum {MAX_FILES})", "use a narrower pattern")
    folder = patterns.literal_folder(location.path)
    prefix = f"{folder}/" if folder and all(name.startswith(f"{folder}/") for name in sizes) else ""

    def open_file(name: str) -> BinaryIO:
        assert find
        return io.BytesIO(_read(find(prefix + name)))

    relative = [name.removeprefix(prefix) for name in sizes]
    try:
        selection = select_data_files(relative, pattern, open_file=open_file if find else None)
    except BadInput as error:
        raise BadInput(f"{location.shown}: {error.message}", error.fix) from None
    return [prefix + name for name in selection.files]


def _read(file: ObjectFile) -> bytes:
    """Return the content of a small file.

    Raises:
        BadInput: the file exceeds ``MAX_LOG_BYTES``.
    """
    if (file.size or 0) > MAX_LOG_BYTES:
        raise BadInput(f"{file.shown}: {file.size} bytes (maximum {MAX_LOG_BYTES})", "export the table to parquet")
    with file.open(0, FileState()) as content:
        return b"".join(iter(content.read, b""))
