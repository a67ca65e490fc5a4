"""Atomic files (temporary file, fsync, rename), and digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

_TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.partial", re.DOTALL)
_cleaned: set[Path] = set()
"""Folders without temporary files of earlier processes."""


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing so that readers see either the old or the complete new file.

    The content is synced to disk before the rename. On an error, the old file stays and no temporary file remains; the
    temporary files of killed writers are deleted by the next process that writes into the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.partial")
    try:
        with _open_locked(temporary, private=private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # write and fsync do not say which file
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``folder`` when the block ends without an error.

    On an error, the old folder stays. A kill between the two renames leaves no ``folder``: the step creates it again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    for path in (temporary, old):
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            os.rename(folder, old)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` as UTF-8 to ``path``, atomically."""
    with replacing(path, private=private) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write ``value`` as indented, key-sorted JSON to ``path``, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", private=private)


def _open_locked(path: Path, *, private: bool) -> IO[bytes]:
    """Open a new file, with a lock that shows that its writer is alive where the file system has locks."""
    while True:
        file = open(path, "wb", opener=_open_private if private else None)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a process is deleting it as abandoned
            file.close()
            continue
        except OSError:
            return file
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _delete_abandoned(folder: Path) -> None:
    """Delete the temporary files of killed writers, once per process and folder."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if _TEMPORARY.fullmatch(entry.name)]:
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Sync the renames inside ``folder`` to disk; do nothing if folders cannot be synced (SMB, some FUSE)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_safe_path(path: PurePosixPath) -> bool:
    """Return True if a relative path stays inside its directory and a file can have it."""
    is_inside = not path.is_absolute() and ".." not in path.parts
    return is_inside and all("\0" not in part and len(os.fsencode(part)) <= 255 for part in path.parts)


def sha256(path: Path) -> str:
    """Return the digest of a file in OCI form, ``sha256:<64 hex digits>``."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def sha256_text(text: str) -> str:
    """Return the digest of a text, encoded as UTF-8, in OCI form."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
