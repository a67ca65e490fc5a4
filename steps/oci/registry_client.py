"""HTTP client of one repository in a registry (OCI distribution-spec 1.1), with retries and digest checks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError

from steps.oci import registry_errors
from steps.oci.oci_layout import Blob
from steps.oci.reference import DOCKER_HUB, Reference, is_digest, normalize_digest
from steps.oci.registry_auth import RegistryAuth, uses_plain_http
from steps.oci.registry_download import DigestMismatch, Download
from steps.oci.registry_errors import TIMEOUT
from steps.oci.registry_transport import RegistrySession
from steps.oci.registry_upload import FileSlice, ProgressCallback, Upload
from steps.runtime import http_body
from steps.runtime.errors import BadInput, StepError
from steps.runtime.retry import RetryPolicy, Sleep, retry_call

T = TypeVar("T")
RETRY = RetryPolicy(max_attempts=5, max_retry_after_seconds=120.0)
LOST = (requests.RequestException, HTTPError)
"""Errors of a lost connection, before and within a body."""
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""The minimum that the specification requires registries to accept, and the maximum of most of them."""
_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}


class RegistryClient:
    """Client of one repository, to pull and optionally push.

    Every method raises ``BadInput`` for what the user must fix (credentials, permissions, names), ``StepError`` for
    other rejected requests, and ``TransientError`` when all attempts failed. Messages never contain credentials.
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
        self.reference, self.name = reference, reference.name
        self._policy = retry or RETRY.in_pod()
        self._mount_from = mount_from
        self._wait = wait
        host = "registry-1.docker.io" if reference.host == DOCKER_HUB else reference.registry
        self.base = f"{'http' if uses_plain_http(host) else 'https'}://{host}/v2/{reference.repository}"
        self._auth = RegistryAuth(reference, self.base, push=push, mount_from=mount_from, docker_config=docker_config)
        self._session = RegistrySession()
        self._session.auth = self._auth
        self._session.headers.update({"User-Agent": "argotune", "Accept-Encoding": "identity"})

    def has_blob(self, digest: str) -> bool:
        """Return True if the repository has a blob (HEAD)."""
        response = self._retry(lambda: self.call("HEAD", f"{self.base}/blobs/{digest}", expected_status=(200, 404)))
        return response.status_code == 200

    def send_blob(
        self,
        blob: Blob,
        path: Path,
        on_progress: ProgressCallback = lambda sent: None,
        *,
        session_file: Path | None = None,
    ) -> str:
        """Upload ``path`` as ``blob`` (see ``Upload``); return ``sent`` or ``mounted`` for the log."""
        upload = Upload(self, blob, path, on_progress, session_file, self._mount_from)
        return self._retry(upload.run, progress=lambda: upload.bytes_acknowledged)

    def try_upload(self) -> None:
        """Start an upload and cancel it: it fails for the same reasons as a push."""
        started = self._retry(lambda: self.call("POST", f"{self.base}/blobs/uploads/", expected_status=(202,)))
        # Registries expire unfinished uploads; not all support cancelling them.
        cancelled = (200, 202, 204, 400, 404, 405)
        self._retry(lambda: self.call("DELETE", self.location(started), expected_status=cancelled))

    def fetch_blob(self, blob: Blob, path: Path) -> None:
        """Download ``blob`` to ``path``, which exists only if digest and size match; resume a partial file."""
        download = Download(blob, path)
        self._retry(lambda: self._download(download, blob), progress=lambda: download.bytes_received)

    def put_manifest(self, name: str, media_type: str, content: bytes) -> requests.Response:
        """Store a manifest under a tag or its digest."""
        headers = {"Content-Type": media_type}
        url = f"{self.base}/manifests/{name}"
        return self._retry(lambda: self.call("PUT", url, expected_status=(201,), headers=headers, body=content))

    def manifest_digest(self, name: str) -> str:
        """Return the digest of the manifest under a tag or digest; empty if there is none (HEAD)."""
        url = f"{self.base}/manifests/{name}"
        response = self._retry(lambda: self.call("HEAD", url, expected_status=(200, 404), headers=_ACCEPT))
        if response.status_code == 404:
            return ""
        # The header is optional: without it the digest is computed from the content.
        digest = normalize_digest(response.headers.get("Docker-Content-Digest", ""))
        if digest and not is_digest(digest):
            message = f"{self.reference.registry} returned {digest[:100]!r} as the digest of {self.name}:{name}"
            raise StepError(message, "report it to its operator")
        return digest or _digest("sha256", self.fetch_manifest(name)[1])

    def fetch_manifest(self, name: str) -> tuple[str, bytes]:
        """Return media type and bytes of a manifest; by digest, the bytes are verified."""
        media_type, content = self._retry(lambda: self._read_manifest(f"{self.base}/manifests/{name}"))
        if ":" in name and _digest(name.partition(":")[0], content) != name:
            raise self._digest_mismatch(name)
        return media_type, content

    def _retry(self, call: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        return retry_call(call, self._policy, progress=progress, log=_log, sleep=self._wait)

    def location(self, response: requests.Response) -> str:
        """Return the URL where an upload continues, with https where a registry behind a TLS proxy returns http."""
        location = response.headers.get("Location")
        if not location:
            raise StepError(
                f"{self.reference.registry} started an upload without a Location header", "report it to its operator"
            )
        try:
            ours, parts = urlsplit(self.base), urlsplit(urljoin(str(response.url), location))
            if parts.hostname == ours.hostname and (parts.scheme, ours.scheme) == ("http", "https"):
                parts = parts._replace(scheme=ours.scheme, netloc=ours.netloc)
            return urlunsplit(parts)
        except ValueError:
            message = f"{self.reference.registry} started an upload with an invalid Location header"
            raise StepError(message, "report it to its operator") from None

    def check_stored(self, response: requests.Response, digest: str) -> None:
        """Compare the digest that the registry reports with the blob's."""
        stored = normalize_digest(response.headers.get("Docker-Content-Digest", digest))
        if stored != digest:
            message = f"{self.reference.registry} stored {digest} as {stored[:200]}"
            raise StepError(message, "report it to its operator")

    def _download(self, download: Download, blob: Blob) -> None:
        url = f"{self.base}/blobs/{blob.digest}"
        try:
            download.run(lambda headers: self.call("GET", url, expected_status=(200, 206), headers=headers))
        except LOST as error:
            raise self._connection_error(error) from None
        except DigestMismatch:
            raise self._digest_mismatch(blob.digest) from None

    def _read_manifest(self, url: str) -> tuple[str, bytes]:
        with self.call("GET", url, expected_status=(200,), headers=_ACCEPT) as response:
            try:
                content = http_body.read_body(response, MAX_MANIFEST_BYTES)
            except http_body.BodyTooLarge as error:
                message = f"the manifest of {self.reference} has {error}"
                raise BadInput(message, "check the reference: images have manifests of a few kB") from None
            except LOST as error:
                raise self._connection_error(error) from None
        return response.headers.get("Content-Type", "").partition(";")[0].strip(), content

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
        """Send one request without retries; an authentication challenge is answered once.

        Raises:
            TransientError: the connection was lost, or the server is busy or broken.
            BadInput, StepError: the status is not in ``expected_status``.
        """

        def send() -> requests.Response:
            if isinstance(body, FileSlice):
                body.seek(0)
            try:
                return self._session.request(
                    method, url, headers=headers, params=query, data=body, stream=True, timeout=TIMEOUT
                )
            except (*LOST, ValueError) as error:  # ValueError: a redirect to no URL
                raise self._connection_error(error) from None

        response = send()
        if response.status_code == 401 and self._auth.respond_to(response):
            response.close()
            response = send()
        if response.status_code in expected_status:
            if method != "GET":
                self._discard(response)
            return response
        with response:
            raise self._auth.error_from(response)

    def _discard(self, response: requests.Response) -> None:
        try:
            http_body.discard_body(response)
        except LOST as error:
            raise self._connection_error(error) from None

    def _connection_error(self, error: Exception) -> StepError:
        return self._auth.redacted(registry_errors.from_connection_error(error, self.reference.registry))

    def _digest_mismatch(self, digest: str) -> StepError:
        return StepError(
            f"{self.reference.registry} returned content for {self.reference} that does not match {digest}",
            "pull it again; if that fails, push the image again",
        )


def _log(line: str) -> None:
    print(line, flush=True)


def _digest(algorithm: str, content: bytes) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
