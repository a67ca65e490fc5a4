"""HTTP with one repository of a registry, by the OCI distribution-spec 1.1: its requests, retried and checked."""

from __future__ import annotations

import hashlib
import io
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from steps import files, registry_errors
from steps.errors import StepError
from steps.oci_layout import Blob
from steps.reference import DOCKER_HUB, Reference
from steps.registry_auth import TIMEOUT, RegistryAuth, plain_http
from steps.registry_errors import MayPass

T = TypeVar("T")
Told = Callable[[int], None]
TRIES = 5
LONGEST_WAIT = 120.0
LONGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes; the specification's least that a registry must take, and what most of them take."""
CHUNK = 1024 * 1024
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}


class RegistryClient:
    """One repository, for pulling or for pushing as well.

    Every call raises ``BadInput`` for what the user must mend (credentials, permissions, names), ``StepError`` for
    what the registry refuses, and ``MayPass`` when each try failed. No message holds a credential.
    """

    def __init__(
        self, reference: Reference, *, push: bool = False, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self.reference = reference
        self._push = push
        self._wait = wait
        host = "registry-1.docker.io" if reference.registry == DOCKER_HUB else reference.registry
        self._base = f"{'http' if plain_http(host) else 'https'}://{host}/v2/{reference.repository}"
        self._auth = RegistryAuth(reference, self._base, push=push)
        self._session = requests.Session()
        self._session.auth = self._auth
        self._session.headers.update({"User-Agent": "argotune", "Accept-Encoding": "identity"})

    def has_blob(self, digest: str) -> bool:
        """Whether the repository holds a blob (HEAD)."""
        response = self._again(lambda: self._call("HEAD", f"{self._base}/blobs/{digest}", fine=(200, 404)))
        return response.status_code == 200

    def send_blob(self, blob: Blob, path: Path, told: Told = lambda sent: None) -> None:
        """Upload ``path`` as ``blob``: POST, then one PUT streamed from disk; ``told`` hears the bytes sent so far."""
        self._again(lambda: self._upload(blob, path, told))

    def fetch_blob(self, blob: Blob, path: Path) -> None:
        """Download ``blob`` to ``path``, which is there only when digest and size are right."""
        self._again(lambda: self._download(blob, path))

    def put_manifest(self, tag: str, media_type: str, content: bytes) -> None:
        """Name ``content`` by ``tag``."""
        headers = {"Content-Type": media_type}
        url = f"{self._base}/manifests/{tag}"
        self._again(lambda: self._call("PUT", url, fine=(201,), headers=headers, body=content))

    def manifest_digest(self, name: str) -> str:
        """Digest of the manifest that a tag or digest names; empty when there is none (HEAD)."""
        url = f"{self._base}/manifests/{name}"
        response = self._again(lambda: self._call("HEAD", url, fine=(200, 404), headers=_ACCEPT))
        if response.status_code == 404:
            return ""
        # The header is optional: where it is absent only the content tells.
        return response.headers.get("Docker-Content-Digest") or _digest("sha256", self.fetch_manifest(name)[1])

    def fetch_manifest(self, name: str) -> tuple[str, bytes]:
        """Media type and bytes of a manifest by tag or digest; by digest, the bytes are checked."""
        media_type, content = self._again(lambda: self._read(f"{self._base}/manifests/{name}"))
        if ":" in name and _digest(name.partition(":")[0], content) != name:
            raise self._mismatch(name)
        return media_type, content

    def _again(self, action: Callable[[], T]) -> T:
        for attempt in range(1, TRIES):
            try:
                return action()
            except MayPass as error:
                backoff = 2.0 ** (attempt - 1) * random.uniform(0.5, 1)
                wait = min(error.wait if error.wait is not None else backoff, LONGEST_WAIT)
                print(f"{error.what}; try {attempt + 1} of {TRIES} in {wait:.0f} s", flush=True)
                self._wait(wait)
        return action()

    def _upload(self, blob: Blob, path: Path, told: Told) -> None:
        started = self._call("POST", f"{self._base}/blobs/uploads/", fine=(202,))
        headers = {"Content-Type": "application/octet-stream"}
        query = {"digest": blob.digest}
        url = self._location(started)
        done = self._call("PUT", url, fine=(201,), headers=headers, query=query, body=path, told=told)
        stored = done.headers.get("Docker-Content-Digest", blob.digest)
        if stored != blob.digest:
            raise StepError(f"{self.reference.registry} stored {blob.digest} as {stored}", "tell its operator")

    def _location(self, response: requests.Response) -> str:
        """Where the upload goes on. A registry behind a TLS proxy may name its own plain address: stay on ours."""
        location = response.headers.get("Location")
        if not location:
            raise StepError(f"{self.reference.registry} began an upload without a Location", "tell its operator")
        ours, parts = urlsplit(self._base), urlsplit(urljoin(str(response.url), location))
        if parts.hostname == ours.hostname and (parts.scheme, ours.scheme) == ("http", "https"):
            parts = parts._replace(scheme=ours.scheme, netloc=ours.netloc)
        return urlunsplit(parts)

    def _download(self, blob: Blob, path: Path) -> None:
        algorithm = blob.digest.partition(":")[0]
        digest, length = hashlib.new(algorithm), 0
        url = f"{self._base}/blobs/{blob.digest}"
        with self._call("GET", url, fine=(200,)) as response, files.replacing(path) as file:
            for data in self._stream(response):
                length += len(data)
                if length > blob.size:
                    break
                digest.update(data)
                file.write(data)
            if length != blob.size or f"{algorithm}:{digest.hexdigest()}" != blob.digest:
                raise self._mismatch(blob.digest)

    def _read(self, url: str) -> tuple[str, bytes]:
        content = b""
        with self._call("GET", url, fine=(200,), headers=_ACCEPT) as response:
            for data in self._stream(response):
                content += data
                if len(content) > LONGEST_MANIFEST:
                    raise StepError(f"manifest of {self.reference} is larger than {LONGEST_MANIFEST} bytes")
        return response.headers.get("Content-Type", "").partition(";")[0].strip(), content

    def _stream(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(CHUNK)
        except requests.RequestException as error:
            raise self._lost(error) from None

    def _call(
        self,
        method: str,
        url: str,
        *,
        fine: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | Path | None = None,
        told: Told = lambda sent: None,
    ) -> requests.Response:
        """One exchange; a challenge is answered once. The body is opened anew for each send."""

        def send() -> requests.Response:
            data = _Counted(body, told) if isinstance(body, Path) else body
            try:
                return self._session.request(
                    method, url, headers=headers, params=query, data=data, stream=method == "GET", timeout=TIMEOUT
                )
            except requests.RequestException as error:
                raise self._lost(error) from None
            finally:
                if isinstance(data, _Counted):
                    data.close()

        response = send()
        if response.status_code == 401 and self._auth.answer(response):
            response.close()
            response = send()
        if response.status_code in fine:
            return response
        with response:
            error = registry_errors.refused(response, self.reference, push=self._push, known=self._auth.known)
        raise self._auth.redacted(error)

    def _lost(self, error: requests.RequestException) -> StepError:
        return self._auth.redacted(registry_errors.lost(error, self.reference.registry))

    def _mismatch(self, digest: str) -> StepError:
        return StepError(
            f"{self.reference.registry} gave other bytes than {digest} for {self.reference}",
            "pull it once more; if that does not help, push the image again",
        )


class _Counted(io.FileIO):
    """A file that tells how far it was read; requests takes its length and streams it."""

    def __init__(self, path: Path, told: Told) -> None:
        super().__init__(path, "rb")
        self._told = told

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        self._told(self.tell())
        return data


def _digest(algorithm: str, content: bytes) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
