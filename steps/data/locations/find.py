"""Files that a location names: one, those of a folder, or those that match a pattern."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from steps.data.locations import hub, object_store, patterns
from steps.data.locations.http_file import HttpFile
from steps.data.locations.location import HttpLocation, HubLocation, Location, ObjectLocation
from steps.data.locations.object_store import ObjectFile, ObjectReaders
from steps.data.locations.remote_file import RemoteFile
from steps.runtime.errors import BadInput

MAX_FILES = 100_000
SUFFIXES = (".parquet",)


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
    pattern = location.path if patterns.is_pattern(location.path) else ""
    listed = dataclasses.replace(location, path=patterns.literal_folder(location.path))
    is_file, sizes = object_store.list_files(listed, readers, allow_private)
    if pattern:
        is_file, sizes = False, {name: size for name, size in sizes.items() if patterns.matches(pattern, name)}
    found = []
    for name in _select(location, is_file, sizes):
        file = ObjectFile(dataclasses.replace(location, path=name), readers, allow_private, sizes[name])
        found.append(FoundFile(file, name, sizes[name]))
    return found


def _select(location: HubLocation | ObjectLocation, is_file: bool, sizes: dict[str, int]) -> list[str]:
    """Return the names of data files: the one that is named, or those of a folder."""
    if is_file:
        return list(sizes)
    if len(sizes) > MAX_FILES:
        raise BadInput(f"{location.shown}: {len(sizes)} files (maximum {MAX_FILES})", "use a narrower pattern")
    folder = patterns.literal_folder(location.path)
    selected = [name for name in sorted(sizes) if _is_data(name[len(folder) :])]
    if not selected:
        existing = ", ".join(sorted(sizes)[:5]) or "nothing"
        raise BadInput(f"{location.shown}: no data files among {existing}", "correct the location")
    return selected


def _is_data(name: str) -> bool:
    is_hidden = any(part.startswith((".", "_")) for part in name.split("/"))
    return not is_hidden and name.lower().endswith(SUFFIXES)
