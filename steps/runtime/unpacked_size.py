"""Limit of the size that compressed data of other people can unpack to."""

from __future__ import annotations

MAX_RATIO = 200
"""Maximum of unpacked bytes per byte of gzip, which can reach 1032; text reaches 10 to 50."""
MIN_UNPACKED_BYTES = 256 * 1024 * 1024
"""Unpacked bytes that any data is allowed to have."""


def max_unpacked_bytes(packed_bytes: int) -> int:
    """Return the maximum number of bytes that ``packed_bytes`` are allowed to unpack to."""
    return max(MIN_UNPACKED_BYTES, MAX_RATIO * packed_bytes)
