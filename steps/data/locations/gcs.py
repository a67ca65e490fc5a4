"""Google Cloud Storage: endpoint, file system, and variables, named as in Google's client libraries."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from steps.data.locations import guarded_proxy

if TYPE_CHECKING:
    from pyarrow import fs

ENVIRONMENT = ("STORAGE_EMULATOR_HOST",)
"""Variables that a Secret can set; identities come from the metadata service or GOOGLE_APPLICATION_CREDENTIALS."""
ACCESS_FIX = (
    "bind the step's service account to one that can read the bucket (Workload Identity Federation for GKE), or set "
    "GOOGLE_APPLICATION_CREDENTIALS"
)
RETRY_SECONDS = 60


def endpoint() -> str:
    """Return the URL that requests go to."""
    return custom_endpoint() or "https://storage.googleapis.com"


def file_systems(proxy_port: int) -> Iterator[fs.FileSystem]:
    """Yield the file system with the environment's credentials, then one without: public buckets need none."""
    from pyarrow import fs

    options: dict[str, Any] = {"retry_time_limit": datetime.timedelta(seconds=RETRY_SECONDS)}
    if proxy_port:
        guarded_proxy.set_environment(proxy_port)
    if custom := custom_endpoint():
        parts = urlsplit(custom)
        # An emulator accepts no credentials.
        yield fs.GcsFileSystem(anonymous=True, scheme=parts.scheme, endpoint_override=parts.netloc, **options)
        return
    yield fs.GcsFileSystem(**options)
    yield fs.GcsFileSystem(anonymous=True, **options)


def custom_endpoint() -> str:
    """Return the URL of an emulator; empty if none is set."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "")
    return host if not host or "://" in host else f"http://{host}"
