"""A file by http or https: ranges, entity tags, redirects, and a minimum speed."""

from __future__ import annotations

import functools
import http.client
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from urllib3.exceptions import HTTPError

from steps.data.locations.remote_file import Content, FileChanged, FileState
from steps.runtime import connection_failure, hosts
from steps.runtime.errors import BadInput, TransientError
from steps.runtime.http_body import BodyTooLarge, iter_body
from steps.runtime.retry import retry_after

TIMEOUTS = (15, 60)  # seconds to connect, and between bytes


@dataclass(frozen=True)
class HttpFile:
    """A URL."""

    url: str
    shown: str
    allow_private: bool = False

    @contextmanager
    def open(self, offset: int, known: FileState) -> Iterator[Content]:
        """Request the bytes from ``offset`` on; see ``RemoteFile``."""
        headers = {"Range": f"bytes={offset}-", "If-Range": known.validator} if offset else {}
        with self.respond(headers) as response:
            yield self._content(response, offset, known)

    def read_range(self, start: int, end: int) -> tuple[bytes, int | None]:
        """Return a part of the file, and its size; see ``RemoteFile``."""
        with self.respond({"Range": f"bytes={start}-{end - 1}"}) as response:
            if response.status_code == 416:
                return b"", _content_range(response)[1]
            self.check_status(response)
            is_part = response.status_code == 206 and _content_range(response)[0] == start
            body, read = bytearray(), _reader(response)
            while len(body) < end - (start if is_part else 0) and (part := read()):
                body += part
            return bytes(body[: end - (start if is_part else 0)]), _content_range(response)[1] if is_part else None

    @contextmanager
    def respond(self, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """Request the URL; errors are those of ``open``, except those of the status."""
        # Identity: lengths and ranges of an encoded response count encoded bytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "argotune", **headers}
        try:
            private = self.allow_private
            with (
                hosts.session(allow_private=private) as session,
                hosts.get(session, self.url, headers, allow_private=private, timeout=TIMEOUTS) as response,
            ):
                yield response
        except socket.gaierror as error:
            raise TransientError(f"a host name does not resolve: {error.strerror}") from error
        except (requests.RequestException, HTTPError) as error:
            raise self._connection_error(error) from error
        except BodyTooLarge as error:
            fix = "check the server, or let it send the file without Content-Encoding"
            raise BadInput(f"{self.shown}: {error}", fix) from error

    def _content(self, response: requests.Response, offset: int, known: FileState) -> Content:
        status = response.status_code
        if status == 416 and offset and _content_range(response)[1] == offset == known.size:
            # The step was killed after the last byte.
            return Content(offset, offset, known.etag, known.last_modified, lambda: b"")
        self.check_status(response)
        start, size = _content_range(response) if status == 206 else (0, _content_length(response))
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        return Content(start, size, etag, modified, _reader(response), _is_plain(response))

    def check_status(self, response: requests.Response) -> None:
        """Raise the error of a response that is neither 200 nor 206."""
        status = response.status_code
        if status in (200, 206):
            return
        message = f"{status} {response.reason or http.client.responses.get(status, '')}".strip()
        if status == 416:
            raise FileChanged
        if connection_failure.is_transient_status(status):
            raise TransientError(message, retry_after=retry_after(response))
        raise BadInput(f"{self.shown}: {message}", hosts.access_fix(self.url, status))

    def _connection_error(self, error: Exception) -> Exception:
        failure = connection_failure.classify(error)
        return (
            BadInput(f"{self.shown}: {failure.reason}", failure.fix)
            if failure.is_permanent
            else TransientError(failure.reason)
        )


def _reader(response: requests.Response) -> Callable[[], bytes]:
    """Return a function that reads the next bytes, or none at the end."""
    return functools.partial(next, iter_body(response, decode=not _is_plain(response)), b"")


def _is_plain(response: requests.Response) -> bool:
    encoding: str = response.headers.get("Content-Encoding", "identity")
    return encoding == "identity"


def _content_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Return first byte (-1 if absent) and total size of a Content-Range (RFC 9110, 14.4)."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found:
        return -1, None
    return int(found[1] or -1), None if found[2] == "*" else int(found[2])
