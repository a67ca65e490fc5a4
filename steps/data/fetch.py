"""Concurrent downloads of the files of several locations, atomic and cached."""

from __future__ import annotations

import concurrent.futures
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from steps.data.formats.folders import describe_ignored
from steps.data.locations.find import find_files
from steps.data.locations.http_file import HttpFile
from steps.data.locations.location import InvalidLocation, Location, parse
from steps.data.locations.object_store import ObjectReaders
from steps.data.locations.remote_file import RemoteFile
from steps.data.transfer import RETRY, DownloadedFile, ProgressMeter, Stopped, Target, Transfer, state_path
from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import Sleep, retry_call
from steps.runtime.signatures import without_signatures

T = TypeVar("T")
MAX_CONNECTIONS = 4


def fetch_all(
    urls: Sequence[str],
    folder: Path,
    *,
    allow_private_hosts: bool = False,
    pattern: str = "",
    wait: Sleep | None = None,
) -> list[DownloadedFile]:
    """Download the files of every location into ``folder`` and return them in the order of ``urls``.

    ``pattern`` selects among the files of folders. Existing files are reused, partial ones resumed. A failure stops
    the other downloads after their first bytes, so that all failures are reported together; partial files are kept.

    Raises:
        BadInput: permanent errors of locations, responses or the disk; lists all failed downloads.
        StepError: unreachable or slow servers.
    """
    with find_targets(urls, folder, allow_private_hosts=allow_private_hosts, pattern=pattern, wait=wait) as found:
        return found.download(found.targets)


@dataclass(frozen=True)
class Targets:
    """Files of locations, and the threads that download them."""

    targets: list[Target]
    pool: concurrent.futures.ThreadPoolExecutor
    wait: Sleep | None

    def download(self, targets: Sequence[Target]) -> list[DownloadedFile]:
        """Download some of the files; errors are those of ``fetch_all``."""
        stop = threading.Event()
        meter = ProgressMeter(target.shown for target in targets)
        sleep = stop.wait if self.wait is None else self.wait
        futures = [self.pool.submit(Transfer(target, meter, stop, sleep).run) for target in targets]
        try:
            return _collect(futures)
        except BaseException:
            stop.set()
            raise


@contextmanager
def find_targets(
    urls: Sequence[str],
    folder: Path,
    *,
    allow_private_hosts: bool = False,
    pattern: str = "",
    max_files: int | None = None,
    wait: Sleep | None = None,
) -> Iterator[Targets]:
    """Provide the files of every location, at most ``max_files`` of each."""
    locations = _parse_locations(urls)
    with ObjectReaders() as readers, concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        searches = [
            pool.submit(_find, location, readers, allow_private_hosts, pattern, wait or time.sleep)
            for location, _ in locations
        ]
        found = [remote_files[:max_files] for remote_files in _collect(searches)]
        folder.mkdir(parents=True, exist_ok=True)
        yield Targets(_to_targets(locations, found, folder), pool, wait)


def delete_downloads(paths: Iterable[Path]) -> None:
    """Delete finished files and their state, so that they are downloaded again."""
    for path in paths:
        for file in (path, state_path(path)):
            file.unlink(missing_ok=True)


def _parse_locations(urls: Sequence[str]) -> list[tuple[Location, str]]:
    errors: list[str] = []
    locations: dict[Location, str] = {}
    for text in urls:
        try:
            location, digest = parse(text)
        except InvalidLocation as error:
            errors.append(f"{hosts.shown(text)}: {error}")
            continue
        if location in locations:
            errors.append(f"{hosts.shown(text)}: duplicate URL")
        locations[location] = digest
    if errors:
        raise BadInput("\n  ".join(["invalid URLs:", *errors]), "correct these URLs")
    return list(locations.items())


def _find(
    location: Location, readers: ObjectReaders, allow_private: bool, pattern: str, wait: Sleep
) -> list[RemoteFile]:
    try:
        found = retry_call(lambda: find_files(location, readers, allow_private, pattern), RETRY.in_pod(), sleep=wait)
    except TransientError as error:
        raise StepError(f"{location.shown}: {error.message}", "check that the server is up and reachable") from error
    for line in describe_ignored(found.ignored, found.partitions):
        print(f"{location.shown}: {line}", flush=True)
    return found.files


def _to_targets(
    locations: Sequence[tuple[Location, str]], found: Sequence[list[RemoteFile]], folder: Path
) -> list[Target]:
    """Return the files with their destinations."""
    targets = []
    for (location, digest), remote_files in zip(locations, found, strict=True):
        if digest and len(remote_files) != 1:
            message = f"{location.shown}: a checksum needs one file, not {len(remote_files)}"
            raise BadInput(message, "remove #sha256=")
        targets += [Target(file, digest, folder / _file_name(file)) for file in remote_files]
    return _reject_duplicates(targets)


def _file_name(file: RemoteFile) -> str:
    """Return a name that begins with a digest of the URL, since base names are often equal ("0000.parquet").

    A renewed signature does not change it, so that the download is found again.
    """
    key = without_signatures(file.url) if isinstance(file, HttpFile) else file.shown
    path = urlsplit(key).path if isinstance(file, HttpFile) else key
    base = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(path.rpartition("/")[2]))[-100:]
    return f"{hashlib.sha256(key.encode()).hexdigest()[:12]}-{base or 'file'}"


def _reject_duplicates(targets: Sequence[Target]) -> list[Target]:
    unique = {target.path: target for target in targets}
    if len(unique) < len(targets):
        counts = Counter(target.path for target in targets)
        twice = dict.fromkeys(target.shown for target in targets if counts[target.path] > 1)
        raise BadInput(f"several locations name {', '.join(list(twice)[:5])}", "use locations that do not overlap")
    return list(unique.values())


def _collect(futures: Sequence[concurrent.futures.Future[T]]) -> list[T]:
    """Wait for all; return the results, or raise the errors together."""
    concurrent.futures.wait(futures)
    _raise_all([error for future in futures if (error := future.exception()) and not isinstance(error, Stopped)])
    return [future.result() for future in futures]


def _raise_all(errors: Sequence[BaseException]) -> None:
    for error in errors:
        if not isinstance(error, StepError):
            raise error
    step_errors = [error for error in errors if isinstance(error, StepError)]
    if len(step_errors) == 1:
        raise step_errors[0]
    if step_errors:
        # A permanent error takes precedence, so that the workflow does not retry in vain.
        kind = BadInput if any(isinstance(error, BadInput) for error in step_errors) else StepError
        message = "\n  ".join([f"{len(step_errors)} downloads failed:", *(error.message for error in step_errors)])
        raise kind(message, "; ".join(dict.fromkeys(error.fix for error in step_errors if error.fix)))
