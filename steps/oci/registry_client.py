"""HTTP with one repository of a registry, by the OCI distribution-spec 1.1: its requests, retried and checked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from steps.oci import registry_errors
from steps.oci.oci_layout import Blob
from steps.oci.reference import DOCKER_HUB, Reference
from steps.oci.registry_auth import RegistryAuth, plain_http
from steps.oci.registry_errors import TIMEOUT
from steps.oci.registry_transport import RegistryAdapter
from steps.oci.registry_upload import FileSlice, ProgressCallback, Upload
from steps.runtime import files
from steps.runtime.errors import StepError
from steps.runtime.retry import RetryPolicy, Sleep, retry_call

T = TypeVar("T")
RETRY = RetryPolicy(max_attempts=5, max_retry_after_seconds=120.0)
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
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
    what the registry refuses, and ``TransientError`` when each try failed. No message holds a credential.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        push: bool = False,
        mount_from: str = "",
        docker_config: Path | None = None,
        retry: RetryPolicy | None = None,
        wait: Sleep = time.sleep,
    ) -> None:
        self.reference = reference
        self._policy = retry or RETRY
        self._mount_from = mount_from
        self._wait = wait
        host = "registry-1.docker.io" if reference.registry == DOCKER_HUB else reference.registry
        self.base = f"{'http' if plain_http(host) else 'https'}://{host}/v2/{reference.repository}"
        self._auth = RegistryAuth(reference, self.base, push=push, mount_from=mount_from, docker_config=docker_config)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, RegistryAdapter())
        self._session.auth = self._auth
        self._session.headers.update({"User-Agent": "argotune", "Accept-Encoding": "identity"})

    def has_blob(self, digest: str) -> bool:
        """Whether the repository holds a blob (HEAD)."""
        response = self._retry(lambda: self.call("HEAD", f"{self.base}/blobs/{digest}", fine=(200, 404)))
        return response.status_code == 200

    def send_blob(
        self, blob: Blob, path: Path, told: ProgressCallback = lambda sent: None, *, memory: Path | None = None
    ) -> str:
        """Upload ``path`` as ``blob``, see ``Upload``; gives ``sent`` or ``mounted``, for people."""
        upload = Upload(self, blob, path, told, memory, self._mount_from)
        return self._retry(upload.run, progress=lambda: upload.bytes_acknowledged)

    def try_upload(self) -> None:
        """Begin an upload and give it up at once: what a push is refused for, this is refused for too."""
        begun = self._retry(lambda: self.call("POST", f"{self.base}/blobs/uploads/", fine=(202,)))
        # Given up or not, a registry forgets what nobody goes on with; not all can be told so.
        gone = (200, 202, 204, 400, 404, 405)
        self._retry(lambda: self.call("DELETE", self.location(begun), fine=gone))

    def fetch_blob(self, blob: Blob, path: Path) -> None:
        """Download ``blob`` to ``path``, which is there only when digest and size are right."""
        self._retry(lambda: self._download(blob, path))

    def put_manifest(self, name: str, media_type: str, content: bytes) -> requests.Response:
        """Name ``content`` by a tag, or keep it under its digest."""
        headers = {"Content-Type": media_type}
        url = f"{self.base}/manifests/{name}"
        return self._retry(lambda: self.call("PUT", url, fine=(201,), headers=headers, body=content))

    def manifest_digest(self, name: str) -> str:
        """Digest of the manifest that a tag or digest names; empty when there is none (HEAD)."""
        url = f"{self.base}/manifests/{name}"
        response = self._retry(lambda: self.call("HEAD", url, fine=(200, 404), headers=_ACCEPT))
        if response.status_code == 404:
            return ""
        # The header is optional: where it is absent only the content tells.
        return response.headers.get("Docker-Content-Digest") or _digest("sha256", self.fetch_manifest(name)[1])

    def fetch_manifest(self, name: str) -> tuple[str, bytes]:
        """Media type and bytes of a manifest by tag or digest; by digest, the bytes are checked."""
        media_type, content = self._retry(lambda: self._read(f"{self.base}/manifests/{name}"))
        if ":" in name and _digest(name.partition(":")[0], content) != name:
            raise self._mismatch(name)
        return media_type, content

    def _retry(self, call: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        return retry_call(call, self._policy, progress=progress, log=_log, sleep=self._wait)

    def location(self, response: requests.Response) -> str:
        """Where the upload goes on. A registry behind a TLS proxy may name its own plain address: stay on ours."""
        location = response.headers.get("Location")
        if not location:
            raise StepError(f"{self.reference.registry} began an upload without a Location", "tell its operator")
        ours, parts = urlsplit(self.base), urlsplit(urljoin(str(response.url), location))
        if parts.hostname == ours.hostname and (parts.scheme, ours.scheme) == ("http", "https"):
            parts = parts._replace(scheme=ours.scheme, netloc=ours.netloc)
        return urlunsplit(parts)

    def check_stored(self, response: requests.Response, digest: str) -> None:
        """Compare what the registry says that it stored with what was sent."""
        stored = response.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise StepError(f"{self.reference.registry} stored {digest} as {stored}", "tell its operator")

    def _download(self, blob: Blob, path: Path) -> None:
        algorithm = blob.digest.partition(":")[0]
        digest, length = hashlib.new(algorithm), 0
        url = f"{self.base}/blobs/{blob.digest}"
        with self.call("GET", url, fine=(200,)) as response, files.replacing(path) as file:
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
        with self.call("GET", url, fine=(200,), headers=_ACCEPT) as response:
            for data in self._stream(response):
                content += data
                if len(content) > MAX_MANIFEST_BYTES:
                    raise StepError(f"manifest of {self.reference} is larger than {MAX_MANIFEST_BYTES} bytes")
        return response.headers.get("Content-Type", "").partition(";")[0].strip(), content

    def _stream(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(CHUNK)
        except requests.RequestException as error:
            raise self._lost(error) from None

    def call(
        self,
        method: str,
        url: str,
        *,
        fine: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | FileSlice | None = None,
    ) -> requests.Response:
        """One exchange, without further tries; a challenge is answered once.

        Raises:
            TransientError: the connection was lost, or the server is busy or broken.
            BadInput, StepError: an answer that is not among ``fine``.
        """

        def send() -> requests.Response:
            if isinstance(body, FileSlice):
                body.seek(0)
            try:
                return self._session.request(
                    method, url, headers=headers, params=query, data=body, stream=method == "GET", timeout=TIMEOUT
                )
            except requests.RequestException as error:
                raise self._lost(error) from None

        response = send()
        if response.status_code == 401 and self._auth.answer(response):
            response.close()
            response = send()
        if response.status_code in fine:
            return response
        with response:
            raise self._auth.refused(response)

    def _lost(self, error: requests.RequestException) -> StepError:
        return self._auth.redacted(registry_errors.lost(error, self.reference.registry))

    def _mismatch(self, digest: str) -> StepError:
        return StepError(
            f"{self.reference.registry} gave other bytes than {digest} for {self.reference}",
            "pull it once more; if that does not help, push the image again",
        )


def _log(line: str) -> None:
    print(line, flush=True)


def _digest(algorithm: str, content: bytes) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
