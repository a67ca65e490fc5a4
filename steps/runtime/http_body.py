"""Bodies of HTTP responses: streamed, with a maximum size and a minimum speed."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from steps.runtime import speed
from steps.runtime.unpacked_size import MAX_RATIO, max_unpacked_bytes

MAX_IGNORED_BYTES = 64 * 1024
"""Bytes of a body without use that are read so that the connection can be used again."""
CHUNK = 1024 * 1024
DECODED_CHUNK = 16 * 1024
"""Compressed bytes that are unpacked at a time, to at most a thousand times as many."""


class BodyTooLarge(Exception):
    """A body exceeds its maximum size."""


def iter_body(response: requests.Response, *, decode: bool = False) -> Iterator[bytes]:
    """Yield the bytes of a streamed body as they arrive; with ``decode`` those of a compressed body, unpacked.

    Raises:
        BodyTooLarge: it unpacks to more than ``max_unpacked_bytes`` of what has arrived.
        requests.RequestException, urllib3.exceptions.HTTPError: the connection was lost.
        TransientError: less than the minimum speed.
    """
    guard, length = speed.SpeedGuard(speed.MIN_SPEED), 0
    # read1: iter_content waits for a whole chunk, so that a slow server would never be noticed.
    while data := response.raw.read1(DECODED_CHUNK if decode else CHUNK, decode_content=decode):
        guard.add(len(data))
        length += len(data)
        if decode and length > max_unpacked_bytes(response.raw.tell()):
            raise BodyTooLarge(f"the body unpacks to more than {MAX_RATIO} times its size")
        yield data


def read_body(response: requests.Response, max_bytes: int, *, decode: bool = False) -> bytes:
    """Return a streamed body.

    Raises:
        BodyTooLarge: it has more than ``max_bytes``; the rest is not read.
        Exception: as ``iter_body``.
    """
    content = bytearray()
    for data in iter_body(response, decode=decode):
        content += data
        if len(content) > max_bytes:
            raise BodyTooLarge(f"more than {max_bytes} bytes")
    return bytes(content)


def discard_body(response: requests.Response) -> None:
    """Read a body that is not needed; close the connection of a large one.

    Raises:
        Exception: as ``iter_body``.
    """
    length = 0
    for data in iter_body(response):
        length += len(data)
        if length > MAX_IGNORED_BYTES:
            break
    response.close()
