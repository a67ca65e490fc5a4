"""Concurrent HTTP downloads of several files, atomic and cached."""

from __future__ import annotations

import concurrent.futures
import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from steps.download.transfer import DownloadedFile, ProgressMeter, Stopped, Target, Transfer, state_path
from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError
from steps.runtime.retry import Sleep

MAX_CONNECTIONS = 4


def fetch_all(
    urls: Sequence[str], folder: Path, *, allow_private_hosts: bool = False, wait: Sleep | None = None
) -> list[DownloadedFile]:
    """Download every URL into ``folder`` and return the files in the order of ``urls``.

    Existing files are reused, partial ones resumed. ``#sha256=<hex>`` at the end of a URL is the expected digest
    (pip's syntax). A failure stops the other downloads after their first bytes, so that all failures are reported
    together; partial files are kept.

    Raises:
        BadInput: permanent errors of URLs, responses or the disk; lists all failed downloads.
        StepError: unreachable or slow servers.
    """
    targets = _parse_urls(urls, folder)
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    meter = ProgressMeter(target.shown for target in targets)
    with concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        sleep = stop.wait if wait is None else wait
        transfers = [Transfer(target, meter, stop, sleep, allow_private_hosts) for target in targets]
        futures = [pool.submit(transfer.run) for transfer in transfers]
        try:
            concurrent.futures.wait(futures)
        except BaseException:
            stop.set()
            raise
    _raise_all([error for future in futures if (error := future.exception()) and not isinstance(error, Stopped)])
    return [future.result() for future in futures]


def delete_downloads(paths: Iterable[Path]) -> None:
    """Delete finished files and their state, so that they are downloaded again."""
    for path in paths:
        for file in (path, state_path(path)):
            file.unlink(missing_ok=True)


def _parse_urls(urls: Sequence[str], folder: Path) -> list[Target]:
    errors: list[str] = []
    targets: dict[str, Target] = {}
    for text in urls:
        try:
            url, fragment = urldefrag(text.strip())
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            errors.append(f"{hosts.shown(text)}: {error}")
            continue
        digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            errors.append(f"{hosts.shown(text)}: not an http or https URL")
        elif fragment and not digest:
            errors.append(f"{hosts.shown(text)}: the fragment must be sha256=<64 hex digits>")
        elif url in targets:
            errors.append(f"{hosts.shown(text)}: duplicate URL")
        else:
            # Base names are often equal ("0000.parquet"), so the name begins with a digest of the URL.
            base = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(parts.path.rpartition("/")[2]))[-100:]
            name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{base or 'file'}"
            targets[url] = Target(url, f"sha256:{digest[1].lower()}" if digest else "", folder / name)
    if errors:
        raise BadInput("\n  ".join(["invalid URLs:", *errors]), "correct these URLs")
    return list(targets.values())


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
