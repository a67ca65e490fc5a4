"""Interface of a remote file of any scheme: its bytes from an offset, and properties that detect a change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from steps.runtime.errors import TransientError


@dataclass(frozen=True)
class FileState:
    """Properties of a remote file; ``sha256`` is known after the download."""

    size: int | None = None
    etag: str = ""
    """Entity tag, or the version of an object."""
    last_modified: str = ""
    sha256: str = ""

    @property
    def validator(self) -> str:
        """Value of If-Range, which accepts no weak entity tag (RFC 9110, 13.1.5); empty: a part cannot be resumed."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def is_same(self, content: Content) -> bool:
        """Return True if partial content belongs to this file; some servers ignore If-Range."""
        modified = content.last_modified or self.last_modified
        return (content.size, content.etag, modified) == (self.size, self.etag, self.last_modified)


@dataclass(frozen=True)
class Content:
    """Bytes of a file from ``start`` on, and properties of the whole file."""

    start: int
    """Offset of the first byte; -1 if the server does not report it."""
    size: int | None
    etag: str
    last_modified: str
    read: Callable[[], bytes]
    """Return the next bytes; none at the end."""
    resumable: bool = True
    """False if offsets of the bytes are unknown (encoded content)."""


class FileChanged(TransientError):
    """The file is not the one whose part is on disk."""

    def __init__(self) -> None:
        super().__init__("the file has changed on the server")


class RemoteFile(Protocol):
    """A file of one scheme."""

    @property
    def shown(self) -> str:
        """URL without secrets, for output and records."""

    def read_range(self, start: int, end: int) -> tuple[bytes, int | None]:
        """Return the bytes from ``start`` up to ``end`` or the end of the file, and the size of the file.

        Without support of ranges: the bytes from 0 up to ``end``, and None.

        Raises:
            BadInput, TransientError: as ``open``.
        """

    def open(self, offset: int, known: FileState) -> AbstractContextManager[Content]:
        """Return the content from ``offset`` on, or from 0 if the file is not the ``known`` one.

        Raises:
            BadInput: the file does not exist, or must not be read.
            FileChanged: the file is not the known one.
            TransientError: the server is unreachable, slow or busy.
        """
