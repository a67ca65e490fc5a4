"""Reader of object stores as a process: lists and reads objects on request, by pyarrow's file systems.

A process, because a call of pyarrow cannot be interrupted: the parent (``object_store.py``) kills it if it stalls.
A request is a line of JSON on stdin. A response is a sequence of frames on stdout: kind, length (4 bytes), payload.

| kind | payload |
|---|---|
| J | JSON: the list of files, or the properties of the object, before its data |
| D | bytes of the object |
| Z | end of the response |
| E | end of the response by an error, as JSON |
"""

from __future__ import annotations

import json
import os
import queue
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from steps.data.locations import azure, gcs, s3
from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    from pyarrow import fs

HEADER = struct.Struct(">cI")
MIN_BLOCK, MAX_BLOCK = 1 << 15, 1 << 23
"""Bytes of a range request: it grows while reads are quick, so that progress is seen at any speed."""
QUICK_SECONDS, SLOW_SECONDS = 1.0, 5.0
_DENIED = re.compile(
    r"access.?denied|unauthori|authenti|authorization|invalid.?access.?key|signature.?does.?not.?match|expired.?token"
    r"|permission.?denied|forbidden|credential|\b40[13]\b",
    re.IGNORECASE,
)
_MISSING = re.compile(r"no.?such|not.?found|does not exist|\b404\b", re.IGNORECASE)


def main() -> None:
    """Answer requests until stdin ends, which is when the parent ends, however it does."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_receive, args=[lines], daemon=True).start()
    while True:
        request = json.loads(lines.get())
        try:
            _respond(request, sys.stdout.buffer)
        except BrokenPipeError:
            return
        except Exception as error:
            _send(sys.stdout.buffer, b"E", json.dumps(_describe(error)).encode())


def _receive(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    # Not sys.exit: a stalled call of pyarrow would outlive the parent.
    os._exit(0)


def _respond(request: dict[str, Any], out: IO[bytes]) -> None:
    file_systems = list(_file_systems(request))
    action = _list_files if request["action"] == "list" else _read_file
    while True:
        try:
            action(file_systems.pop(0), request, out)
            break
        except Exception as error:
            if not file_systems or _describe(error)["kind"] != "denied":
                raise
    _send(out, b"Z", b"")


def _file_systems(request: dict[str, Any]) -> Iterator[fs.FileSystem]:
    port = request["proxy_port"]
    if request["store"] == "s3":
        return s3.file_systems(request["bucket"], port)
    if request["store"] == "gs":
        return gcs.file_systems(port)
    return azure.file_systems(request["account"], request["account_domain"], port)


def _list_files(file_system: fs.FileSystem, request: dict[str, Any], out: IO[bytes]) -> None:
    """Send the name in the bucket of the file, or of all files below the folder."""
    from pyarrow import fs

    root = f"{request['bucket']}/{request['path']}".rstrip("/")
    info = file_system.get_file_info(root)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(root)
    is_file = info.type == fs.FileType.File
    found = [info] if is_file else file_system.get_file_info(fs.FileSelector(root, recursive=True))
    start = len(request["bucket"]) + 1
    files = [entry.path[start:] for entry in found if entry.type == fs.FileType.File]
    _send(out, b"J", json.dumps({"is_file": is_file, "files": files}).encode())


def _read_file(file_system: fs.FileSystem, request: dict[str, Any], out: IO[bytes]) -> None:
    """Send the bytes of an object, from the offset if it is still the known one."""
    path = f"{request['bucket']}/{request['path']}"
    with file_system.open_input_file(path) as file:
        found = _properties(file)
        known = (request.get("known_size"), request.get("known_etag"))
        start = request["offset"] if request["any_version"] or known == (found["size"], found["etag"]) else 0
        end = min(found["size"], request["end"] or found["size"])
        _send(out, b"J", json.dumps(found | {"start": start}).encode())
        for block in _blocks(file.read_at, start, end):
            _send(out, b"D", block)
    if request["store"] == "gs":
        return  # Its reads name the generation, and each opening of a file starts a download of the whole.
    with file_system.open_input_file(path) as file:
        if _properties(file) != found:
            raise _Changed


class _Changed(Exception):
    """The object was replaced while it was read."""


def _blocks(read_at: Callable[[int, int], bytes], start: int, end: int) -> Iterator[bytes]:
    size = MIN_BLOCK
    while start < end:
        began = time.monotonic()
        block = read_at(min(size, end - start), start)
        if not block:
            raise _Changed
        yield block
        start += len(block)
        seconds = time.monotonic() - began
        if seconds < QUICK_SECONDS:
            size = min(size * 2, MAX_BLOCK)
        elif seconds > SLOW_SECONDS:
            size = max(size // 2, MIN_BLOCK)


def _properties(file: Any) -> dict[str, Any]:
    """Return size, version and time of an object; stores name them differently."""
    metadata = {key.lower(): _text(value) for key, value in (file.metadata() or {}).items()}
    etag = metadata.get("generation") or metadata.get("versionid") or metadata.get("etag", "")
    modified = metadata.get("last-modified") or metadata.get("updated", "")
    return {"size": file.size(), "etag": etag, "last_modified": modified}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _describe(error: Exception) -> dict[str, str]:
    """Return kind and text of an error; pyarrow has only texts for most."""
    text = " ".join(str(error).split())
    if isinstance(error, _Changed):
        return {"kind": "changed", "text": ""}
    if isinstance(error, BadInput):
        return {"kind": "invalid", "text": error.message, "fix": error.fix}
    if isinstance(error, FileNotFoundError):
        return {"kind": "missing", "text": text}
    for kind, pattern in (("denied", _DENIED), ("missing", _MISSING)):
        if pattern.search(text):
            return {"kind": kind, "text": text}
    return {"kind": "transient", "text": text or type(error).__name__}


def _send(out: IO[bytes], kind: bytes, payload: bytes) -> None:
    out.write(HEADER.pack(kind, len(payload)))
    out.write(payload)
    out.flush()


if __name__ == "__main__":
    main()
