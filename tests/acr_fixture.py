"""An Azure Container Registry: its token endpoints before a real registry; and Entra for a pod's identity."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from registry_fixture import Answer, Front, Request

TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
ASSERTION, ENTRA_TOKEN = "canary-assertion-of-the-pod", "canary-token-of-entra"


class Acr:
    """Checks tokens before a front lets a request through to its registry (Azure/acr, docs/AAD-OAuth.md)."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.address = front.address
        self.refresh: set[str] = set()
        self.access: dict[str, str] = {}
        self.exchanges = self.issued = 0
        self.roles = "pull,push"
        front.before = self.answer

    def answer(self, request: Request) -> Answer | None:
        path = request.path.partition("?")[0]
        if path == "/oauth2/exchange":
            return self.exchange(fields(request))
        if path == "/oauth2/token":
            # GET requests have a password, or no credentials.
            known = request.method == "POST"
            return self.token(fields(request)) if known else denied(401, "UNAUTHORIZED", "authentication required")
        granted = self.access.get(request.headers.pop("authorization", "").removeprefix("Bearer "))
        needed = "pull" if request.method in ("GET", "HEAD") and "/uploads/" not in path else "push"
        if granted is not None and needed in granted:
            return None
        if granted is not None:
            return denied(401, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization")
        realm = f'Bearer realm="http://{self.address}/oauth2/token",service="{self.address}",scope="x"'
        return Answer(401, {"WWW-Authenticate": realm})

    def exchange(self, given: dict[str, str]) -> Answer:
        expected = {"grant_type": "access_token", "service": self.address, "tenant": TENANT}
        if given != expected | {"access_token": ENTRA_TOKEN}:
            return denied(401, "UNAUTHORIZED", f"authentication required for {given}")
        self.exchanges += 1
        self.refresh.add(f"canary-refresh-{self.exchanges}")
        return told({"refresh_token": f"canary-refresh-{self.exchanges}"})

    def token(self, given: dict[str, str]) -> Answer:
        if given.get("grant_type") != "refresh_token" or given.get("service") != self.address:
            return denied(400, "BAD_REQUEST", "no such grant")
        if given.get("refresh_token") not in self.refresh:
            return denied(401, "UNAUTHORIZED", "refresh token is invalid or expired")
        self.issued += 1
        name = f"canary-access-{self.issued}"
        self.access[name] = self.roles if ":pull,push" in given["scope"] else "pull"
        return told({"access_token": name})


class Entra:
    """The token endpoint of Microsoft Entra over TLS, which takes the assertion of a pod (RFC 7523)."""

    def __init__(self, key: Path, certificate: Path) -> None:
        self.front = Front("nobody")
        self.front.use_tls(key, certificate)
        self.front.before = self.answer
        self.url = f"https://{self.front.address}"
        self.asked: list[dict[str, str]] = []

    def answer(self, request: Request) -> Answer:
        given = fields(request)
        self.asked.append(given)
        assert request.path.partition("?")[0] == f"/{TENANT}/oauth2/v2.0/token"
        if (given.get("client_id"), given.get("client_assertion")) != (CLIENT, ASSERTION):
            error = {"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity"}
            return Answer(401, {"Content-Type": "application/json"}, json.dumps(error).encode())
        return told({"token_type": "Bearer", "expires_in": 3599, "access_token": ENTRA_TOKEN})


@contextmanager
def workload_identity(folder: Path, acr: Acr) -> Iterator[Entra]:
    """The environment that Azure's webhook gives to a pod, and who answers there."""
    folder.mkdir(exist_ok=True)
    key, certificate, token = folder / "key.pem", folder / "certificate.pem", folder / "assertion"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(make, check=True, capture_output=True)
    token.write_text(ASSERTION)
    entra = Entra(key, certificate)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AZURE_AUTHORITY_HOST": entra.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "REQUESTS_CA_BUNDLE": str(certificate),
            "ARGOTUNE_AZURE_REGISTRIES": acr.address,
        }.items():
            environment.setenv(name, value)
        yield entra
    entra.front.close()


def fields(request: Request) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(request.body.decode()).items()}


def told(content: dict[str, object]) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def denied(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)
