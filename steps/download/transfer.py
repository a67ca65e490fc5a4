"""One file on its way over HTTP: resumed, tried again, checked, whole or not there.

A file ``NAME`` is finished when its bytes have the digest that ``NAME.state.json`` records. Until then its bytes are
in ``NAME.partial``, and the state keeps what tells whether the server's file is still the same (RFC 9110, 13.1.5), so
that a later try asks for the rest alone.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError, IncompleteRead

from steps.runtime import files, hosts, progress
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

RETRY = RetryPolicy(max_attempts=5, max_retry_after_seconds=300.0)
TIMEOUTS = (15, 60)  # seconds to connect, and between bytes
CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class DownloadedFile:
    """A finished file, and where it came from."""

    url: str
    """Address as it may be printed: see ``hosts.shown``."""
    path: Path
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Target:
    """What to fetch, and where to."""

    url: str
    digest: str
    """``sha256:<hex>`` that the file must have; empty where none was given."""
    path: Path

    @property
    def shown(self) -> str:
        """Address as it may be printed."""
        return hosts.shown(self.url)

    @property
    def partial(self) -> Path:
        """Where the bytes are until all are here."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def state(self) -> Path:
        """See ``state_of``."""
        return state_of(self.path)


def state_of(path: Path) -> Path:
    """Where it is recorded which file of the server a file is."""
    return path.with_name(f"{path.name}.state.json")


class Stopped(Exception):
    """Another download failed; this one keeps what it has."""


class ProgressMeter:
    """How far several downloads are, in bytes; told to Argo once all sizes are known."""

    def __init__(self, names: Iterable[str]) -> None:
        self._sizes: dict[str, int | None] = dict.fromkeys(names)
        self._have = dict.fromkeys(self._sizes, 0)
        self._lock = threading.Lock()
        self._told = 0.0

    def at(self, name: str, have: int, size: int | None) -> None:
        """Tell that ``have`` of the ``size`` bytes of a file are here."""
        with self._lock:
            self._have[name], self._sizes[name] = have, size
            sizes = [known for known in self._sizes.values() if known is not None]
            done, total, now = sum(self._have.values()), sum(sizes), time.monotonic()
            if len(sizes) == len(self._sizes) and (done == total or now - self._told > 1):
                progress.report(done, total)
                self._told = now


@dataclasses.dataclass
class _State:
    """What is known of the server's file; ``sha256`` once all of it is here."""

    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    sha256: str = ""

    @property
    def validator(self) -> str:
        """For If-Range, which takes no weak entity tag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def is_same(self, size: int | None, etag: str, last_modified: str) -> bool:
        """Whether a part that a server sends belongs to this file; some servers take no notice of If-Range."""
        return (size, etag, last_modified or self.last_modified) == (self.size, self.etag, self.last_modified)


class Transfer:
    """One file on its way. ``stop`` ends it, and is set when it fails; ``wait`` passes the time between tries."""

    def __init__(
        self, target: Target, meter: ProgressMeter, stop: threading.Event, wait: Sleep, allow_private: bool
    ) -> None:
        self._target = target
        self._meter = meter
        self._stop = stop
        self._wait = wait
        self._allow_private = allow_private
        self._state = _State()

    def run(self) -> DownloadedFile:
        """Bring the file here, or find it here.

        Raises:
            BadInput: the address, the server's answer, the file's digest, or no space left.
            StepError: the server could not be reached or did not keep up.
            Stopped: another download failed.
        """
        name = self._target.shown
        try:
            self._state = _read_state(self._target.state)
            finished = self._already_here()
            if finished:
                self._meter.at(name, finished.size, finished.size)
                print(f"{name}: already here, {_megabytes(finished.size)}", flush=True)
                return finished
            began, had = time.monotonic(), self._have()
            with hosts.session(allow_private=self._allow_private) as session:
                self._until_complete(session)
            finished = self._finish()
            seconds = max(time.monotonic() - began, 0.001)
            speed = f"{(finished.size - had) / 1e6 / seconds:.1f} MB/s"
            resumed = f", resumed at {_megabytes(had)}" if had else ""
            print(f"{name}: {_megabytes(finished.size)} in {seconds:.1f} s ({speed}{resumed})", flush=True)
            return finished
        except BaseException as error:
            self._stop.set()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space() from error
            raise

    def _already_here(self) -> DownloadedFile | None:
        """The finished file; also one that was complete when the step was killed just before its renaming."""
        digest = self._state.sha256
        if not digest or (self._target.digest and self._target.digest != digest):
            return None
        for path in (self._target.path, self._target.partial):
            if path.is_file() and files.sha256(path) == digest:
                os.replace(path, self._target.path)
                return DownloadedFile(self._target.shown, self._target.path, self._target.path.stat().st_size, digest)
        return None

    def _have(self) -> int:
        """Bytes that need not be fetched again."""
        if not self._state.validator or not self._target.partial.is_file():
            return 0
        have = self._target.partial.stat().st_size
        return have if self._state.size is None or have <= self._state.size else 0

    def _until_complete(self, session: requests.Session) -> None:
        try:
            retry_call(
                lambda: self._transfer(session),
                RETRY,
                retry_if=_is_worth_waiting,
                progress=self._have,
                log=lambda line: print(f"{self._target.shown}: {line}", flush=True),
                sleep=self._pause,
            )
        except TransientError as error:
            why = f"{RETRY.max_attempts} attempts in a row brought nothing new"
            if not _is_worth_waiting(error):
                why = f"the server asks to wait {error.retry_after:g} s"
            fix = "check that the server is up and reachable from here; the next attempt keeps what has arrived"
            raise StepError(f"{self._target.shown}: {error.message}; {why}", fix) from error

    def _pause(self, seconds: float) -> None:
        if self._stop.is_set():
            raise Stopped
        self._wait(seconds)

    def _transfer(self, session: requests.Session) -> None:
        """Ask for what is missing and append it."""
        have = self._have()
        # Identity, because lengths and ranges of an encoded answer count other bytes than those we keep.
        headers = {"Accept-Encoding": "identity", "User-Agent": "argotune"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._state.validator}
        try:
            url, private = self._target.url, self._allow_private
            with hosts.get(session, url, headers, allow_private=private, timeout=TIMEOUTS) as response:
                if response.status_code == 416 and have and _range(response)[1] == have == self._state.size:
                    return  # Killed after the last byte.
                self._append(response, self._begin(response, have))
        except socket.gaierror as error:
            raise TransientError(f"a host name does not resolve: {error.strerror}") from error
        except (requests.RequestException, HTTPError) as error:
            raise self._interrupted(error) from error
        size, have = self._state.size, self._target.partial.stat().st_size
        if size is not None and have != size:
            raise TransientError(f"the connection ended after {have} of {size} bytes")

    def _begin(self, response: requests.Response, have: int) -> int:
        """Judge an answer, remember what it says of the file, and return where its bytes begin."""
        if response.status_code not in (200, 206):
            raise self._refused(response)
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        start, size = 0, _length(response)
        if response.status_code == 206:
            start, size = _range(response)
            if start != have or not self._state.is_same(size, etag, modified):
                self._discard()
                raise TransientError("the file has changed on the server")
        else:
            self._discard()
        self._state = _State(size, etag, modified)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            self._state = _State()
        if (size or 0) - start > shutil.disk_usage(self._target.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files.write_json(self._target.state, dataclasses.asdict(self._state))
        return start

    def _append(self, response: requests.Response, have: int) -> None:
        with self._target.partial.open("r+b" if have else "wb", buffering=0) as file:
            file.seek(have)
            # read1, because read and iter_content lose what they hold of a chunk when the connection breaks.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                file.write(chunk)
                have += len(chunk)
                self._meter.at(self._target.shown, have, self._state.size)
                if self._stop.is_set():
                    raise Stopped

    def _finish(self) -> DownloadedFile:
        target = self._target
        with target.partial.open("rb") as file:
            os.fsync(file.fileno())
        digest, size = files.sha256(target.partial), target.partial.stat().st_size
        if target.digest and target.digest != digest:
            self._discard()
            raise BadInput(
                f"{target.shown}: the file's digest is {digest}, not {target.digest}",
                "correct the sha256 at the end of the address, or find out why the file is another",
            )
        self._state = dataclasses.replace(self._state, size=size, sha256=digest)
        files.write_json(target.state, dataclasses.asdict(self._state))
        os.replace(target.partial, target.path)
        files.sync_folder(target.path.parent)
        self._meter.at(target.shown, size, size)
        return DownloadedFile(target.shown, target.path, size, digest)

    def _discard(self) -> None:
        for path in (self._target.partial, self._target.state, self._target.path):
            path.unlink(missing_ok=True)
        self._state = _State()

    def _no_space(self) -> BadInput:
        size = self._state.size
        needs = f"it has {_megabytes(size)}, " if size else ""
        self._discard()
        folder = self._target.path.parent
        free = _megabytes(shutil.disk_usage(folder).free)
        return BadInput(
            f"{self._target.shown}: no space left on {folder} ({needs}{free} are free)",
            "free space there, or ask for a larger volume",
        )

    def _refused(self, response: requests.Response) -> Exception:
        status = response.status_code
        said = f"{status} {response.reason or http.client.responses.get(status, '')}".strip()
        if status == 416:
            self._discard()
            return TransientError("the file has changed on the server")
        if status >= 500 or status in (408, 425, 429):
            return TransientError(said, retry_after=retry_after(response))
        return BadInput(f"{self._target.shown}: {said}", hosts.way_in(self._target.url, status))

    def _interrupted(self, error: requests.RequestException | HTTPError) -> Exception:
        causes = list(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return BadInput(
                f"{self._target.shown}: the server's certificate is not trusted here",
                "name the authority's certificate in REQUESTS_CA_BUNDLE",
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return BadInput(f"{self._target.shown}: it is, or leads to, no valid address", "correct the address")
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return TransientError("no answer in time")
        if any(isinstance(cause, IncompleteRead) for cause in causes):
            return TransientError(f"the connection ended early, {self._state.size} bytes were announced")
        system = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
        return TransientError(system[0] if system else f"the connection broke ({type(causes[-1]).__name__})")


def _is_worth_waiting(error: Exception) -> bool:
    """Return False if the server requests a longer wait than the step takes; a retry of the step comes later."""
    return is_transient(error) and (getattr(error, "retry_after", None) or 0) <= RETRY.max_retry_after_seconds


def _read_state(path: Path) -> _State:
    try:
        return _State(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return _State()


def _length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _range(response: requests.Response) -> tuple[int, int | None]:
    """First byte (-1 if none is told) and whole size of a Content-Range (RFC 9110, 14.4)."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1] or -1), None if found[2] == "*" else int(found[2])


def _causes(error: Any) -> Iterable[BaseException]:
    """An error, what urllib3 wrapped in it, and what that came from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
