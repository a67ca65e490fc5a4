"""What a server asks for before the next try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry


class Response(Protocol):
    """An answer of requests, or of another client."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Whatever the case of their names."""


def retry_after(response: Response) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3); None where it is absent or senseless."""
    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None
