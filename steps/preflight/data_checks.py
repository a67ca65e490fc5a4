"""Checks that data files exist and have a supported format, by their first bytes, and for parquet the last ones.

A parquet file starts with ``PAR1`` and ends with its footer, the footer's length in four bytes, and ``PAR1``
(apache/parquet-format, README, "File format").
"""

from __future__ import annotations

import concurrent.futures
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import requests
from urllib3.exceptions import HTTPError

from steps.data.formats import compressed, content, file_names, folders
from steps.data.formats.file_names import FileFormat
from steps.data.locations import location
from steps.preflight import location_checks
from steps.runtime import connection_failure, hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

MAGIC = b"PAR1"
MIN_PARQUET_BYTES = 12
"""Minimum size of a parquet file: the magic bytes twice, and the footer's length."""
RETRY = RetryPolicy(max_attempts=3, max_retry_after_seconds=30.0)
TIMEOUT = (10.0, 30.0)
MAX_CONNECTIONS = 8


def check_urls(
    urls: Sequence[str], pattern: str = "", *, allow_private: bool = False, wait: Sleep = time.sleep
) -> Iterator[str | StepError]:
    """Check each location; yield a sentence if it passes, otherwise the error.

    If a server does not support ranges, only the start of the file is checked.
    """

    def check(url: str) -> str | StepError:
        try:
            if not location.is_single_file(url):
                return location_checks.check_location(url, pattern, RETRY, allow_private=allow_private, wait=wait)
            return _check_url(urldefrag(url.strip())[0], allow_private, wait)
        except StepError as error:
            return error

    if urls:
        with concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
            yield from pool.map(check, urls)


def check_folder(source: Path, pattern: str = "") -> Iterator[str | StepError]:
    """Check each data file of a folder, or a single file."""
    try:
        found = folders.find_data_files(source, pattern).files
    except BadInput as error:
        yield error
        return
    for file in found.values():
        try:
            yield _check_file(file)
        except BadInput as error:
            yield error
        except OSError as error:
            yield BadInput(
                f"{file} cannot be read: {error.strerror}", "check the owner and the mode of the volume's files"
            )


def _check_file(path: Path) -> str | StepError:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        if not _is_parquet(path.name, head):
            detected = content.detect(path, str(path))
            return _describe(str(path), detected.format, detected.compression, size)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    return _format_error(str(path), head, tail, size) or f"{path} is parquet, {size} bytes"


def _check_url(url: str, allow_private: bool, wait: Sleep) -> str | StepError:
    shown = hosts.shown(url)
    with hosts.session(allow_private=allow_private) as session:
        try:
            return retry_call(lambda: _read_ends(session, url, allow_private), RETRY, retry_if=_can_retry, sleep=wait)
        except TransientError as error:
            return StepError(f"{shown}: {error.message}", "check that the server is running and reachable")


def _can_retry(error: Exception) -> bool:
    return is_transient(error) and (getattr(error, "retry_after", None) or 0) <= RETRY.max_retry_after_seconds


def _read_ends(session: requests.Session, url: str, allow_private: bool) -> str | StepError:
    shown, name = hosts.shown(url), unquote(urlsplit(url).path)
    head, size = _read_range(session, url, allow_private, f"0-{len(MAGIC) - 1}")
    if not _is_parquet(name, head):
        head, size = _read_range(session, url, allow_private, f"0-{content.HEAD - 1}")
        compression = compressed.compression_of(head)
        data_format = file_names.parse_name(name)[0] if compression else content.check_start(shown, head)
        return _describe(shown, data_format, compression, size)
    if size is None:
        return (
            _format_error(shown, head, None, None)
            or f"{shown} starts like parquet; its server does not support ranges"
        )
    if size < MIN_PARQUET_BYTES:
        return _format_error(shown, head, b"", size) or ""
    tail, _ = _read_range(session, url, allow_private, f"{size - 8}-{size - 1}")
    return _format_error(shown, head, tail, size) or f"{shown} is parquet, {size} bytes"


def _read_range(session: requests.Session, url: str, allow_private: bool, byte_range: str) -> tuple[bytes, int | None]:
    """Return the bytes of a range and the size of the file; the first bytes and None if ranges are not supported."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "argotune", "Range": f"bytes={byte_range}"}
    try:
        with hosts.get(session, url, headers, allow_private=allow_private, timeout=TIMEOUT) as response:
            status = response.status_code
            if connection_failure.is_transient_status(status):
                raise TransientError(f"{status} {response.reason}".strip(), retry_after=retry_after(response))
            if status == 416:
                return b"", 0
            if status not in (200, 206):
                message = f"{status} {response.reason}".strip()
                raise BadInput(f"{hosts.shown(url)}: {message}", hosts.access_fix(url, status))
            total = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
            first, last = map(int, byte_range.split("-"))
            body = response.raw.read(last - first + 1, decode_content=True)
            if status == 206 and total:
                if len(body) != min(last + 1, int(total[1])) - first:
                    raise TransientError("the connection ended early")
                return body, int(total[1])
            return body, None
    except (requests.RequestException, HTTPError, OSError) as error:
        failure = connection_failure.classify(error)
        if failure.is_permanent:
            raise BadInput(f"{hosts.shown(url)}: {failure.reason}", failure.fix) from None
        raise TransientError(f"unreachable ({failure.reason})") from None


def _is_parquet(name: str, head: bytes) -> bool:
    """Return True if a file must be parquet: by its first bytes, or by its name if it is not compressed."""
    return head == MAGIC or not head or (file_names.parse_name(name) == ("parquet", "") and head[:1] != b"<")


def _describe(name: str, data_format: FileFormat | None, compression: str, size: int | None) -> str:
    kinds = [content.NAMES[data_format]] if data_format else []
    kinds += [f"compressed with {compression}"] if compression else []
    return f"{name} is {', '.join(kinds)}{f', {size} bytes' if size else ''}"


def _format_error(name: str, head: bytes, tail: bytes | None, size: int | None) -> BadInput | None:
    """Return the error of a file with these first and last bytes; ``tail`` is None if it is unknown."""
    fix = "convert it with pandas.DataFrame.to_parquet or datasets.Dataset.to_parquet"
    if head[:1] == b"<":
        return BadInput(f"{name} is a web page, not a parquet file", "use the URL of the file itself")
    if head != MAGIC:
        reason = "it is empty" if not head else f"it starts with {head!r}, not {MAGIC!r}"
        return BadInput(f"{name} is not a parquet file: {reason}", fix)
    if tail is None or size is None:
        return None
    if tail[-4:] != MAGIC or int.from_bytes(tail[:4], "little") > size - MIN_PARQUET_BYTES:
        return BadInput(f"{name} is an incomplete parquet file: its end is missing", "write or upload it again")
    return None
