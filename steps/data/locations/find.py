"""Data files that a location names: one, those of a folder, or those that match a pattern."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
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
MAX_LOG_BYTES = 64 << 20
"""Size of one file of a Delta log."""


@dataclass(frozen=True)
class FoundFiles:
    """Data files of a location, in the order of their names."""

    files: list[RemoteFile]
    ignored: Sequence[str] = ()
    """Visible files that are not data."""
    partitions: Sequence[str] = ()
    """Columns in the names of folders, which are not read."""


def find_files(location: Location, readers: ObjectReaders, allow_private: bool, pattern: str = "") -> FoundFiles:
    """Return the data files of a location; the commit of a hub dataset is resolved.

    ``pattern`` selects among the files of a folder, unless the location has a pattern.

    Raises:
        BadInput: nothing there, no data files, or no access.
        TransientError: the server is unreachable.
    """
    if isinstance(location, HttpLocation):
        return FoundFiles([HttpFile(location.url, location.shown, allow_private)])
    if isinstance(location, HubLocation):
        pinned = hub.pin(location, allow_private)
        is_file, names = hub.list_files(pinned, allow_private, converted=location.revision == hub.CONVERTED)
        return _select(location, pattern, is_file, names, lambda name: hub.file(pinned, name, allow_private))
    return _find_objects(location, readers, allow_private, pattern)


def _find_objects(location: ObjectLocation, readers: ObjectReaders, allow_private: bool, pattern: str) -> FoundFiles:
    listed = dataclasses.replace(location, path=patterns.literal_folder(location.path))
    is_file, names = object_store.list_files(listed, readers, allow_private)

    def to_file(name: str) -> RemoteFile:
        return ObjectFile(dataclasses.replace(location, path=name), readers, allow_private)

    return _select(location, pattern, is_file, names, to_file)


def _select(
    location: HubLocation | ObjectLocation,
    pattern: str,
    is_file: bool,
    names: Sequence[str],
    to_file: Callable[[str], RemoteFile],
) -> FoundFiles:
    """Return the file that is named, or the data files of a folder."""
    if is_file:
        return FoundFiles([to_file(name) for name in names])
    if len(names) > MAX_FILES:
        raise BadInput(f"{location.shown}: {len(names)} files (maximum {MAX_FILES})", "use a smaller folder")
    folder = patterns.literal_folder(location.path)
    start = len(folder) + 1 if folder else 0
    if patterns.is_pattern(location.path):
        pattern = location.path[start:]

    def open_file(name: str) -> BinaryIO:
        return io.BytesIO(_read(to_file(f"{names[0][:start]}{name}")))

    try:
        selected = select_data_files([name[start:] for name in names], pattern, open_file=open_file)
    except BadInput as error:
        raise BadInput(f"{location.shown}: {error.message}", error.fix) from error
    files = [to_file(f"{names[0][:start]}{name}") for name in selected.files]
    return FoundFiles(files, selected.ignored, selected.partitions)


def _read(file: RemoteFile) -> bytes:
    """Return a small file."""
    content = bytearray()
    with file.open(0, FileState()) as source:
        while part := source.read():
            content += part
            if len(content) > MAX_LOG_BYTES:
                raise BadInput(f"{file.shown} has more than {MAX_LOG_BYTES} bytes", "export the rows to parquet files")
    return bytes(content)
