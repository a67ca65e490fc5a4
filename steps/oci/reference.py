"""Image references: ``registry/repository[:tag][@digest]``, parsed as ``docker`` does.

Grammar: the distribution project's ``reference`` package, which KAITO's validation calls too. ``alpine`` is
``docker.io/library/alpine``; the first part is a registry if it contains a dot, a colon or a capital, or is
``localhost``. A missing tag stays empty; push and pull use ``latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steps.runtime.errors import BadInput

DOCKER_HUB = "docker.io"
MAX_REPOSITORY_LENGTH = 255
DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::([0-9]+))?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_SCHEME = re.compile(r"[a-z][a-z0-9-]*:/{2}")


@dataclass(frozen=True)
class Reference:
    """Reference of an image; ``str()`` returns the full form, which parses to an equal value."""

    registry: str
    """Host and optional port."""
    repository: str
    tag: str = ""
    digest: str = ""
    """``sha256:<64 hex digits>`` (or sha384, sha512); has precedence over the tag when pulling."""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{'@' + self.digest if self.digest else ''}"

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def host(self) -> str:
        """Registry in the form to compare: lower case, without the default port."""
        return normalize_host(self.registry)

    @property
    def tag_or_digest(self) -> str:
        """Name of the manifest to pull: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """Parse an image reference.

    Raises:
        BadInput: all errors in it.
    """
    errors: list[str] = []
    fixes: list[str] = []
    if not text or text != text.strip() or any(c.isspace() for c in text):
        raise BadInput(f"image reference {_shorten(text)!r} is empty or contains white space", _EXAMPLE)
    if scheme := _SCHEME.match(text):
        raise BadInput(f"image reference {_shorten(text)!r} has a scheme", f"write {_shorten(text[scheme.end() :])!r}")
    rest, at, digest = text.partition("@")
    digest = normalize_digest(digest)
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if at and not is_digest(digest):
        errors.append(f"{_shorten(digest)!r} is not a digest")
        fixes.append("write sha256: and 64 hex digits")
    if colon and not _TAG.fullmatch(tag):
        errors.append(f"{_shorten(tag)!r} is not a tag")
        fixes.append("a tag has 1 to 128 letters, digits, '_', '.' or '-', and does not begin with '.' or '-'")
    _check_registry(registry, errors, fixes)
    _check_repository(repository, errors, fixes)
    if errors:
        raise BadInput(f"image reference {_shorten(text)!r}: {'; '.join(errors)}", "; ".join(fixes))
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag, digest)


def normalize_host(registry: str) -> str:
    """Return a registry in lower case and without the default port of https."""
    return registry.lower().removesuffix(":443")


def normalize_digest(text: str) -> str:
    """Return a digest with its hex digits in lower case, as OCI defines them; other texts unchanged."""
    algorithm, colon, digits = text.partition(":")
    lowered = f"{algorithm}{colon}{digits.lower()}"
    return lowered if is_digest(lowered) else text


def is_digest(text: str) -> bool:
    """Return True for a digest of an algorithm registered by OCI and available in Python."""
    algorithm, _, digits = text.partition(":")
    return len(digits) == DIGEST_LENGTHS.get(algorithm) and not set(digits) - set("0123456789abcdef")


_EXAMPLE = "write it as registry.example.com/team/name:1.0"


def _split_registry(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    is_registry = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_registry:
        return DOCKER_HUB, rest
    return (DOCKER_HUB if first == "index.docker.io" else first), path


def _check_registry(registry: str, errors: list[str], fixes: list[str]) -> None:
    match = _REGISTRY.fullmatch(registry)
    if not match:
        errors.append(f"{_shorten(registry)!r} is not a host name")
        fixes.append("a host name has letters, digits, '-' and '.', and optionally ':port'")
    elif match[1] and not (len(match[1]) <= 5 and 0 < int(match[1]) < 65536):
        errors.append(f"port {_shorten(match[1])} is out of range")
        fixes.append("a port is 1 to 65535")


def _check_repository(repository: str, errors: list[str], fixes: list[str]) -> None:
    if not repository:
        errors.append("the repository is missing")
        fixes.append(_EXAMPLE)
    elif repository != repository.lower():
        errors.append(f"repository {_shorten(repository)!r} has capitals")
        fixes.append(f"use lower case: {_shorten(repository.lower())!r}")
    elif not all(_COMPONENT.fullmatch(part) for part in repository.split("/")):
        errors.append(f"{_shorten(repository)!r} is not a repository")
        fixes.append("each part has lower-case letters and digits, joined by '.', '_', '__' or '-'")
    elif len(repository) > MAX_REPOSITORY_LENGTH:
        errors.append(f"the repository has {len(repository)} characters")
        fixes.append(f"use at most {MAX_REPOSITORY_LENGTH}")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
