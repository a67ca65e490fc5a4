"""Download of one blob (distribution-spec, "Pulling blobs"): resumed by ranges, and verified by its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import requests

from steps.oci.oci_layout import Blob
from steps.runtime import files
from steps.runtime.errors import TransientError
from steps.runtime.http_body import iter_body

PARTIAL = 206
_CHUNK = 1 << 20
Get = Callable[[Mapping[str, str]], AbstractContextManager[requests.Response]]
"""Requests the blob with additional headers."""


class DigestMismatch(Exception):
    """The received bytes are not those of the blob."""


class Download:
    """Download of a blob to a file, which exists only if digest and size match.

    Until then the bytes are in ``NAME.partial``; a later attempt, also of another process, requests the rest.
    """

    def __init__(self, blob: Blob, path: Path) -> None:
        self._blob, self._path = blob, path
        self._partial = path.with_name(f"{path.name}.partial")

    @property
    def bytes_received(self) -> int:
        """Number of bytes on disk."""
        return self._partial.stat().st_size if self._partial.is_file() else 0

    def run(self, get: Get) -> None:
        """Request the missing bytes, once.

        Raises:
            DigestMismatch: the content differs.
            TransientError: the content of a resumed download differs; the next attempt starts from the beginning.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        have = self.bytes_received
        if have >= self._blob.size:
            have = 0
        with get({"Range": f"bytes={have}-"} if have else {}) as response:
            # A registry without ranges sends the whole blob.
            start = have if response.status_code == PARTIAL else 0
            self._write(response, start)
        self._finish()

    def _write(self, response: requests.Response, start: int) -> None:
        algorithm = self._blob.digest.partition(":")[0]
        digest = hashlib.new(algorithm)
        with self._partial.open("r+b" if start else "wb") as file:
            for part in _read(file, start):
                digest.update(part)
            length = file.tell()
            for data in iter_body(response):
                length += len(data)
                if length > self._blob.size:
                    break
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if length != self._blob.size or f"{algorithm}:{digest.hexdigest()}" != self._blob.digest:
            self._partial.unlink()
            if start:
                raise TransientError("the resumed blob does not match its digest")
            raise DigestMismatch

    def _finish(self) -> None:
        os.replace(self._partial, self._path)
        files.sync_folder(self._path.parent)


def _read(file: IO[bytes], count: int) -> Iterator[bytes]:
    """Yield the first bytes of a file, and leave it positioned after them."""
    while count:
        part = file.read(min(count, _CHUNK))
        if not part:
            return
        count -= len(part)
        yield part
