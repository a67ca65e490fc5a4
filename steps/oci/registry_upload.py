"""Resumable upload of one blob in chunks (OCI distribution-spec 1.1, "Pushing a blob in chunks").

After an interruption the registry reports its offset; if it no longer knows the upload, a new one starts. Registries
based on docker's distribution, as most are, lose an interrupted chunk and keep the chunks before it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import requests

from steps.oci.oci_layout import Blob
from steps.oci.registry_errors import TooLarge
from steps.runtime import files
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.json_text import parse_json

ProgressCallback = Callable[[int], None]
"""Receives the number of bytes of the file sent so far."""
CHUNK = 64 * 1024 * 1024
MIN_CHUNK_BYTES = 512 * 1024
"""Below nginx's default body limit, 1 MB."""
UNKNOWN_UPLOAD = (400, 404, 416)
"""HTTP status codes with which registries answer for an unknown upload or a wrong offset."""
_BYTES = {"Content-Type": "application/octet-stream"}


class Repository(Protocol):
    """The requests to one repository of a registry that an upload needs; see ``RegistryClient``."""

    base: str
    name: str

    def has_blob(self, digest: str) -> bool:
        """Return True if the repository has a blob."""

    def location(self, response: requests.Response) -> str:
        """Return the URL where the upload continues."""

    def check_stored(self, response: requests.Response, digest: str) -> None:
        """Compare the digest that the registry reports with the blob's."""

    def call(
        self,
        method: str,
        url: str,
        *,
        expected_status: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | FileSlice | None = None,
    ) -> requests.Response:
        """Send one request."""


@dataclass
class UploadSession:
    """Progress of an upload; ``blob`` and ``repository`` identify it."""

    repository: str
    blob: str
    location: str
    offset: int = 0


class Upload:
    """Upload of the file ``path`` as ``blob``.

    Args:
        repository: where to upload to.
        on_progress: receives the number of bytes sent.
        session_file: file where the upload is recorded, so that another process can resume it.
        mount_from: repository of the same registry that may have the blob already.
    """

    def __init__(
        self,
        repository: Repository,
        blob: Blob,
        path: Path,
        on_progress: ProgressCallback,
        session_file: Path | None,
        mount_from: str,
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._path = path

        self._mount_from = mount_from
        self._on_progress = on_progress
        self._session_file = session_file
        self._session: UploadSession | None = None
        self._chunk = CHUNK
        self._resumed = False
        self._attempted = False
        if path.stat().st_size != blob.size:
            raise digest_mismatch(blob.digest)
        self.bytes_acknowledged = 0
        """Bytes that the registry has acknowledged."""

    def run(self) -> str:
        """Upload the blob in one attempt, which the next call resumes; return ``sent`` or ``mounted`` for the log.

        Raises:
            TransientError: the connection or the upload was lost.
            BadInput, StepError: as for every request to the repository.
        """
        if self._attempted and self._repository.has_blob(self._blob.digest):
            self._clear_session()  # Only the response was lost.
            return "sent"
        if not self._attempted:
            self._session = self._load_session()
        self._attempted = True
        self._session = self._resume() or self._start()
        if self._session is None:
            return "mounted"
        while self._blob.size - self._session.offset > (self._chunk if self._session.offset == 0 else 0):
            self._send_chunk(self._session)
        self._finish(self._session)
        return "sent"

    def _resume(self) -> UploadSession | None:
        """Query the registry for the offset of a started upload; None if it no longer knows the upload."""
        if self._session is None:
            return None
        response = self._repository.call(
            "GET", self._session.location, expected_status=(200, 202, 204, *UNKNOWN_UPLOAD)
        )
        response.close()
        self._resumed = response.status_code not in UNKNOWN_UPLOAD
        if not self._resumed:
            self._clear_session()
            return None
        self._update(self._session, response)
        if self._session.offset:
            print(f"resuming at {self._session.offset / 1e6:.1f} MB", flush=True)
        return self._session

    def _start(self) -> UploadSession | None:
        """Start an upload; None if the registry mounted the blob from the other repository instead."""
        url = f"{self._repository.base}/blobs/uploads/"
        response = self._mount(url) or self._repository.call("POST", url, expected_status=(202,))
        if response.status_code == 201:
            return None
        session = UploadSession(self._repository.name, self._blob.digest, self._repository.location(response))
        # A registry can require larger chunks.
        with suppress(ValueError):
            self._chunk = max(self._chunk, int(response.headers.get("OCI-Chunk-Min-Length", "")))
        self._save_session(session)
        return session

    def _mount(self, url: str) -> requests.Response | None:
        if not self._mount_from:
            return None
        query = {"mount": self._blob.digest, "from": self._mount_from}
        # These credentials may not read there: then the local bytes are sent.
        with suppress(BadInput):
            return self._repository.call("POST", url, expected_status=(201, 202), query=query)
        return None

    def _send_chunk(self, session: UploadSession) -> None:
        end = min(session.offset + self._chunk, self._blob.size)
        headers = {**_BYTES, "Content-Range": f"{session.offset}-{end - 1}"}
        try:
            with FileSlice(self._path, session.offset, end, self._on_progress) as part:
                sent = self._repository.call(
                    "PATCH",
                    session.location,
                    expected_status=(201, 202, 204, *UNKNOWN_UPLOAD),
                    headers=headers,
                    body=part,
                )
        except TooLarge as error:
            self._shrink(error)
            return
        if sent.status_code in UNKNOWN_UPLOAD:
            raise self._unknown_upload(sent, keep=sent.status_code == 416)
        before = session.offset
        self._update(session, sent, default=end)
        if session.offset <= before:
            raise self._unknown_upload(sent)
        self._save_session(session)

    def _finish(self, session: UploadSession) -> None:
        """Close the upload; a small blob is sent whole in this request."""
        query = {"digest": self._blob.digest}
        start = self._blob.size if session.offset else 0
        expected = (201, *(UNKNOWN_UPLOAD if self._resumed else (400,)))
        try:
            with FileSlice(self._path, start, self._blob.size, self._on_progress) as rest:
                body = rest if len(rest) else b""
                done = self._repository.call(
                    "PUT", session.location, expected_status=expected, headers=_BYTES, query=query, body=body
                )
        except TooLarge as error:
            self._shrink(error)
            raise TransientError(f"{error.message}; retrying with smaller chunks", error.fix, 0.0) from None
        if done.status_code == 400 and not self._resumed:
            raise digest_mismatch(self._blob.digest)
        if done.status_code in UNKNOWN_UPLOAD:
            raise self._unknown_upload(done)
        self._repository.check_stored(done, self._blob.digest)
        self._clear_session()

    def _update(self, session: UploadSession, response: requests.Response, default: int = 0) -> None:
        """Apply the registry's ``Range: 0-END``, which is ``0-0`` for an empty upload too."""
        match = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("Range", "").strip())
        end = int(match[1]) + 1 if match else default
        session.offset = 0 if end == 1 and default != 1 else min(end, self._blob.size)
        if response.headers.get("Location"):
            session.location = self._repository.location(response)
        self.bytes_acknowledged = max(self.bytes_acknowledged, session.offset)

    def _unknown_upload(self, response: requests.Response, *, keep: bool = False) -> TransientError:
        response.close()
        if not keep:
            self._clear_session()
        return TransientError(
            f"{self._repository.name}: the registry lost the upload offset (HTTP {response.status_code})",
            "run it again",
            0.0,
        )

    def _shrink(self, error: TooLarge) -> None:
        """Reduce the chunk size: a proxy rejects bodies of this size."""
        if min(self._chunk, self._blob.size) <= MIN_CHUNK_BYTES:
            raise error
        self._chunk = max(self._chunk // 8, MIN_CHUNK_BYTES)

    def _load_session(self) -> UploadSession | None:
        if self._session_file is None:
            return None
        try:
            session = UploadSession(**parse_json(self._session_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        is_same = (session.repository, session.blob) == (self._repository.name, self._blob.digest)
        return session if is_same else None

    def _save_session(self, session: UploadSession) -> None:
        # A URL at another host can carry a signature, which must not be stored.
        if self._session_file and urlsplit(session.location)[:2] == urlsplit(self._repository.base)[:2]:
            files.write_json(self._session_file, asdict(session))

    def _clear_session(self) -> None:
        self._session = None
        if self._session_file:
            self._session_file.unlink(missing_ok=True)


def digest_mismatch(digest: str) -> StepError:
    """Return the error for a file whose bytes changed; the registry verifies them, so they are not hashed before."""
    return StepError(f"blob {digest} does not match its digest", "package the adapter again")


class FileSlice(io.FileIO):
    """Stream of the bytes from ``start`` to ``end`` of a file; reports the offset in the file."""

    def __init__(self, path: Path, start: int, end: int, on_progress: ProgressCallback = lambda sent: None) -> None:
        super().__init__(path, "rb")
        self._start, self._end, self._on_progress = start, end, on_progress
        super().seek(start)

    def __len__(self) -> int:
        return self._end - self._start

    def tell(self) -> int:
        """Return the bytes read of this slice; requests computes the remaining length from it."""
        return super().tell() - self._start

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        """Seek within the slice, to send it again."""
        return super().seek(self._start + position, whence) - self._start

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of the slice."""
        remaining = len(self) - self.tell()
        data = super().read(remaining if size is None or size < 0 else min(size, remaining)) or b""
        self._on_progress(self._start + self.tell())
        return data
