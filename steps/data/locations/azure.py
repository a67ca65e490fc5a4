"""Azure Blob Storage and Data Lake Storage: endpoint, file system, and variables, named as in the Azure CLI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from steps.data.locations import guarded_proxy
from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    from pyarrow import fs

METADATA_ADDRESS = "169.254.169.254"
ENVIRONMENT = (
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
)
"""Variables that a Secret can set. Workload identity sets AZURE_CLIENT_ID, AZURE_TENANT_ID and others."""
ACCESS_FIX = (
    "give the step's workload identity the role Storage Blob Data Reader, or set AZURE_STORAGE_KEY or "
    "AZURE_STORAGE_SAS_TOKEN"
)


def endpoint(account: str, domain: str) -> str:
    """Return the URL that requests go to.

    Raises:
        BadInput: no account is set.
    """
    return custom_endpoint(account) or f"https://{_required_account(account)}.blob.{domain or 'core.windows.net'}"


def custom_endpoint(account: str) -> str:
    """Return the URL that replaces that of the cloud; empty if none is set for the account."""
    is_default = account in ("", _default_account())
    return _connection_string().get("BlobEndpoint", "") if is_default else ""


def file_systems(account: str, domain: str, proxy_port: int) -> Iterator[fs.FileSystem]:
    """Yield the file system with the environment's credentials.

    Keys and tokens of the environment are those of its account; other accounts need an identity.

    Raises:
        BadInput: no account is set.
    """
    from pyarrow import fs

    name = _required_account(account)
    options: dict[str, str] = {}
    url = urlsplit(endpoint(account, domain))
    if custom_endpoint(account):
        options |= {"blob_storage_authority": url.netloc, "blob_storage_scheme": url.scheme}
        options |= {"dfs_storage_authority": url.netloc, "dfs_storage_scheme": url.scheme}
    elif domain:
        options |= {"blob_storage_authority": f".blob.{domain}", "dfs_storage_authority": f".dfs.{domain}"}
    if name == (_default_account() or name):
        key = _connection_string().get("AccountKey") or os.environ.get("AZURE_STORAGE_KEY", "")
        token = _connection_string().get("SharedAccessSignature") or os.environ.get("AZURE_STORAGE_SAS_TOKEN", "")
        options |= {"account_key": key} if key else {"sas_token": f"?{token.lstrip('?')}"} if token else {}
    if proxy_port:
        # Without a key the token comes from an identity, which can be that of the machine.
        guarded_proxy.set_environment(
            proxy_port, direct="" if options.keys() & {"account_key", "sas_token"} else METADATA_ADDRESS
        )
    yield fs.AzureFileSystem(name, **options)


def _required_account(account: str) -> str:
    name = account or _default_account()
    if not name:
        raise BadInput(
            "the storage account is not set",
            "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, or set AZURE_STORAGE_ACCOUNT",
        )
    return name


def _default_account() -> str:
    return os.environ.get("AZURE_STORAGE_ACCOUNT") or _connection_string().get("AccountName", "")


def _connection_string() -> dict[str, str]:
    """Return the parts of AZURE_STORAGE_CONNECTION_STRING; values can contain ``=``."""
    parts = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
    return {name: value for name, _, value in (part.partition("=") for part in parts) if name}
