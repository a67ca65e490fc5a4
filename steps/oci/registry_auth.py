"""Who we are to a registry: Basic, Bearer token or nobody, as its challenge asks.

Tokens after distribution's "token authentication specification" and docker's OAuth2 addition for identity tokens.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from steps.oci import credentials, registry_azure, registry_errors
from steps.oci.reference import Reference
from steps.oci.registry_errors import TIMEOUT
from steps.runtime.errors import StepError, TransientError


class RegistryAuth(AuthBase):
    """Authorization for one repository: a callable that requests takes as ``auth``.

    Its presence also keeps requests from sending what stands in ~/.netrc.
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
        self._origin = urlsplit(base)[:2]
        self._header = ""
        found = credentials.find(reference, docker_config)
        self.known = found is not None
        """Whether there are credentials for the registry."""
        self._credentials = found or credentials.Credentials()
        self._by_azure = found is None and registry_azure.is_azure(reference.registry)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request to the registry; an upload may go on at another host, which gets nothing."""
        if self._header and urlsplit(str(request.url))[:2] == self._origin:
            request.headers["Authorization"] = self._header
        return request

    def answer(self, response: requests.Response) -> bool:
        """Prepare for the challenge of a 401 (RFC 9110, 11.6.1); False when there is nothing new to answer with.

        Raises:
            StepError: when the token server refuses, or is no https address.
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
        """Take out of an error what a server may have echoed."""
        for secret in sorted(
            {*self._credentials.secrets, self._header.partition(" ")[2]} - {""}, key=len, reverse=True
        ):
            error.message = error.message.replace(secret, "***")
        error.args = (error.message,)
        return error

    def refused(self, response: requests.Response) -> StepError:
        """The error for an answer that is not what was asked for, without what a server may have echoed."""
        error = registry_errors.refused(
            response, self._reference, push=self._push, known=self.known, azure=self._by_azure
        )
        return self.redacted(error)

    def _token(self, challenge: Mapping[str, str]) -> str:
        known, registry = self._credentials, self._reference.registry
        if known.registry_token:
            return known.registry_token
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and plain_http(parts.netloc)):
            fix = f"ask its operator; if it is your own, list it in {registry_errors.INSECURE}"
            raise StepError(f"{registry} sends us for a token to {realm!r}, which is not https", fix)
        service = challenge.get("service", "")
        if self._by_azure and not known.identity_token:
            self._log_in_by_azure(service)
        response = self._ask(realm, service)
        if response.status_code in (400, 401) and self._by_azure and known.identity_token:
            self._log_in_by_azure(service)  # An ACR's refresh token ends after three hours.
            response = self._ask(realm, service)
        if response.status_code != 200:
            raise self.refused(response)
        try:
            answer = response.json()
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise TransientError(f"{parts.netloc} gave no token for {registry}", "ask its operator") from None

    def _log_in_by_azure(self, service: str) -> None:
        origin = f"{self._origin[0]}://{self._origin[1]}"
        token = registry_azure.refresh_token(self._reference, origin, service, push=self._push)
        self.known = bool(token)
        self._credentials = credentials.Credentials(identity_token=token)

    def _ask(self, realm: str, service: str) -> requests.Response:
        """Ask for a token. Redirects are not followed: the form of an identity token would go along."""
        known = self._credentials
        call: dict[str, Any] = {"timeout": TIMEOUT, "allow_redirects": False, "auth": nobody}
        try:
            if known.identity_token:
                form = {"grant_type": "refresh_token", "client_id": "argotune", "refresh_token": known.identity_token}
                form |= {"service": service, "scope": " ".join(self._scopes)}
                return requests.post(realm, data=form, **call)
            if known.username:
                call["auth"] = HTTPBasicAuth(known.username.encode(), known.password.encode())
            return requests.get(realm, params={"service": service, "scope": self._scopes}, **call)
        except requests.RequestException as error:
            raise registry_errors.lost(error, self._reference.registry) from None


def plain_http(host: str) -> bool:
    """Whether to talk to ``host[:port]`` without TLS: this machine, or listed in ``ARGOTUNE_INSECURE_REGISTRIES``."""
    listed = [name.strip() for name in os.environ.get(registry_errors.INSECURE, "").split(",") if name.strip()]
    bare = urlsplit(f"//{host}").hostname or ""
    if bare == "localhost" or host in listed or bare in listed:
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def parse_challenges(header: str) -> dict[str, dict[str, str]]:
    """Parameters of each scheme of a ``WWW-Authenticate`` header, by the scheme's lower-case name."""
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for scheme, key, quoted, bare in _CHALLENGE.findall(header):
        if scheme:
            parameters = found.setdefault(scheme.lower(), {})
        else:
            parameters[key.lower()] = re.sub(r"\\(.)", r"\1", quoted) or bare
    return found


_CHALLENGE = re.compile(
    r"(?:^|,)\s*([A-Za-z]\w*)(?=\s+[\w-]+\s*=|\s*$|\s*,)"  # A scheme stands alone or before a parameter,
    r'|([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'  # which is key="quoted" or key=bare.
)


def nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Nothing of ~/.netrc either."""
    return request
