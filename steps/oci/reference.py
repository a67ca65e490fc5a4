"""Image references: ``registry/repository[:tag][@digest]``, read as ``docker`` reads them.

Grammar: the distribution project's ``reference`` package, which KAITO's own validation calls too. ``alpine`` is
``docker.io/library/alpine``; the first part is a registry when it holds a dot, a colon or a capital, or is
``localhost``. An absent tag stays absent here; who pushes or pulls takes ``latest``.
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
    """Where an image is; ``str()`` gives the full form, which parses back to an equal value."""

    registry: str
    """Host and, where given, port."""
    repository: str
    tag: str = ""
    digest: str = ""
    """``sha256:<64 hex digits>`` (or sha384, sha512); it wins over the tag when pulling."""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{'@' + self.digest if self.digest else ''}"

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def pulled(self) -> str:
        """What the registry is asked for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """Read an image reference.

    Raises:
        BadInput: with everything that is wrong in it.
    """
    wrong: list[str] = []
    fixes: list[str] = []
    if not text or text != text.strip() or any(c.isspace() for c in text):
        raise BadInput(f"image reference {text!r} is empty or holds white space", _EXAMPLE)
    if scheme := _SCHEME.match(text):
        raise BadInput(f"image reference {text!r} has a scheme", f"write {text[scheme.end() :]!r}")
    rest, at, digest = text.partition("@")
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if at and not is_digest(digest):
        wrong.append(f"{digest!r} is not a digest")
        fixes.append("write sha256: and 64 lower-case hex digits")
    if colon and not _TAG.fullmatch(tag):
        wrong.append(f"{_cut(tag)!r} is not a tag")
        fixes.append("a tag has 1 to 128 letters, digits, '_', '.' or '-', and begins with none of the last two")
    _check_registry(registry, wrong, fixes)
    _check_repository(repository, wrong, fixes)
    if wrong:
        raise BadInput(f"image reference {_cut(text)!r}: {'; '.join(wrong)}", "; ".join(fixes))
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag, digest)


def is_digest(text: str) -> bool:
    """Whether a text is a digest of an algorithm that OCI registers and this Python can check."""
    algorithm, _, digits = text.partition(":")
    return len(digits) == DIGEST_LENGTHS.get(algorithm) and not set(digits) - set("0123456789abcdef")


_EXAMPLE = "write it as registry.example.com/team/name:1.0"


def _split_registry(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    named = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not named:
        return DOCKER_HUB, rest
    return (DOCKER_HUB if first == "index.docker.io" else first), path


def _check_registry(registry: str, wrong: list[str], fixes: list[str]) -> None:
    match = _REGISTRY.fullmatch(registry)
    if not match:
        wrong.append(f"{_cut(registry)!r} is not a registry's host name")
        fixes.append("a host name has letters, digits, '-' and '.', and perhaps ':port'")
    elif match[1] and not (len(match[1]) <= 5 and 0 < int(match[1]) < 65536):
        wrong.append(f"port {_cut(match[1])} does not exist")
        fixes.append("a port is 1 to 65535")


def _check_repository(repository: str, wrong: list[str], fixes: list[str]) -> None:
    if not repository:
        wrong.append("the repository is missing")
        fixes.append(_EXAMPLE)
    elif repository != repository.lower():
        wrong.append(f"repository {_cut(repository)!r} has capitals")
        fixes.append(f"use lower case: {_cut(repository.lower())!r}")
    elif not all(_COMPONENT.fullmatch(part) for part in repository.split("/")):
        wrong.append(f"{_cut(repository)!r} is not a repository")
        fixes.append("each part has lower-case letters and digits, joined by '.', '_', '__' or '-'")
    elif len(repository) > MAX_REPOSITORY_LENGTH:
        wrong.append(f"the repository has {len(repository)} characters")
        fixes.append(f"use at most {MAX_REPOSITORY_LENGTH}")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
