"""ASGI middleware that requires an API key (``Authorization: Bearer KEY``).

Standard library and Starlette only, as vLLM loads it without our packages.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from steps.serving.allowlist import HEALTH, READY
from steps.serving.api_keys import FOLDER_VARIABLE, ApiKeys
from steps.serving.asgi import error_response

CLIENT = "argotune.client"
"""Key of an ASGI scope with the name of the client's key."""
OPEN_PATHS = (HEALTH, READY)
"""Paths of probes, which send no key."""
_SCHEME = "bearer "


class ApiKeyCheck:
    """ASGI middleware that requires a key in requests other than probes and preflight requests of browsers.

    Without a folder in the environment it passes everything.
    """

    def __init__(self, app: ASGIApp) -> None:
        folder = os.environ.get(FOLDER_VARIABLE, "")
        self.app = app
        self.keys = ApiKeys(Path(folder)) if folder else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with a valid key on, without the key."""
        is_open = scope["type"] != "http" or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"
        if self.keys is None or is_open:
            await self.app(scope, receive, send)
            return
        key = _bearer_token(scope)
        name = self.keys.find(key) if key else ""
        if name:
            headers = [(header, value) for header, value in scope["headers"] if header.lower() != b"authorization"]
            if own := os.environ.get("VLLM_API_KEY"):
                headers.append((b"authorization", f"Bearer {own}".encode()))
            await self.app({**scope, "headers": headers, CLIENT: name}, receive, send)
            return
        message = "the API key is not valid" if key else "an API key is required: send Authorization: Bearer KEY"
        challenge = 'Bearer realm="argotune"' + (', error="invalid_token"' if key else "")
        response = error_response(
            HTTPStatus.UNAUTHORIZED, message, headers={"www-authenticate": challenge}, code="invalid_api_key"
        )
        await response(scope, receive, send)


def _bearer_token(scope: Scope) -> str:
    """Return the key of a request with exactly one ``Authorization: Bearer`` header, else ""."""
    values = [value.decode("latin-1") for header, value in scope["headers"] if header.lower() == b"authorization"]
    if len(values) != 1 or not values[0].lower().startswith(_SCHEME):
        return ""
    return values[0][len(_SCHEME) :].strip()
