"""Several files over HTTP at once: whole or not there, and kept when they are there already."""

from __future__ import annotations

import concurrent.futures
import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from steps.download.transfer import DownloadedFile, ProgressMeter, Stopped, Target, Transfer, state_of
from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError
from steps.runtime.retry import Sleep

MAX_CONNECTIONS = 4


def fetch_all(
    urls: Sequence[str], folder: Path, *, allow_private_hosts: bool = False, wait: Sleep | None = None
) -> list[DownloadedFile]:
    """Fetch every address into ``folder`` and return the files in the order of ``urls``.

    What is there already is kept, what is there in part is continued. ``#sha256=<hex>`` at the end of an address is
    the digest its file must have (pip's syntax). One that fails stops the others after their first bytes, so that
    all failures are told at once and no time is spent on the rest; their partial files stay.

    Raises:
        BadInput: an address, its answer or the disk is such that trying again does not help; names all that failed.
        StepError: servers that could not be reached or did not keep up.
    """
    targets = _targets(urls, folder)
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    meter = ProgressMeter(target.shown for target in targets)
    with concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        pause = stop.wait if wait is None else wait
        transfers = [Transfer(target, meter, stop, pause, allow_private_hosts) for target in targets]
        futures = [pool.submit(transfer.run) for transfer in transfers]
        try:
            concurrent.futures.wait(futures)
        except BaseException:
            stop.set()
            raise
    _raise_all([error for future in futures if (error := future.exception()) and not isinstance(error, Stopped)])
    return [future.result() for future in futures]


def forget(fetched: Iterable[Path]) -> None:
    """Remove finished files and what is recorded of them, so that they are fetched again."""
    for path in fetched:
        for file in (path, state_of(path)):
            file.unlink(missing_ok=True)


def _targets(urls: Sequence[str], folder: Path) -> list[Target]:
    wrong: list[str] = []
    targets: dict[str, Target] = {}
    for given in urls:
        try:
            url, fragment = urldefrag(given.strip())
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            wrong.append(f"{hosts.shown(given)}: {error}")
            continue
        digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            wrong.append(f"{hosts.shown(given)}: not an http or https address")
        elif fragment and not digest:
            wrong.append(f"{hosts.shown(given)}: what follows # must be sha256=<64 hex digits>")
        elif url in targets:
            wrong.append(f"{hosts.shown(given)}: given twice")
        else:
            # Equal base names are usual ("0000.parquet"), so the name begins with a digest of the whole address.
            base = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(parts.path.rpartition("/")[2]))[-100:]
            name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{base or 'file'}"
            targets[url] = Target(url, f"sha256:{digest[1].lower()}" if digest else "", folder / name)
    if wrong:
        raise BadInput("\n  ".join(["addresses that cannot be fetched:", *wrong]), "correct these urls")
    return list(targets.values())


def _raise_all(errors: Sequence[BaseException]) -> None:
    for error in errors:
        if not isinstance(error, StepError):
            raise error
    found = [error for error in errors if isinstance(error, StepError)]
    if len(found) == 1:
        raise found[0]
    if found:
        # One that no retry mends decides, or the workflow would repeat what cannot succeed.
        kind = BadInput if any(isinstance(error, BadInput) for error in found) else StepError
        what = "\n  ".join([f"{len(found)} downloads failed:", *(error.message for error in found)])
        raise kind(what, "; ".join(dict.fromkeys(error.fix for error in found if error.fix)))
