"""One blob on its way up in chunks (OCI distribution-spec 1.1, "Pushing a blob in chunks"); cut off, it goes on.

The registry is asked how far it has come; one that has forgotten the upload gets it anew. Registries that are made of
docker's distribution, as most are, forget what was cut within a chunk and know what ended between two.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from steps.oci.oci_layout import Blob
from steps.oci.registry_errors import TooLarge
from steps.runtime import files
from steps.runtime.errors import BadInput, StepError, TransientError

if TYPE_CHECKING:
    from steps.oci.registry_client import RegistryClient

ProgressCallback = Callable[[int], None]
CHUNK = 64 * 1024 * 1024
MIN_CHUNK_BYTES = 512 * 1024
"""Below nginx's usual limit of a body, 1 MB."""
FORGOTTEN = (400, 404, 416)
"""What registries answer about an upload that they do not know, or not at this place."""
_BYTES = {"Content-Type": "application/octet-stream"}


@dataclass
class UploadSession:
    """How far an upload is; ``blob`` and ``repository`` tell whose it is."""

    repository: str
    blob: str
    location: str
    offset: int = 0


class Upload:
    """Sends ``path`` as ``blob``; ``told`` hears how many of its bytes are there.

    ``memory`` is a file that outlives this process, so that the next one goes on. ``mount_from`` is a repository of
    the same registry that may have the blob already.
    """

    def __init__(
        self,
        client: RegistryClient,
        blob: Blob,
        path: Path,
        told: ProgressCallback,
        memory: Path | None,
        mount_from: str,
    ) -> None:
        self._client = client
        self._blob = blob
        self._path = path
        self._told = told
        self._memory = memory
        self._mount_from = mount_from
        self._place: UploadSession | None = None
        self._chunk = CHUNK
        self._resumed = False
        self._tried = False
        if path.stat().st_size != blob.size:
            raise damaged(blob.digest)
        self.bytes_acknowledged = 0
        """Bytes that the registry has had."""

    def run(self) -> str:
        """Bring the blob there; one try, which a next one continues. Gives ``sent`` or ``mounted``, for people.

        Raises:
            TransientError: the connection or the upload was lost.
            BadInput, StepError: as for every call of the client.
        """
        if self._tried and self._client.has_blob(self._blob.digest):
            self._forget()  # What was lost was the answer.
            return "sent"
        if not self._tried:
            self._place = self._remembered()
        self._tried = True
        self._place = self._asked() or self._begun()
        if self._place is None:
            return "mounted"
        while self._blob.size - self._place.offset > (self._chunk if self._place.offset == 0 else 0):
            self._send_chunk(self._place)
        self._finish(self._place)
        return "sent"

    def _asked(self) -> UploadSession | None:
        """Where an upload that was begun goes on by the registry's own word."""
        if self._place is None:
            return None
        answer = self._client.call("GET", self._place.location, fine=(200, 202, 204, *FORGOTTEN))
        answer.close()
        self._resumed = answer.status_code not in FORGOTTEN
        if not self._resumed:
            self._forget()
            return None
        self._move(self._place, answer)
        if self._place.offset:
            print(f"going on at {self._place.offset / 1e6:.1f} MB", flush=True)
        return self._place

    def _begun(self) -> UploadSession | None:
        """A new upload; None when the registry took the blob over from the other repository instead."""
        url = f"{self._client.base}/blobs/uploads/"
        begun = self._mounted(url) or self._client.call("POST", url, fine=(202,))
        if begun.status_code == 201:
            return None
        place = UploadSession(self._client.reference.name, self._blob.digest, self._client.location(begun))
        # A registry may want larger chunks than ours.
        with suppress(ValueError):
            self._chunk = max(self._chunk, int(begun.headers.get("OCI-Chunk-Min-Length", "")))
        self._remember(place)
        return place

    def _mounted(self, url: str) -> requests.Response | None:
        if not self._mount_from:
            return None
        query = {"mount": self._blob.digest, "from": self._mount_from}
        # It need not let us read there; the bytes are here all the same.
        with suppress(BadInput):
            return self._client.call("POST", url, fine=(201, 202), query=query)
        return None

    def _send_chunk(self, place: UploadSession) -> None:
        end = min(place.offset + self._chunk, self._blob.size)
        headers = {**_BYTES, "Content-Range": f"{place.offset}-{end - 1}"}
        try:
            with FileSlice(self._path, place.offset, end, self._told) as part:
                sent = self._client.call(
                    "PATCH", place.location, fine=(201, 202, 204, *FORGOTTEN), headers=headers, body=part
                )
        except TooLarge as error:
            self._shrink(error)
            return
        if sent.status_code in FORGOTTEN:
            raise self._lost(sent, keep=sent.status_code == 416)
        before = place.offset
        self._move(place, sent, otherwise=end)
        if place.offset <= before:
            raise self._lost(sent)
        self._remember(place)

    def _finish(self, place: UploadSession) -> None:
        """Close the upload, with the whole blob where it is a small one."""
        query = {"digest": self._blob.digest}
        start = self._blob.size if place.offset else 0
        fine = (201, *(FORGOTTEN if self._resumed else (400,)))
        try:
            with FileSlice(self._path, start, self._blob.size, self._told) as rest:
                body = rest if len(rest) else b""
                done = self._client.call("PUT", place.location, fine=fine, headers=_BYTES, query=query, body=body)
        except TooLarge as error:
            self._shrink(error)
            raise TransientError(f"{error.message}; smaller parts may pass", error.fix, 0.0) from None
        if done.status_code == 400 and not self._resumed:
            raise damaged(self._blob.digest)
        if done.status_code in FORGOTTEN:
            raise self._lost(done)
        self._client.check_stored(done, self._blob.digest)
        self._forget()

    def _move(self, place: UploadSession, answer: requests.Response, otherwise: int = 0) -> None:
        """Go where the registry says: ``Range: 0-END``, which is ``0-0`` also where there is nothing yet."""
        found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", "").strip())
        end = int(found[1]) + 1 if found else otherwise
        place.offset = 0 if end == 1 and otherwise != 1 else min(end, self._blob.size)
        if answer.headers.get("Location"):
            place.location = self._client.location(answer)
        self.bytes_acknowledged = max(self.bytes_acknowledged, place.offset)

    def _lost(self, answer: requests.Response, *, keep: bool = False) -> TransientError:
        answer.close()
        if not keep:
            self._forget()
        registry = self._client.reference.registry
        return TransientError(
            f"{registry} has lost its place in the upload (HTTP {answer.status_code})", "run it again", 0.0
        )

    def _shrink(self, error: TooLarge) -> None:
        """Try smaller parts: a proxy on the way takes no body of this size."""
        if min(self._chunk, self._blob.size) <= MIN_CHUNK_BYTES:
            raise error
        self._chunk = max(self._chunk // 8, MIN_CHUNK_BYTES)

    def _remembered(self) -> UploadSession | None:
        if self._memory is None:
            return None
        try:
            place = UploadSession(**json.loads(self._memory.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        ours = (place.repository, place.blob) == (self._client.reference.name, self._blob.digest)
        return place if ours else None

    def _remember(self, place: UploadSession) -> None:
        # An address elsewhere may carry its own permission, which no file should keep.
        if self._memory and urlsplit(place.location)[:2] == urlsplit(self._client.base)[:2]:
            files.write_json(self._memory, asdict(place))

    def _forget(self) -> None:
        self._place = None
        if self._memory:
            self._memory.unlink(missing_ok=True)


def damaged(digest: str) -> StepError:
    """The registry reads what comes, too; so nothing is read once more before."""
    return StepError(f"the bytes of blob {digest} are not those of its digest", "package the adapter again")


class FileSlice(io.FileIO):
    """The bytes from ``start`` to ``end`` of a file, to be streamed; tells how far in the file it was read."""

    def __init__(self, path: Path, start: int, end: int, told: ProgressCallback = lambda sent: None) -> None:
        super().__init__(path, "rb")
        self._start, self._end, self._told = start, end, told
        super().seek(start)

    def __len__(self) -> int:
        return self._end - self._start

    def tell(self) -> int:
        """Bytes read of this part, which is how requests finds out what is left."""
        return super().tell() - self._start

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        """Go back, to send it once more."""
        return super().seek(self._start + position, whence) - self._start

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on, to the end of the part at most."""
        left = len(self) - self.tell()
        data = super().read(left if size is None or size < 0 else min(size, left)) or b""
        self._told(self._start + self.tell())
        return data
