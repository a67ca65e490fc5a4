"""Log of a Delta table: the files that are part of its newest version.

Delta transaction log protocol (delta-io/delta, PROTOCOL.md): commits are JSON files with one action a line, from
version 0, or after the last checkpoint, a parquet file that has the actions of all versions before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, BinaryIO
from urllib.parse import unquote

from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json

Action = dict[str, Any]
OpenFile = Callable[[str], BinaryIO]

HARMLESS_FEATURES = frozenset(
    {"timestampNtz", "vacuumProtocolCheck", "deletionVectors", "columnMapping", "v2Checkpoint", "appendOnly"}
)
"""Reader features that do not change which rows are read, or that are refused where they are used."""
FIX = "export its rows to parquet files: spark.read.format('delta').load(PATH).write.parquet(NEW_PATH)"


def read_live_files(logs: Sequence[str], open_file: OpenFile) -> list[str]:
    """Return the paths of the table's files, relative to the table.

    ``logs`` are the names of all files of ``_delta_log``, which ``open_file`` opens.

    Raises:
        BadInput: the log is incomplete, is damaged, or uses features that would change the rows.
    """
    live: dict[str, None] = {}
    for place, action in _iter_actions(logs, open_file):
        _check_action(place, action)
        if (added := action.get("add")) is not None:
            live[_file_path(place, added)] = None
        if (removed := action.get("remove")) is not None:
            live.pop(_file_path(place, removed), None)
    return list(live)


def _iter_actions(logs: Sequence[str], open_file: OpenFile) -> Iterator[tuple[str, Action]]:
    """Yield the actions of the newest checkpoint, and of the commits after it, with their places."""
    commits = {int(found[1]): name for name in logs if (found := re.search(r"/(\d{20})\.json$", f"/{name}"))}
    version, checkpoint = _newest_checkpoint(logs)
    for name in checkpoint:
        yield from _read_checkpoint(name, open_file)
    versions = [version, *sorted(number for number in commits if number > version)]
    folder = logs[0].rpartition("/")[0] if logs else "_delta_log"
    if len(versions) == 1 and not checkpoint:
        raise BadInput(f"{folder} contains no commit", FIX)
    if gap := next((before + 1 for before, after in pairwise(versions) if after != before + 1), None):
        raise BadInput(f"{folder}: version {gap} is missing", "copy the whole table")
    if versions[0] == -1 and len(versions) > 1 and versions[1] != 0:
        raise BadInput(f"{folder}: version 0 is missing", "copy the whole table")
    for number in versions[1:]:
        yield from _read_commit(commits[number], open_file)


def _newest_checkpoint(logs: Sequence[str]) -> tuple[int, list[str]]:
    """Return the version and the files of the newest complete checkpoint; -1 without one."""
    parts: dict[int, dict[tuple[int, int], str]] = {}
    for name in logs:
        if re.search(r"\.checkpoint\.[0-9a-f]{8}-[-0-9a-f]+\.(json|parquet)$", name) or "/_sidecars/" in name:
            raise BadInput(f"{name}: checkpoints of version 2 are not supported", FIX)
        if found := re.search(r"/(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet$", f"/{name}"):
            parts.setdefault(int(found[1]), {})[int(found[3] or 1), int(found[2] or 1)] = name
    for version in sorted(parts, reverse=True):
        for total in {total for total, _ in parts[version]}:
            names = [parts[version].get((total, number)) for number in range(1, total + 1)]
            if all(names):
                return version, [name for name in names if name]
    return -1, []


def _read_commit(name: str, open_file: OpenFile) -> Iterator[tuple[str, Action]]:
    with open_file(name) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                action = parse_json(line)
            except ValueError:
                action = None
            if not isinstance(action, dict):
                raise BadInput(f"{name}:{number}: not a JSON object", "copy the whole table again")
            yield f"{name}:{number}", action


def _read_checkpoint(name: str, open_file: OpenFile) -> Iterator[tuple[str, Action]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(name) as file, pq.ParquetFile(file) as parquet:
            existing = [part for part in ("add", "protocol", "metaData") if part in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(1024, columns=existing):
                for action in batch.to_pylist():
                    yield name, {key: value for key, value in action.items() if value is not None}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"{name}: a damaged checkpoint ({reason})", "copy the whole table again") from error


def _check_action(place: str, action: Action) -> None:
    """Refuse features that would change the rows."""
    protocol, metadata = _part(place, action, "protocol"), _part(place, action, "metaData")
    added = _part(place, action, "add")
    _part(place, action, "remove")
    features = protocol.get("readerFeatures") or []
    if not isinstance(features, list):
        raise BadInput(f"{place}: `readerFeatures` is not a list", "copy the whole table again")
    if unknown := sorted({str(name) for name in features} - HARMLESS_FEATURES):
        raise BadInput(f"{place}: the Delta table uses {', '.join(unknown)}, which is not supported", FIX)
    configuration = _pairs(place, metadata, "configuration")
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        raise BadInput(f"{place}: the Delta table uses column mapping, which is not supported", FIX)
    if added.get("deletionVector"):
        raise BadInput(f"{place}: the Delta table uses deletion vectors, which are not supported", FIX)
    if action.get("checkpointMetadata") or action.get("sidecar"):
        raise BadInput(f"{place}: checkpoints of version 2 are not supported", FIX)
    provider = _pairs(place, metadata, "format").get("provider", "parquet")
    if provider != "parquet":
        raise BadInput(f"{place}: the table's files are {provider}, not parquet", FIX)


def _part(place: str, action: Action, name: str) -> Action:
    part = action.get(name)
    if part is not None and not isinstance(part, dict):
        raise BadInput(f"{place}: `{name}` is not an object", "copy the whole table again")
    return part or {}


def _pairs(place: str, metadata: Action, name: str) -> Action:
    """Return a mapping of the metadata; a checkpoint has it as a list of pairs."""
    try:
        return dict(metadata.get(name) or {})
    except (ValueError, TypeError):
        raise BadInput(f"{place}: `{name}` is not an object", "copy the whole table again") from None


def _file_path(place: str, entry: Action) -> str:
    """Return the path of an action, relative to the table."""
    path = entry.get("path")
    if not isinstance(path, str) or not path:
        raise BadInput(f"{place}: the path is missing", "copy the whole table again")
    decoded = unquote(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) or decoded.startswith("/") or ".." in decoded.split("/"):
        raise BadInput(f"{place}: the file {decoded} is outside the table", FIX)
    return decoded
