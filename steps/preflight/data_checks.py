"""Checks that data files exist and are parquet, by their first and last bytes.

Format: a parquet file begins with ``PAR1`` and ends with its footer, the footer's length in four bytes, and ``PAR1``
(apache/parquet-format, README, "File format").
"""

from __future__ import annotations

import concurrent.futures
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urldefrag

import requests
from urllib3.exceptions import HTTPError

from steps.runtime import hosts
from steps.runtime.errors import BadInput, StepError, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, is_transient, retry_after, retry_call

MAGIC = b"PAR1"
MIN_PARQUET_BYTES = 12
"""Bytes of a parquet file: the magic twice, and the footer's length."""
RETRY = RetryPolicy(max_attempts=3, max_retry_after_seconds=30.0)
TIMEOUT = (10.0, 30.0)
MAX_CONNECTIONS = 8


def check_urls(
    urls: Sequence[str], *, allow_private: bool = False, wait: Sleep = time.sleep
) -> Iterator[str | StepError]:
    """Look at each address; a sentence where it is fine, else the error.

    Servers that give no ranges are asked for the beginning alone.
    """

    def look(url: str) -> str | StepError:
        try:
            return _at(urldefrag(url.strip())[0], allow_private, wait)
        except StepError as error:
            return error

    if urls:
        with concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
            yield from pool.map(look, urls)


def check_folder(source: Path) -> Iterator[str | StepError]:
    """Look at every parquet file below a folder, or at the one file."""
    found = [source] if source.is_file() else sorted(source.rglob("*.parquet")) if source.is_dir() else []
    found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(source).parts)]
    if not found:
        yield BadInput(f"there is no *.parquet below {source}", "put the data there as parquet files")
    for file in found:
        try:
            yield _file(file)
        except OSError as error:
            yield BadInput(f"{file} can't be read: {error.strerror}", "see who owns the volume's files")


def _file(path: Path) -> str | StepError:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    return _judge(str(path), head, tail, size) or f"{path} is parquet, {size} bytes"


def _at(url: str, allow_private: bool, wait: Sleep) -> str | StepError:
    shown = hosts.shown(url)
    with hosts.session(allow_private=allow_private) as session:
        try:
            return retry_call(
                lambda: _check(session, url, allow_private), RETRY, retry_if=_is_worth_waiting, sleep=wait
            )
        except TransientError as error:
            return StepError(f"{shown}: {error.message}", "check that the server is up and reachable from here")


def _is_worth_waiting(error: Exception) -> bool:
    return is_transient(error) and (getattr(error, "retry_after", None) or 0) <= RETRY.max_retry_after_seconds


def _check(session: requests.Session, url: str, allow_private: bool) -> str | StepError:
    shown = hosts.shown(url)
    head, size = _bytes(session, url, allow_private, f"0-{len(MAGIC) - 1}")
    if size is None:
        return _judge(shown, head, None, None) or f"{shown} begins as parquet does; its server gives no parts"
    if size < MIN_PARQUET_BYTES:
        return _judge(shown, head, b"", size) or ""
    tail, _ = _bytes(session, url, allow_private, f"{size - 8}-{size - 1}")
    return _judge(shown, head, tail, size) or f"{shown} is parquet, {size} bytes"


def _bytes(session: requests.Session, url: str, allow_private: bool, part: str) -> tuple[bytes, int | None]:
    """Bytes of a part, and the size of the file; the beginning and None from a server that sends all of it."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "argotune", "Range": f"bytes={part}"}
    try:
        with hosts.get(session, url, headers, allow_private=allow_private, timeout=TIMEOUT) as response:
            status = response.status_code
            if status >= 500 or status in (408, 425, 429):
                raise TransientError(f"{status} {response.reason}".strip(), retry_after=retry_after(response))
            if status == 416:
                return b"", 0
            if status not in (200, 206):
                message = f"{status} {response.reason}".strip()
                raise BadInput(f"{hosts.shown(url)}: {message}", hosts.way_in(url, status))
            total = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
            content = response.raw.read(8, decode_content=True)
            if status == 206 and total:
                if len(content) != int(part.split("-")[1]) - int(part.split("-")[0]) + 1:
                    raise TransientError("the connection ended early")
                return content, int(total[1])
            return content[: len(MAGIC)], None
    except (requests.RequestException, HTTPError, OSError) as error:
        if isinstance(error, requests.exceptions.SSLError):
            fix = "name the authority's certificate in REQUESTS_CA_BUNDLE"
            raise BadInput(f"{hosts.shown(url)}: the server's certificate is not trusted here", fix) from None
        raise TransientError(f"it can't be reached ({_reason(error)})") from None


def _judge(place: str, head: bytes, tail: bytes | None, size: int | None) -> BadInput | None:
    """Return the error of a file with these first and last bytes; ``tail`` is None if it is unknown."""
    fix = "give a parquet file: pandas.DataFrame.to_parquet, or datasets.Dataset.to_parquet, writes them"
    if head[:1] == b"<":
        return BadInput(f"{place} is no parquet file but a web page", "give the address of the file itself")
    if head != MAGIC:
        what = "is empty" if not head else f"begins with {head!r}, not with {MAGIC!r}"
        return BadInput(f"{place} is no parquet file: it {what}", fix)
    if tail is None or size is None:
        return None
    if tail[-4:] != MAGIC or int.from_bytes(tail[:4], "little") > size - MIN_PARQUET_BYTES:
        return BadInput(f"{place} is not a whole parquet file: its end is missing", "write or upload it once more")
    return None


def _reason(error: BaseException) -> str:
    while (inner := error.__cause__ or getattr(error, "reason", None)) is not None and isinstance(inner, Exception):
        error = inner
    return str(getattr(error, "strerror", "") or type(error).__name__)
