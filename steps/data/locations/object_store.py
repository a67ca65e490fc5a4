"""Files of object stores, read by processes that are killed when a transfer stalls."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import requests

from steps.data.locations import azure, gcs, object_reader, s3
from steps.data.locations.guarded_proxy import GuardedProxy
from steps.data.locations.location import ObjectLocation
from steps.data.locations.remote_file import Content, FileChanged, FileState
from steps.runtime import hosts, speed
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.redaction import redact

RESPONSE_SECONDS = 120.0
"""Time from a request to its first frame: credentials, and pyarrow's own retries."""


@dataclass
class ObjectReaders:
    """Pool of reader processes, which end with it."""

    _idle: list[_Reader] = field(default_factory=list)
    _proxies: dict[bool, GuardedProxy] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> ObjectReaders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        while self._idle:
            self._idle.pop().close()
        while self._proxies:
            self._proxies.popitem()[1].close()

    @contextmanager
    def reader(self) -> Iterator[_Reader]:
        """Provide a process; one whose response was not read to its end is killed."""
        with self._lock:
            reader = self._idle.pop() if self._idle else _Reader()
        try:
            yield reader
        finally:
            if reader.is_idle:
                with self._lock:
                    self._idle.append(reader)
            else:
                reader.close()

    def proxy(self, location: ObjectLocation, allow_private: bool) -> GuardedProxy | None:
        """Return the proxy to the location's endpoint; None for a cloud's own, or if the environment sets a proxy."""
        custom = _custom_endpoint(location)
        if not custom or requests.utils.get_environ_proxies(custom):
            return None
        with self._lock:
            if allow_private not in self._proxies:
                self._proxies[allow_private] = GuardedProxy(allow_private)
            return self._proxies[allow_private]


@dataclass(frozen=True)
class ObjectFile:
    """An object; ``location.path`` is its whole name."""

    location: ObjectLocation
    readers: ObjectReaders
    allow_private: bool = False

    @property
    def shown(self) -> str:
        """URL of the object."""
        return self.location.shown

    def read_range(self, start: int, end: int) -> tuple[bytes, int | None]:
        """Return a part of the object, and its size; see ``RemoteFile``."""
        parts = []
        with self._request({"offset": start, "end": end, "any_version": True}) as content:
            while part := content.read():
                parts.append(part)
        return b"".join(parts), content.size

    def read_state(self) -> FileState:
        """Return the properties of the object, by reading its first byte; errors are those of ``open``."""
        with self._request({"offset": 0, "end": 1, "any_version": True}) as content:
            while content.read():
                pass
        return FileState(content.size, content.etag, content.last_modified)

    @contextmanager
    def open(self, offset: int, known: FileState) -> Iterator[Content]:
        """Read the bytes from ``offset`` on; see ``RemoteFile``."""
        request = {"offset": offset, "end": 0, "any_version": False}
        with self._request(request | {"known_size": known.size, "known_etag": known.etag}) as content:
            yield content

    @contextmanager
    def _request(self, options: dict[str, Any]) -> Iterator[Content]:
        _check_endpoint(self.location, self.allow_private)
        proxy = self.readers.proxy(self.location, self.allow_private)
        request = _request(self.location, "read", proxy) | options
        with self.readers.reader() as reader, _described_errors(self.location, proxy):
            reader.send(request)
            found = reader.receive_json()
            guard = speed.SpeedGuard(speed.MIN_SPEED)
            yield Content(
                found["start"],
                found["size"],
                found["etag"],
                found["last_modified"],
                lambda: reader.receive_data(guard),
            )


def list_files(location: ObjectLocation, readers: ObjectReaders, allow_private: bool) -> tuple[bool, list[str]]:
    """Return True if the location is one file, and the names of its files in the bucket.

    Raises:
        BadInput: nothing there, no access, or an endpoint that must not be requested.
        TransientError: the store is unreachable.
    """
    _check_endpoint(location, allow_private)
    proxy = readers.proxy(location, allow_private)
    with readers.reader() as reader, _described_errors(location, proxy):
        reader.send(_request(location, "list", proxy))
        found = reader.receive_json()
        reader.receive_data(speed.SpeedGuard(speed.MIN_SPEED))
    return found["is_file"], list(found["files"])


def _request(location: ObjectLocation, action: str, proxy: GuardedProxy | None) -> dict[str, Any]:
    return {
        "action": action,
        "store": location.store,
        "bucket": location.bucket,
        "path": location.path,
        "account": location.account,
        "account_domain": location.account_domain,
        "proxy_port": proxy.server_port if proxy else 0,
    }


def _custom_endpoint(location: ObjectLocation) -> str:
    if location.store == "az":
        return azure.custom_endpoint(location.account)
    return s3.custom_endpoint() if location.store == "s3" else gcs.custom_endpoint()


def _check_endpoint(location: ObjectLocation, allow_private: bool) -> None:
    if location.store == "az":
        url = azure.endpoint(location.account, location.account_domain)
    else:
        url = s3.endpoint() if location.store == "s3" else gcs.endpoint()
    try:
        hosts.check(url, allow_private=allow_private)
    except BadInput as error:
        raise BadInput(f"{location.shown}: {error.message}", error.fix) from error
    except OSError as error:
        raise TransientError(f"the host of {hosts.shown(url)} does not resolve") from error


class _ReaderError(Exception):
    """An error that the process reported."""

    def __init__(self, kind: str, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.fix = kind, text, fix


@contextmanager
def _described_errors(location: ObjectLocation, proxy: GuardedProxy | None) -> Iterator[None]:
    try:
        yield
    except _ReaderError as error:
        if proxy and (refusal := proxy.refusal):
            raise BadInput(f"{location.shown}: {refusal.message}", refusal.fix) from error
        raise _describe(location, error) from error


def _describe(location: ObjectLocation, error: _ReaderError) -> StepError:
    reason = textwrap.shorten(str(redact(error.text)), 300)
    if error.kind == "changed":
        return FileChanged()
    if error.kind == "invalid":
        return BadInput(f"{location.shown}: {reason}", error.fix)
    if error.kind == "missing":
        return BadInput(f"{location.shown}: not found", "correct the location: bucket, path and account")
    if error.kind == "denied":
        fixes = {"s3": s3.ACCESS_FIX, "gs": gcs.ACCESS_FIX, "az": azure.ACCESS_FIX}
        return BadInput(f"{location.shown}: no access ({reason})", fixes[location.store])
    return TransientError(reason)


class _Reader:
    """A process of ``object_reader.py``."""

    def __init__(self) -> None:
        self.is_idle = True
        self._process = subprocess.Popen(
            [sys.executable, "-m", object_reader.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def send(self, request: dict[str, Any]) -> None:
        """Send a request; its response must be received to the end."""
        self.is_idle = False
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError as error:
            raise TransientError("the reader of the object store was killed") from error

    def receive_json(self) -> dict[str, Any]:
        """Return the first frame of a response."""
        content: dict[str, Any] = json.loads(self._receive(_Deadline(RESPONSE_SECONDS)) or b"{}")
        return content

    def receive_data(self, guard: speed.SpeedGuard) -> bytes:
        """Return the payload of the next frame; none at the end of the response."""
        return self._receive(guard)

    def _receive(self, guard: speed.SpeedGuard | _Deadline) -> bytes:
        kind, length = object_reader.HEADER.unpack(self._read(object_reader.HEADER.size, guard))
        payload = self._read(length, guard)
        self.is_idle = kind in b"ZE"
        if kind == b"E":
            raise _ReaderError(**json.loads(payload))
        return payload

    def _read(self, count: int, guard: speed.SpeedGuard | _Deadline) -> bytes:
        assert self._process.stdout
        parts = []
        while count:
            if not select.select([self._process.stdout], [], [], guard.remaining_seconds())[0]:
                guard.add(0)
                continue
            part = os.read(self._process.stdout.fileno(), min(count, 1 << 20))
            if not part:
                raise TransientError("the reader of the object store ended")
            guard.add(len(part))
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class _Deadline:
    """Limit of the time to a response, with the interface of ``SpeedGuard``."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining_seconds(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._end - time.monotonic())

    def add(self, count: int) -> None:
        """Raise TransientError if nothing arrived in time."""
        if not count and self.remaining_seconds() <= 0:
            raise TransientError("the object store timed out")
