"""Download of one remote file: resumed, retried, verified and atomic.

A file ``NAME`` is finished when its bytes have the digest recorded in ``NAME.state.json``. Until then its bytes are in
``NAME.partial``, and the state has the validators (RFC 9110, 13.1.5) that detect a changed file, so that a later
attempt requests only the remaining bytes.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from steps.data.locations.remote_file import Content, FileChanged, FileState, RemoteFile
from steps.runtime import files, progress, speed
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.json_text import parse_json
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_call

RETRY = RetryPolicy(max_attempts=5, max_retry_after_seconds=300.0)


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
    """Remote file to download, and destination."""

    file: RemoteFile
    digest: str
    """Expected ``sha256:<hex>``; empty if unknown."""
    path: Path

    @property
    def shown(self) -> str:
        """Redacted URL for output."""
        return self.file.shown

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


class Transfer:
    """Download of one file. ``stop`` cancels it, and is set on failure; ``wait`` sleeps between attempts."""

    def __init__(self, target: Target, meter: ProgressMeter, stop: threading.Event, wait: Sleep) -> None:
        self._target = target
        self._meter = meter
        self._stop = stop
        self._wait = wait
        self._state = FileState()

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
            self._download_with_retries()
            finished = self._finish()
            seconds = max(time.monotonic() - start, 0.001)
            rate = f"{(finished.size - resumed_from) / 1e6 / seconds:.1f} MB/s"
            resumed = f", resumed at {_megabytes(resumed_from)}" if resumed_from else ""
            print(f"{name}: {_megabytes(finished.size)} in {seconds:.1f} s ({rate}{resumed})", flush=True)
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

    def _download_with_retries(self) -> None:
        policy = RETRY.in_pod()
        try:
            retry_call(
                self._transfer,
                policy,
                retry_if=_is_worth_waiting,
                # In units of the minimum, so that a server that sends a byte per second is given up.
                progress=lambda: self._resumable_bytes() // speed.MIN_SPEED.min_bytes,
                log=lambda line: print(f"{self._target.shown}: {line}", flush=True),
                sleep=self._pause,
            )
        except TransientError as error:
            reason = f"{policy.max_attempts} consecutive attempts made no progress"
            if not _is_worth_waiting(error):
                reason = f"the server requests a wait of {error.retry_after:g} s"
            fix = "check that the server is up and reachable; the next attempt resumes the download"
            raise StepError(f"{self._target.shown}: {error.message}; {reason}", fix) from error

    def _pause(self, seconds: float) -> None:
        if self._stop.is_set():
            raise Stopped
        self._wait(seconds)

    def _transfer(self) -> None:
        """Request the missing bytes and append them."""
        try:
            with self._target.file.open(self._resumable_bytes(), self._state) as content:
                self._append(content, self._begin(content))
        except FileChanged:
            self._discard()
            raise
        size, have = self._state.size, self._target.partial.stat().st_size
        if size is not None and have != size:
            raise TransientError(f"the connection ended after {have} of {size} bytes")

    def _begin(self, content: Content) -> int:
        """Check that content belongs to the file, record its properties, and return the offset of its first byte."""
        if content.start and (content.start != self._resumable_bytes() or not self._state.is_same(content)):
            raise FileChanged
        if not content.start:
            self._discard()
        self._state = FileState()
        if content.resumable:
            self._state = FileState(content.size, content.etag, content.last_modified)
        if (content.size or 0) - content.start > shutil.disk_usage(self._target.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files.write_json(self._target.state, dataclasses.asdict(self._state))
        return content.start

    def _append(self, content: Content, have: int) -> None:
        with self._target.partial.open("r+b" if have else "wb", buffering=0) as file:
            file.seek(have)
            while chunk := content.read():
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
        self._state = FileState()

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


def _is_worth_waiting(error: Exception) -> bool:
    """Return False if the server requests a longer wait than the step takes; a retry of the step comes later."""
    return is_transient(error) and (getattr(error, "retry_after", None) or 0) <= RETRY.max_retry_after_seconds


def _read_state(path: Path) -> FileState:
    try:
        return FileState(**parse_json(path.read_text()))
    except (OSError, ValueError, TypeError):
        return FileState()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
