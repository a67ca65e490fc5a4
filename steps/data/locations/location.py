"""Location of remote data as users write it: http(s) URL, Hugging Face dataset, or object store.

    https://HOST/PATH                                        one file
    hf://datasets/ORG/NAME[@REVISION][/PATH][?config=C&split=S]
    s3://BUCKET/PATH      gs://BUCKET/PATH
    abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH      (or abfs:, az:)
    az://CONTAINER/PATH                                      account from AZURE_STORAGE_ACCOUNT

PATH is a file, a folder, or a pattern (``patterns.py``). ``#sha256=<64 hex digits>`` after a file is its checksum.
Paths of object stores are taken as written, without percent-decoding, like in ``aws s3`` and ``gcloud storage``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urldefrag, urlsplit

from steps.data.locations import patterns
from steps.runtime.shown_url import shown

SCHEMES = ("http", "https", "hf", "s3", "gs", "abfs", "abfss", "az")
_CHECKSUM = re.compile(r"#sha256=([0-9a-fA-F]{64})$")
_HUB_ID = re.compile(r"datasets/([\w.-]+/[\w.-]+)")
_SPECIAL_REVISION = re.compile(r"refs/(?:convert/[\w.-]+|pr/\d+)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_ACCOUNT = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.(core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net))")


class InvalidLocation(ValueError):
    """An invalid location, with its fix."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True)
class HttpLocation:
    """A URL; it can be signed."""

    url: str

    @property
    def shown(self) -> str:
        """URL without secrets, for output and records."""
        return shown(self.url)


@dataclass(frozen=True)
class HubLocation:
    """Files of a dataset on the Hugging Face hub."""

    dataset: str
    """``ORG/NAME``."""
    revision: str = "main"
    path: str = ""
    config: str = ""
    split: str = ""

    @property
    def shown(self) -> str:
        """Location without config and split, which select files."""
        return f"hf://datasets/{self.dataset}@{self.revision}{f'/{self.path}' if self.path else ''}"


@dataclass(frozen=True)
class ObjectLocation:
    """Objects of a store."""

    store: str
    """``s3``, ``gs`` or ``az``."""
    bucket: str
    """Bucket or container."""
    path: str
    account: str = ""
    """Azure storage account; empty: that of the environment."""
    account_domain: str = ""
    """Domain of the account, for example ``core.windows.net``."""

    @property
    def prefix(self) -> str:
        """Beginning of the locations of all objects in the bucket."""
        host = f"@{self.account}.dfs.{self.account_domain}" if self.account else ""
        return f"{'abfss' if self.account else self.store}://{self.bucket}{host}/"

    @property
    def shown(self) -> str:
        """Location without secrets, for output and records."""
        return f"{self.prefix}{self.path}"


Location = HttpLocation | HubLocation | ObjectLocation


def parse(text: str) -> tuple[Location, str]:
    """Return a location, and the expected digest of its file (``sha256:<hex>``, or empty).

    Raises:
        InvalidLocation: unknown scheme, credentials in the text, or a wrong form.
    """
    text = text.strip()
    scheme, found, rest = text.partition("://")
    scheme = scheme.lower()
    if not found or scheme not in SCHEMES:
        raise InvalidLocation(
            f"must use one of {', '.join(SCHEMES)}, not {scheme if found else 'a bare path'!r}",
            "write https://, hf://datasets/, s3://, gs:// or abfss://; use volumeSource for a directory",
        )
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise InvalidLocation("contains control characters", "remove them")
    if scheme in ("http", "https"):
        return _parse_http(text)
    checksum = _CHECKSUM.search(rest)
    rest = rest[: checksum.start()] if checksum else rest
    digest = f"sha256:{checksum[1].lower()}" if checksum else ""
    location = _parse_hub(rest) if scheme == "hf" else _parse_object(scheme, rest)
    parts = location.path.split("/")
    if isinstance(location, HubLocation):
        parts += [*location.dataset.split("/"), location.revision]
    if {".", ".."} & set(parts):
        raise InvalidLocation("contains . or .. as a name", "write the whole path")
    if not patterns.is_valid(location.path):
        raise InvalidLocation("the pattern is invalid", "use *, **, [abc] and {a,b}")
    if digest and (patterns.is_pattern(location.path) or not location.path):
        raise InvalidLocation("a checksum needs one file", "write the path of a file before #sha256=")
    return location, digest


def is_single_file(text: str) -> bool:
    """Return True if a location is one file by its scheme; other paths can be folders."""
    return text.strip().lower().startswith(("http://", "https://"))


def _parse_http(text: str) -> tuple[Location, str]:
    url, fragment = urldefrag(text)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidLocation(f"invalid URL: {error}", "write https://HOST/PATH") from None
    if not parts.hostname:
        raise InvalidLocation("invalid URL: no host", "write https://HOST/PATH")
    checksum = _CHECKSUM.fullmatch(f"#{fragment}")
    if fragment and not checksum:
        raise InvalidLocation(
            f"{fragment!r} after # is not a checksum", "write #sha256= and 64 hex digits, or remove the part after #"
        )
    return HttpLocation(url), f"sha256:{checksum[1].lower()}" if checksum else ""


def _parse_hub(rest: str) -> HubLocation:
    example = "write hf://datasets/ORG/NAME, hf://datasets/ORG/NAME@REVISION/PATH, or ...?config=NAME&split=NAME"
    rest, _, query = rest.partition("?")
    found = _HUB_ID.match(rest)
    rest = rest[found.end() :] if found else ""
    if not found or (rest and rest[0] not in "@/"):
        raise InvalidLocation("is not a dataset of the hub", example)
    revision = "main"
    if rest.startswith("@"):
        # As in huggingface_hub's HfFileSystem: special references as they are, slashes of branches as %2F.
        special = _SPECIAL_REVISION.match(rest, 1)
        revision = special[0] if special else unquote(rest[1:].partition("/")[0])
        rest = rest[1 + len(special[0] if special else rest[1:].partition("/")[0]) :]
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not revision or options.keys() - {"config", "split"} or (query and not options):
        raise InvalidLocation("has an empty revision, or an unknown option after ?", example)
    path = rest.strip("/")
    if path and options:
        raise InvalidLocation("has a path, and config or split", "use the path or pattern, or config and split")
    if not re.fullmatch(r"[\w.-]*", options.get("split", "")):
        fix = "write the name of a split, such as train; use pipeline.data.weights for a part of it"
        raise InvalidLocation("slices of a split are not supported", fix)
    return HubLocation(found[1], revision, path, options.get("config", ""), options.get("split", ""))


def _parse_object(scheme: str, rest: str) -> ObjectLocation:
    store = {"s3": "s3", "gs": "gs"}.get(scheme, "az")
    authority, _, path = rest.partition("/")
    example = f"write {scheme}://{'CONTAINER' if store == 'az' else 'BUCKET'}/PATH"
    if store == "az":
        example += f" or {scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
    bucket, at, host = authority.partition("@")
    account = _ACCOUNT.fullmatch(host)
    if ":" in bucket or (at and store != "az"):
        raise InvalidLocation(
            "contains credentials, visible to all readers of the Workflow",
            "remove them; use workload identity, or a Secret (pipeline.data.secret)",
        )
    if "?" in rest:
        fix = "remove them; set endpoint and region by environment variables"
        raise InvalidLocation("options after ? are not supported", fix)
    if at and not account:
        raise InvalidLocation(f"{host!r} is not an Azure storage account", example)
    if not _BUCKET.fullmatch(bucket):
        raise InvalidLocation(f"{bucket!r} is not the name of a bucket or container", example)
    if account:
        return ObjectLocation(store, bucket, path, account[1], account[2])
    return ObjectLocation(store, bucket, path)
