"""A fake Azure Container Registry (token endpoints in front of a real registry), and a fake Microsoft Entra."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from certificates import KeyPair, write_certificate
from registry_fixture import Answer, Front, Request

TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
ASSERTION, ENTRA_TOKEN = "canary-assertion-of-the-pod", "canary-token-of-entra"


class Acr:
    """Checks the token of each request before it is forwarded to the registry (Azure/acr, docs/AAD-OAuth.md)."""

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
            return (
                self.token(fields(request))
                if known
                else error_response(401, "UNAUTHORIZED", "authentication required")
            )
        granted = self.access.get(request.headers.pop("authorization", "").removeprefix("Bearer "))
        required = "pull" if request.method in ("GET", "HEAD") and "/uploads/" not in path else "push"
        if granted is not None and required in granted:
            return None
        if granted is not None:
            return error_response(
                401, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization"
            )
        realm = f'Bearer realm="http://{self.address}/oauth2/token",service="{self.address}",scope="x"'
        return Answer(401, {"WWW-Authenticate": realm})

    def exchange(self, form: dict[str, str]) -> Answer:
        expected = {"grant_type": "access_token", "service": self.address, "tenant": TENANT}
        if form != expected | {"access_token": ENTRA_TOKEN}:
            return error_response(401, "UNAUTHORIZED", f"authentication required for {form}")
        self.exchanges += 1
        self.refresh.add(f"canary-refresh-{self.exchanges}")
        return json_response({"refresh_token": f"canary-refresh-{self.exchanges}"})

    def token(self, form: dict[str, str]) -> Answer:
        if form.get("grant_type") != "refresh_token" or form.get("service") != self.address:
            return error_response(400, "BAD_REQUEST", "no such grant")
        if form.get("refresh_token") not in self.refresh:
            return error_response(401, "UNAUTHORIZED", "refresh token is invalid or expired")
        self.issued += 1
        name = f"canary-access-{self.issued}"
        self.access[name] = self.roles if ":pull,push" in form["scope"] else "pull"
        return json_response({"access_token": name})


class Entra:
    """The token endpoint of Microsoft Entra over TLS, which accepts the assertion of a pod (RFC 7523)."""

    def __init__(self, pair: KeyPair) -> None:
        self.front = Front("no registry")
        self.front.use_tls(*pair)
        self.front.before = self.answer
        self.url = f"https://{self.front.address}"
        self.requests: list[dict[str, str]] = []

    def answer(self, request: Request) -> Answer:
        form = fields(request)
        self.requests.append(form)
        assert request.path.partition("?")[0] == f"/{TENANT}/oauth2/v2.0/token"
        if (form.get("client_id"), form.get("client_assertion")) != (CLIENT, ASSERTION):
            error = {"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity"}
            return Answer(401, {"Content-Type": "application/json"}, json.dumps(error).encode())
        return json_response({"token_type": "Bearer", "expires_in": 3599, "access_token": ENTRA_TOKEN})


@contextmanager
def workload_identity(folder: Path, acr: Acr) -> Iterator[Entra]:
    """Set the environment that Azure's webhook sets in a pod, with a fake Entra."""
    folder.mkdir(exist_ok=True)
    pair = write_certificate(folder)
    token = folder / "assertion"
    token.write_text(ASSERTION)
    entra = Entra(pair)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AZURE_AUTHORITY_HOST": entra.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "REQUESTS_CA_BUNDLE": str(pair.certificate),
            "ARGOTUNE_AZURE_REGISTRIES": acr.address,
        }.items():
            environment.setenv(name, value)
        yield entra
    entra.front.close()


def fields(request: Request) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(request.body.decode()).items()}


def json_response(content: dict[str, object]) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def error_response(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)
