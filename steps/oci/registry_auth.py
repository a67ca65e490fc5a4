"""Authentication to a registry: Basic, Bearer token or anonymous, as its challenge requires.

Tokens follow distribution's "token authentication specification" and docker's OAuth2 extension for identity tokens.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from steps.oci import credentials, registry_azure, registry_errors
from steps.oci.reference import Reference
from steps.oci.registry_errors import TIMEOUT
from steps.runtime import hosts
from steps.runtime.errors import StepError, TransientError


class RegistryAuth(AuthBase):
    """Authorization for one repository, passed to requests as ``auth``.

    It also prevents requests from sending credentials from ~/.netrc.
    """

    def __init__(
        self,
        reference: Reference,
        base: str,
        *,
        push: bool,
        mount_from: str = "",
        docker_config: Path | None = None,
    ) -> None:
        self._reference = reference
        self._push = push
        self._scopes = [f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"]
        self._scopes += [f"repository:{mount_from}:pull"] if mount_from else []
        self._base = base
        self._header = ""
        stored = credentials.find(reference, docker_config)
        self.known = stored is not None
        """Credentials for the registry exist."""
        self._credentials = stored or credentials.Credentials()
        self._uses_azure = stored is None and registry_azure.is_azure(reference.registry)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header to a request; uploads can continue at another host, which receives no credentials."""
        if self._header and hosts.origin(str(request.url)) == hosts.origin(self._base):
            request.headers["Authorization"] = self._header
        return request

    def respond_to(self, response: requests.Response) -> bool:
        """Prepare the header for the challenge of a 401 (RFC 9110, 11.6.1); return False if it did not change.

        Raises:
            StepError: the token server rejects the request, or has no https URL.
        """
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        header, known = "", self._credentials
        if "bearer" in challenges:
            try:
                header = f"Bearer {self._token(challenges['bearer'])}"
            except StepError as error:
                raise self.redacted(error) from None
        elif "basic" in challenges and known.username:
            header = "Basic " + base64.b64encode(f"{known.username}:{known.password}".encode()).decode()
        fresh = bool(header) and header != self._header
        self._header = header
        return fresh

    def redacted(self, error: StepError) -> StepError:
        """Remove credentials that a server may have echoed from an error."""
        for secret in sorted(
            {*self._credentials.secrets, self._header.partition(" ")[2]} - {""}, key=len, reverse=True
        ):
            error.message = error.message.replace(secret, "***")
        error.args = (error.message,)
        return error

    def error_from(self, response: requests.Response) -> StepError:
        """Return the error for an unexpected response, without echoed credentials."""
        error = registry_errors.from_response(
            response, self._reference, push=self._push, known=self.known, azure=self._uses_azure
        )
        return self.redacted(error)

    def _token(self, challenge: Mapping[str, str]) -> str:
        known, registry = self._credentials, self._reference.registry
        if known.registry_token:
            return known.registry_token
        realm = challenge.get("realm", "")
        try:
            parts = urlsplit(realm)
        except ValueError:
            parts = SplitResult("", "", "", "", "")
        if parts.scheme != "https" and not (parts.scheme == "http" and uses_plain_http(parts.netloc)):
            fix = f"contact its operator; if it is yours, list it in {registry_errors.INSECURE}"
            raise StepError(f"{registry} requests tokens from {realm[:200]!r}, which is not https", fix)
        service = challenge.get("service", "")
        if self._uses_azure and not known.identity_token:
            self._log_in_to_azure(service)
        response = self._request_token(realm, service)
        if response.status_code in (400, 401) and self._uses_azure and known.identity_token:
            self._log_in_to_azure(service)  # An ACR refresh token expires after three hours.
            response = self._request_token(realm, service)
        if response.status_code != 200:
            raise self.error_from(response)
        try:
            answer = registry_errors.read_json(response)
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise TransientError(f"{parts.netloc} returned no token for {registry}", "contact its operator") from None

    def _log_in_to_azure(self, service: str) -> None:
        origin = urljoin(self._base, "/").rstrip("/")
        token = registry_azure.fetch_refresh_token(self._reference, origin, service, push=self._push)
        self.known = bool(token)
        self._credentials = credentials.Credentials(identity_token=token)

    def _request_token(self, realm: str, service: str) -> requests.Response:
        """Request a token. Redirects are not followed: they would receive the identity token too."""
        known = self._credentials
        options: dict[str, Any] = {
            "timeout": TIMEOUT,
            "allow_redirects": False,
            "stream": True,
            "auth": hosts.anonymous_auth,
        }
        try:
            hosts.check(realm, allow_private=True)
            session = hosts.session(allow_private=True)
            if known.identity_token:
                form = {"grant_type": "refresh_token", "client_id": "argotune", "refresh_token": known.identity_token}
                form |= {"service": service, "scope": " ".join(self._scopes)}
                return session.post(realm, data=form, **options)
            if known.username:
                options["auth"] = HTTPBasicAuth(known.username.encode(), known.password.encode())
            return session.get(realm, params={"service": service, "scope": self._scopes}, **options)
        except (OSError, ValueError) as error:
            raise registry_errors.from_connection_error(error, self._reference.registry) from None


def uses_plain_http(host: str) -> bool:
    """Return True for loopback addresses and hosts in ``ARGOTUNE_INSECURE_REGISTRIES``, which need no TLS."""
    host = host.lower()
    listed = [name.strip().lower() for name in os.environ.get(registry_errors.INSECURE, "").split(",") if name.strip()]
    bare = urlsplit(f"//{host}").hostname or ""
    if bare == "localhost" or host in listed or bare in listed:
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def parse_challenges(header: str) -> dict[str, dict[str, str]]:
    """Return the parameters of each scheme of a ``WWW-Authenticate`` header, by lower-case scheme."""
    challenges: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for scheme, key, quoted, bare in _CHALLENGE.findall(header):
        if scheme:
            parameters = challenges.setdefault(scheme.lower(), {})
        else:
            parameters[key.lower()] = re.sub(r"\\(.)", r"\1", quoted) or bare
    return challenges


_CHALLENGE = re.compile(
    r"(?:^|,)\s*([A-Za-z]\w*)(?=\s+[\w-]+\s*=|\s*$|\s*,)"  # A scheme: alone or before a parameter,
    r'|([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'  # which is key="quoted" or key=bare.
)
