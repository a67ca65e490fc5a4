"""Headers of the pages of a parquet file, which say how much memory decompressing a page needs.

A footer can state any size, but a decompressed page has the size of its header, or decompression fails. Headers are
Thrift structs in the compact protocol (apache/parquet-format, PageHeader in parquet.thrift).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

DICTIONARY_PAGE = 2
MAX_HEADER = 1 << 20
"""Bytes of a header, which contains statistics: the smallest and largest value of the page."""


@dataclass(frozen=True)
class Page:
    """A page of a column chunk."""

    kind: int
    uncompressed: int
    """Bytes after decompression."""
    compressed: int
    values: int
    """Values of a data page; 0 for a dictionary."""


def read_pages(file: BinaryIO, start: int, length: int) -> Iterator[Page]:
    """Yield the pages of a column chunk that takes ``length`` bytes from ``start``; their content is skipped.

    Raises:
        ValueError: a header is damaged, or the column chunk is not in the file.
    """
    end = start + length
    if not 0 <= start <= end <= file.seek(0, os.SEEK_END):
        raise ValueError("a column chunk is outside of the file")
    while start < end:
        file.seek(start)
        header = _Header(file.read(min(MAX_HEADER, end - start)))
        try:
            fields = header.read_struct()
            data = fields.get(5) or fields.get(8) or {}  # data_page_header, data_page_header_v2
            page = Page(int(fields[1]), int(fields[2]), int(fields[3]), int(data.get(1, 0)))
        except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("a page header is damaged") from error
        if page.compressed < 0 or page.uncompressed < 0:
            raise ValueError("a page header has a negative size")
        yield page
        start += header.position + page.compressed


class _Header:
    """Reader of Thrift's compact protocol, for integers and structs; other fields are skipped."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def read_struct(self) -> dict[int, Any]:
        """Return the fields that are integers or structs by number."""
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            delta, kind = kind >> 4, kind & 0x0F
            number = number + delta if delta else self._zigzag()
            if kind in (4, 5, 6):
                fields[number] = self._zigzag()
            elif kind == 12:
                fields[number] = self.read_struct()
            else:
                self._skip(kind)
        return fields

    def _skip(self, kind: int, *, in_list: bool = False) -> None:
        if kind in (1, 2):
            self.position += in_list  # a boolean field has its value in its type
        elif kind == 3:
            self.position += 1
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 7:
            self.position += 8
        elif kind == 8:
            length = self._varint()
            self.position += length
        elif kind in (9, 10):
            size = self._byte()
            count = size >> 4 if size >> 4 < 15 else self._varint()
            for _ in range(count):
                self._skip(size & 0x0F, in_list=True)
        elif kind == 12:
            self.read_struct()
        else:
            raise ValueError(f"a page header has a field of type {kind}")

    def _byte(self) -> int:
        self.position += 1
        return self._content[self.position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page header has a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
