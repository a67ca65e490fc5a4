"""HTTP download of one file: resumed, retried, verified and atomic.

A file ``NAME`` is finished when its bytes have the digest recorded in ``NAME.state.json``. Until then its bytes are in
``NAME.partial``, and the state has the validators (RFC 9110, 13.1.5) that detect a changed file, so that a later
attempt requests only the remaining bytes.
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
    """A finished file and its source."""

    url: str
    """Redacted URL for output; see ``hosts.shown``."""
    path: Path
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Target:
    """URL to download, and destination."""

    url: str
    digest: str
    """Expected ``sha256:<hex>``; empty if unknown."""
    path: Path

    @property
    def shown(self) -> str:
        """Redacted URL for output."""
        return hosts.shown(self.url)

    @property
    def partial(self) -> Path:
        """File of an incomplete download."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def state(self) -> Path:
        """File of the download's state."""
        return state_path(self.path)


def state_path(path: Path) -> Path:
    """Return the file that records size, validators and digest of a download."""
    return path.with_name(f"{path.name}.state.json")


class Stopped(Exception):
    """Another download failed; the partial file is kept."""


class ProgressMeter:
    """Total progress of several downloads in bytes, reported to Argo once all sizes are known."""

    def __init__(self, names: Iterable[str]) -> None:
        self._sizes: dict[str, int | None] = dict.fromkeys(names)
        self._have = dict.fromkeys(self._sizes, 0)
        self._lock = threading.Lock()
        self._last_report = 0.0

    def update(self, name: str, have: int, size: int | None) -> None:
        """Record that ``have`` of ``size`` bytes of a file are downloaded."""
        with self._lock:
            self._have[name], self._sizes[name] = have, size
            sizes = [known for known in self._sizes.values() if known is not None]
            done, total, now = sum(self._have.values()), sum(sizes), time.monotonic()
            if len(sizes) == len(self._sizes) and (done == total or now - self._last_report > 1):
                progress.report(done, total)
                self._last_report = now


@dataclasses.dataclass
class _State:
    """Properties of the server's file; ``sha256`` is set after the download."""

    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    sha256: str = ""

    @property
    def validator(self) -> str:
        """Value of If-Range, which accepts no weak entity tag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def is_same(self, size: int | None, etag: str, last_modified: str) -> bool:
        """Return True if a partial response belongs to this file; some servers ignore If-Range."""
        return (size, etag, last_modified or self.last_modified) == (self.size, self.etag, self.last_modified)


class Transfer:
    """Download of one file. ``stop`` cancels it, and is set on failure; ``wait`` sleeps between attempts."""

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
        """Download the file, or return the existing one.

        Raises:
            BadInput: invalid URL, permanent HTTP error, wrong digest, or no space left.
            StepError: the server is unreachable or too slow.
            Stopped: another download failed.
        """
        name = self._target.shown
        try:
            self._state = _read_state(self._target.state)
            finished = self._find_finished()
            if finished:
                self._meter.update(name, finished.size, finished.size)
                print(f"{name}: already downloaded, {_megabytes(finished.size)}", flush=True)
                return finished
            start, resumed_from = time.monotonic(), self._resumable_bytes()
            with hosts.session(allow_private=self._allow_private) as session:
                self._download_with_retries(session)
            finished = self._finish()
            seconds = max(time.monotonic() - start, 0.001)
            speed = f"{(finished.size - resumed_from) / 1e6 / seconds:.1f} MB/s"
            resumed = f", resumed at {_megabytes(resumed_from)}" if resumed_from else ""
            print(f"{name}: {_megabytes(finished.size)} in {seconds:.1f} s ({speed}{resumed})", flush=True)
            return finished
        except BaseException as error:
            self._stop.set()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space() from error
            raise

    def _find_finished(self) -> DownloadedFile | None:
        """Return the finished file, also if the step was killed before renaming it; None if there is none."""
        digest = self._state.sha256
        if not digest or (self._target.digest and self._target.digest != digest):
            return None
        for path in (self._target.path, self._target.partial):
            if path.is_file() and files.sha256(path) == digest:
                os.replace(path, self._target.path)
                return DownloadedFile(self._target.shown, self._target.path, self._target.path.stat().st_size, digest)
        return None

    def _resumable_bytes(self) -> int:
        """Return the number of downloaded bytes that can be resumed from."""
        if not self._state.validator or not self._target.partial.is_file():
            return 0
        have = self._target.partial.stat().st_size
        return have if self._state.size is None or have <= self._state.size else 0

    def _download_with_retries(self, session: requests.Session) -> None:
        try:
            retry_call(
                lambda: self._transfer(session),
                RETRY,
                retry_if=_is_worth_waiting,
                progress=self._resumable_bytes,
                log=lambda line: print(f"{self._target.shown}: {line}", flush=True),
                sleep=self._pause,
            )
        except TransientError as error:
            reason = f"{RETRY.max_attempts} consecutive attempts made no progress"
            if not _is_worth_waiting(error):
                reason = f"the server requests a wait of {error.retry_after:g} s"
            fix = "check that the server is up and reachable; the next attempt resumes the download"
            raise StepError(f"{self._target.shown}: {error.message}; {reason}", fix) from error

    def _pause(self, seconds: float) -> None:
        if self._stop.is_set():
            raise Stopped
        self._wait(seconds)

    def _transfer(self, session: requests.Session) -> None:
        """Request the missing bytes and append them."""
        have = self._resumable_bytes()
        # Identity: lengths and ranges of an encoded response count encoded bytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "argotune"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._state.validator}
        try:
            url, private = self._target.url, self._allow_private
            with hosts.get(session, url, headers, allow_private=private, timeout=TIMEOUTS) as response:
                if response.status_code == 416 and have and _content_range(response)[1] == have == self._state.size:
                    return  # The step was killed after the last byte.
                self._append(response, self._begin(response, have))
        except socket.gaierror as error:
            raise TransientError(f"a host name does not resolve: {error.strerror}") from error
        except (requests.RequestException, HTTPError) as error:
            raise self._connection_error(error) from error
        size, have = self._state.size, self._target.partial.stat().st_size
        if size is not None and have != size:
            raise TransientError(f"the connection ended after {have} of {size} bytes")

    def _begin(self, response: requests.Response, have: int) -> int:
        """Check a response, store the file's properties, and return the offset of its first byte."""
        if response.status_code not in (200, 206):
            raise self._http_error(response)
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        start, size = 0, _content_length(response)
        if response.status_code == 206:
            start, size = _content_range(response)
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
            # read1: read and iter_content lose a partial chunk when the connection breaks.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                file.write(chunk)
                have += len(chunk)
                self._meter.update(self._target.shown, have, self._state.size)
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
                f"{target.shown}: digest is {digest}, expected {target.digest}",
                "correct the sha256 at the end of the URL, or check why the file differs",
            )
        self._state = dataclasses.replace(self._state, size=size, sha256=digest)
        files.write_json(target.state, dataclasses.asdict(self._state))
        os.replace(target.partial, target.path)
        files.sync_folder(target.path.parent)
        self._meter.update(target.shown, size, size)
        return DownloadedFile(target.shown, target.path, size, digest)

    def _discard(self) -> None:
        for path in (self._target.partial, self._target.state, self._target.path):
            path.unlink(missing_ok=True)
        self._state = _State()

    def _no_space(self) -> BadInput:
        size = self._state.size
        needs = f"needs {_megabytes(size)}, " if size else ""
        self._discard()
        folder = self._target.path.parent
        free = _megabytes(shutil.disk_usage(folder).free)
        return BadInput(
            f"{self._target.shown}: no space left on {folder} ({needs}{free} free)",
            "free space, or increase the volume",
        )

    def _http_error(self, response: requests.Response) -> Exception:
        status = response.status_code
        message = f"{status} {response.reason or http.client.responses.get(status, '')}".strip()
        if status == 416:
            self._discard()
            return TransientError("the file has changed on the server")
        if status >= 500 or status in (408, 425, 429):
            return TransientError(message, retry_after=retry_after(response))
        return BadInput(f"{self._target.shown}: {message}", hosts.access_fix(self._target.url, status))

    def _connection_error(self, error: requests.RequestException | HTTPError) -> Exception:
        causes = list(_iter_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return BadInput(
                f"{self._target.shown}: the server's certificate is not trusted",
                "set REQUESTS_CA_BUNDLE to the certificate authority's file",
            )
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return BadInput(f"{self._target.shown}: invalid URL or redirect", "correct the URL")
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return TransientError("the server timed out")
        if any(isinstance(cause, IncompleteRead) for cause in causes):
            return TransientError(f"the connection ended early, expected {self._state.size} bytes")
        system = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
        return TransientError(system[0] if system else f"the connection was lost ({type(causes[-1]).__name__})")


def _is_worth_waiting(error: Exception) -> bool:
    """Return False if the server requests a longer wait than the step takes; a retry of the step comes later."""
    return is_transient(error) and (getattr(error, "retry_after", None) or 0) <= RETRY.max_retry_after_seconds


def _read_state(path: Path) -> _State:
    try:
        return _State(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return _State()


def _content_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Return first byte (-1 if absent) and total size of a Content-Range (RFC 9110, 14.4)."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1] or -1), None if found[2] == "*" else int(found[2])


def _iter_causes(error: Any) -> Iterable[BaseException]:
    """Yield an error, the errors that urllib3 wrapped in it, and their causes."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        cause = pending.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
