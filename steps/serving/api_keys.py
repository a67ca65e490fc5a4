"""API keys of clients: a folder with a file for each key, such as a mounted Secret.

The file's name identifies the key, its content is the key (``Authorization: Bearer KEY``). The folder is read again
when it changes: keys are rotated without a restart. Only digests of keys are kept in memory, and no key is logged.
Standard library only: steps and servers read it, also without our packages.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER_VARIABLE = "ARGOTUNE_API_KEYS"
"""Environment variable with the folder of the keys: of a server, and of the steps that send requests to it."""
CLIENT_VARIABLE = "ARGOTUNE_API_KEY"
"""Environment variable of a client with its key."""
OWN_ENTRY = "argotune"
"""Entry that the steps of a run use, if there is one; else the first."""
MIN_LENGTH, MAX_LENGTH = 16, 1024
MAX_FILE_BYTES = 4096
_KEY = re.compile(r"[!-~]+")  # visible ASCII, as a header can carry it


class ApiKeys:
    """The keys in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version: object = None
        self._digests: dict[str, bytes] = {}

    def find(self, key: str) -> str:
        """Return the name of a key, or "" if it is unknown; the time does not depend on how much of a key matches."""
        self._refresh()
        digest, found = _digest(key), ""
        for name, expected in self._digests.items():
            if hmac.compare_digest(digest, expected):
                found = name
        return found

    def _refresh(self) -> None:
        version = _folder_version(self.folder)
        if version == self._version:
            return
        digests = {}
        for name, text in _read_entries(self.folder):
            if problem := key_problem(text):
                print(f"API key {name} is ignored: {problem}", flush=True)
            else:
                digests[name] = _digest(text)
        print(f"API keys of {self.folder}: {', '.join(digests) or 'none, so every request is rejected'}", flush=True)
        self._version, self._digests = version, digests


def read_client_key(folder: str | Path) -> str:
    """Return the key of a folder that the steps of a run use; "" if it has no valid one."""
    valid = {name: text for name, text in _read_entries(Path(folder)) if not key_problem(text)} if folder else {}
    return valid.get(OWN_ENTRY) or next(iter(valid.values()), "")


def read_key_file(file: Path) -> str:
    """Return the key in a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It has no valid key.
    """
    text = _read_text(file)
    if problem := key_problem(text):
        raise ValueError(problem)
    return text


def creation_fix(secret: str, namespace: str = "") -> str:
    """Return how to create the Secret, as the fix of an error."""
    name = f"{secret} --namespace {namespace}" if namespace else secret
    return (
        f'kubectl create secret generic {name} --from-literal=NAME="$(openssl rand -hex 24)" (local runs: pass a '
        f"directory with a file for each key: --volume {secret}=DIRECTORY)"
    )


def key_problem(key: str) -> str:
    """Return why a text is not a valid key, or ""."""
    if not key:
        return "it is empty"
    if len(key) < MIN_LENGTH:
        return f"it is shorter than {MIN_LENGTH} characters"
    if len(key) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    return "" if _KEY.fullmatch(key) else "it is not one line of visible ASCII characters"


def _folder_version(folder: Path) -> object:
    """Return a value that changes with the files; a mounted Secret is replaced as a whole, by a symbolic link."""
    versions = []
    for path in _entries(folder):
        try:
            status = path.stat()
        except OSError:
            continue
        versions.append((path.name, status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size))
    return tuple(versions)


def _entries(folder: Path) -> list[Path]:
    """Return the files of a folder by name; hidden ones are those of a mounted Secret's versions."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError:
        return []


def _read_entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path in _entries(folder):
        try:
            yield path.name, _read_text(path)
        except OSError:  # removed meanwhile
            continue


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode("latin-1").strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
