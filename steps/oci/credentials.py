"""Registry credentials as docker keeps them: ``config.json`` of ``$DOCKER_CONFIG``, else of ``~/.docker``.

A Kubernetes secret of type ``kubernetes.io/dockerconfigjson`` mounted as that folder is read too; its file is called
``.dockerconfigjson``. Credential helpers are asked by the docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.oci.reference import DOCKER_HUB, Reference
from steps.runtime.errors import BadInput, StepError

HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credentials:
    """What a registry gets to see; none of it shows in ``repr``."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token, exchanged at the registry's token endpoint."""
    registry_token: str = field(default="", repr=False)
    """A bearer token, sent as it is."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every form in which these could turn up in a text."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return tuple(s for s in (pair, self.password, self.identity_token, self.registry_token) if s)


def config_files(folder: Path | None = None) -> list[Path]:
    """Files that may hold credentials, in the order they are tried; the first that exists counts.

    ``~/.docker`` comes last even where ``folder`` or ``DOCKER_CONFIG`` is set: on one machine that names the folder of
    a Kubernetes Secret which need not be there.
    """
    given = str(folder) if folder else os.environ.get("DOCKER_CONFIG")
    folders = [*([Path(given)] if given else []), Path.home() / ".docker"]
    return [folder / name for folder in folders for name in ("config.json", ".dockerconfigjson")]


def find(reference: Reference, folder: Path | None = None) -> Credentials | None:
    """Credentials for the registry of ``reference``: from its helper, else from ``auths``, else none.

    ``folder`` takes the place of ``DOCKER_CONFIG``.

    Raises:
        BadInput: when the file is not as docker writes it, or names a helper that is not there.
        StepError: when the helper fails.
    """
    file = next((f for f in config_files(folder) if f.is_file()), None)
    if file is None:
        return None
    config = _read(file)
    helper = _map(config, "credHelpers", file).get(reference.registry) or config.get("credsStore")
    if helper:
        found = _ask_helper(str(helper), reference.registry, file)
        if found:
            return found
    key = _best_key(_map(config, "auths", file), reference)
    return _entry(config["auths"][key], f"auths[{key!r}] in {file}") if key is not None else None


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise BadInput(f"{file} is not JSON ({error.__class__.__name__})", "write it with docker login") from error
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read: {error.strerror}", "make it readable, or unset DOCKER_CONFIG"
        ) from error
    if not isinstance(config, dict):
        raise BadInput(f"{file} is not a JSON object", "write it with docker login")
    return config


def _map(config: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"{key} in {file} is not a JSON object", "write it with docker login")
    return value


def _best_key(auths: dict[str, Any], reference: Reference) -> str | None:
    """Key of the entry for a registry; among several the one with the longest path that leads to the repository."""
    hosts = _HUB_HOSTS if reference.registry in _HUB_HOSTS else (reference.registry,)
    best, longest = None, -1
    for key in auths:
        host, _, path = re.sub(r"^https?:/{2}", "", key).rstrip("/").partition("/")
        path = "" if path in ("v1", "v2") else path
        fits = host in hosts and f"{reference.repository}/".startswith(f"{path}/" if path else "")
        if fits and len(path) > longest:
            best, longest = key, len(path)
    return best


def _entry(entry: Any, where: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is not a JSON object", "write it with docker login")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise BadInput(f"auth of {where} is not base64 of user:password", "write it with docker login") from None
        password = password.rstrip("\0")
    found = Credentials(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )
    return found if found != Credentials() else None


def _ask_helper(helper: str, registry: str, file: Path) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[\w.-]+", helper):
        raise BadInput(f"{file} names the credential helper {helper!r}", "a helper's name has no path")
    server = HUB_KEY if registry in _HUB_HOSTS else registry
    try:
        done = subprocess.run([program, "get"], input=server, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise BadInput(
            f"{file} names the credential helper {program}, which is not installed",
            f"install it, or put credentials for {registry} under auths",
        ) from None
    except subprocess.TimeoutExpired:
        raise StepError(
            f"{program} gave no credentials for {registry} in 60 s", "see whether it asks something"
        ) from None
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip())[:200]
        if "credentials not found" in said:
            return None
        raise StepError(f"{program} failed for {registry}: {said}", f"run: echo {server} | {program} get")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise StepError(f"{program} did not answer with Username and Secret", "see its documentation") from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)
