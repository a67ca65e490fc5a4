"""Amazon S3, and servers with its API: endpoint, file system, and variables, named as in the AWS CLI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import fs

ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
)
"""Variables that a Secret can set. Workload identities set others (``AWS_ROLE_ARN``...)."""
ACCESS_FIX = (
    "let the role of the step's service account read the bucket, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def endpoint() -> str:
    """Return the URL that requests go to."""
    return custom_endpoint() or f"https://s3.{_region() or 'us-east-1'}.amazonaws.com"


def file_systems(bucket: str, proxy_port: int) -> Iterator[fs.FileSystem]:
    """Yield the file system with the environment's credentials, then one without: public buckets need none."""
    from pyarrow import fs

    options: dict[str, Any] = {"connect_timeout": 15, "request_timeout": 60}
    if custom := custom_endpoint():
        options["endpoint_override"] = custom
    if proxy_port:
        options["proxy_options"] = {"scheme": "http", "host": "127.0.0.1", "port": proxy_port}
    region = _region() or ("us-east-1" if custom else fs.resolve_s3_region(bucket))
    yield fs.S3FileSystem(region=region, **options)
    yield fs.S3FileSystem(region=region, anonymous=True, **options)


def custom_endpoint() -> str:
    """Return the URL that replaces that of AWS; empty if none is set."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
