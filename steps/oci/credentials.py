"""Registry credentials in docker's format: ``config.json`` of ``$DOCKER_CONFIG``, else of ``~/.docker``.

A mounted Kubernetes secret of type ``kubernetes.io/dockerconfigjson`` is read too; its file is ``.dockerconfigjson``.
Of several Secrets (``secret_volume.py``), the most specific entry wins, then the first one, as in the kubelet.
Credential helpers are called by the docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.oci import secret_volume
from steps.oci.reference import DOCKER_HUB, Reference, normalize_host
from steps.runtime.errors import BadInput, StepError
from steps.runtime.json_text import parse_json

HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Credentials:
    """Credentials for a registry, hidden in ``repr``."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token, exchanged at the registry's token endpoint."""
    registry_token: str = field(default="", repr=False)
    """A bearer token, sent unchanged."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every form in which these can appear in a text."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return tuple(s for s in (pair, self.password, self.identity_token, self.registry_token) if s)


def config_files(folder: Path | None = None) -> list[Path]:
    """Return the files that can contain credentials; those of the first folder that has one are used.

    ``~/.docker`` is always last: in local runs ``folder`` or ``DOCKER_CONFIG`` can name the directory of a Kubernetes
    Secret that does not exist.
    """
    return [place / name for place in _folders(folder) for name in ("config.json", secret_volume.KEY)]


def find(reference: Reference, folder: Path | None = None) -> Credentials | None:
    """Return credentials for the registry of ``reference``: from its helper, else from ``auths``, else None.

    ``folder`` overrides ``DOCKER_CONFIG``.

    Raises:
        BadInput: the file is not in docker's format, or names a helper that is not installed.
        StepError: the helper fails.
    """
    entries: dict[str, tuple[Any, Path]] = {}
    for file in _existing_files(folder):
        config = _read(file)
        helper = _get_object(config, "credHelpers", file).get(reference.registry) or config.get("credsStore")
        if helper and (credentials := _call_helper(str(helper), reference.registry, file)):
            return credentials
        for key, entry in _get_object(config, "auths", file).items():
            if entry != {}:  # docker's mark for an entry of a helper
                entries.setdefault(key, (entry, file))
    best = _best_key(entries, reference)
    if best is None:
        return None
    entry, file = entries[best]
    return _parse_entry(entry, f"auths[{best!r}] in {file}")


def _folders(folder: Path | None) -> list[Path]:
    configured = str(folder) if folder else os.environ.get("DOCKER_CONFIG")
    return [*([Path(configured)] if configured else []), Path.home() / ".docker"]


def _existing_files(folder: Path | None) -> list[Path]:
    """Return the files with credentials, the first one winning."""
    for place in _folders(folder):
        first = secret_volume.secret_file(place, 0)
        # Not of the home directory, where users keep copies of files.
        more = secret_volume.further_files(place) if place != Path.home() / ".docker" else []
        if files := [*([first] if first else []), *more]:
            return files
    return []


def _read(file: Path) -> dict[str, Any]:
    try:
        config = parse_json(file.read_bytes())
    except ValueError as error:
        raise BadInput(f"{file} is not JSON ({error.__class__.__name__})", "write it with docker login") from error
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read: {error.strerror}", "make it readable, or unset DOCKER_CONFIG"
        ) from error
    if not isinstance(config, dict):
        raise BadInput(f"{file} is not a JSON object", "write it with docker login")
    return config


def _get_object(config: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"{key} in {file} is not a JSON object", "write it with docker login")
    return value


def _best_key(auths: Iterable[str], reference: Reference) -> str | None:
    """Return the key of the registry's entry with the longest path that contains the repository."""
    hosts = _HUB_HOSTS if reference.host in _HUB_HOSTS else (reference.host,)
    best, longest = None, -1
    for key in auths:
        host, _, path = re.sub(r"^https?:/{2}", "", key).rstrip("/").partition("/")
        path = "" if path in ("v1", "v2") else path
        matches = normalize_host(host) in hosts and f"{reference.repository}/".startswith(f"{path}/" if path else "")
        if matches and len(path) > longest:
            best, longest = key, len(path)
    return best


def _parse_entry(entry: Any, source: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise BadInput(f"{source} is not a JSON object", "write it with docker login")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise BadInput(f"auth of {source} is not base64 of user:password", "write it with docker login") from None
        password = password.rstrip("\0")
    credentials = Credentials(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )
    return credentials if credentials != Credentials() else None


def _call_helper(helper: str, registry: str, file: Path) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[\w.-]{1,100}", helper):
        raise BadInput(f"{file} names the credential helper {helper[:200]!r}", "name the helper without a path")
    server = HUB_KEY if registry in _HUB_HOSTS else registry
    try:
        done = subprocess.run([program, "get"], input=server, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise BadInput(
            f"{file} names the credential helper {program}, which is not installed",
            f"install it, or add credentials for {registry} under auths",
        ) from None
    except OSError as error:
        raise BadInput(f"{program} cannot be run: {error.strerror}", "make it executable") from None
    except subprocess.TimeoutExpired:
        raise StepError(
            f"{program} returned no credentials for {registry} in 60 s", "check that it does not wait for input"
        ) from None
    if done.returncode:
        message = (done.stdout.strip() or done.stderr.strip())[:200]
        if "credentials not found" in message:
            return None
        raise StepError(f"{program} failed for {registry}: {message}", f"run: echo {server} | {program} get")
    try:
        response = parse_json(done.stdout)
        username, secret = str(response["Username"]), str(response["Secret"])
    except (ValueError, KeyError, TypeError):
        raise StepError(f"{program} did not return Username and Secret", "check its documentation") from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)
