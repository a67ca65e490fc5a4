"""What a server asks for before the next try."""

from __future__ import annotations

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry


def retry_after(response: requests.Response) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3); None where it is absent or senseless."""
    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None
