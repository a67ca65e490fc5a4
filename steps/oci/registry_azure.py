"""Login to an Azure Container Registry without a password: exchange a Microsoft Entra token for a registry token.

Pods use workload identity, virtual machines their managed identity, users ``az login``. ``POST /oauth2/exchange``
(Azure/acr, docs/AAD-OAuth.md) returns a refresh token that works like docker's identity token.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import requests

from steps.oci import registry_errors
from steps.oci.reference import Reference, normalize_host
from steps.oci.registry_errors import TIMEOUT
from steps.runtime.errors import BadInput, StepError, TransientError

CUSTOM_DOMAINS_ENV = "ARGOTUNE_AZURE_REGISTRIES"
AUDIENCES = {
    "azurecr.io": "https://containerregistry.azure.net",
    "azurecr.cn": "https://management.chinacloudapi.cn",
    "azurecr.us": "https://management.usgovcloudapi.net",
}
"""Token audience by domain of the cloud. No other host receives a token, unless it is listed."""


def is_azure(registry: str) -> bool:
    """Return True for hosts of Azure and for custom domains listed in ``ARGOTUNE_AZURE_REGISTRIES``."""
    listed = [normalize_host(name.strip()) for name in os.environ.get(CUSTOM_DOMAINS_ENV, "").split(",")]
    host = normalize_host(registry)
    return host in listed or host.endswith(tuple(f".{domain}" for domain in AUDIENCES))


def fetch_refresh_token(reference: Reference, origin: str, service: str, *, push: bool) -> str:
    """Return the registry's refresh token for the Azure identity; empty, with the reason logged, if there is none.

    Raises:
        BadInput: Entra does not know the identity, or the registry rejects it.
        TransientError: one of the two is unreachable or busy.
    """
    token = _fetch_entra_token(reference.registry)
    if not token:
        return ""
    form = {"grant_type": "access_token", "service": service or reference.registry, "access_token": token}
    if tenant := os.environ.get("AZURE_TENANT_ID"):
        form["tenant"] = tenant
    try:
        url = f"{origin}/oauth2/exchange"
        response = requests.post(url, data=form, timeout=TIMEOUT, allow_redirects=False, stream=True)
    except requests.RequestException as error:
        raise registry_errors.from_connection_error(error, reference.registry) from None
    if response.status_code in (401, 403):
        role = registry_errors.AZURE_PUSH if push else registry_errors.AZURE_PULL
        raise BadInput(
            f"{reference.registry} rejects the Azure identity of this step: HTTP {response.status_code}",
            f"assign it the role {role} on the registry, in the registry's tenant",
        )
    if response.status_code != 200:
        raise _redact(token, registry_errors.from_response(response, reference, push=push, known=True))
    try:
        return str(registry_errors.read_json(response)["refresh_token"])
    except (ValueError, KeyError, TypeError):
        raise TransientError(
            f"{reference.registry} returned no token for the Azure identity", "check its log"
        ) from None


def _fetch_entra_token(registry: str) -> str:
    domain = next((domain for domain in AUDIENCES if normalize_host(registry).endswith(f".{domain}")), "azurecr.io")
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError
    except ModuleNotFoundError:
        print(f"connecting to {registry} anonymously: azure-identity is not installed (argotune[azure])", flush=True)
        return ""
    try:
        with _create_credential() as credential:
            return str(credential.get_token(f"{AUDIENCES[domain]}/.default").token)
    except CredentialUnavailableError as error:
        print(f"connecting to {registry} anonymously: no Azure identity ({_first_line(error)})", flush=True)
        return ""
    except ClientAuthenticationError as error:
        status = getattr(error.response, "status_code", 0) or 0
        if not status and not _is_workload():
            print(f"connecting to {registry} anonymously: no Azure identity ({_first_line(error)})", flush=True)
            return ""
        if status in (408, 429) or status >= 500 or not status:
            raise TransientError(
                f"Microsoft Entra returned no token: {_first_line(error)}", "run it again later"
            ) from None
        raise BadInput(
            f"Microsoft Entra rejects the identity of this step: {_first_line(error)}",
            "compare AZURE_CLIENT_ID and AZURE_TENANT_ID (annotations of the service account) with the managed"
            " identity, and its federated credential with the service account's namespace and name",
        ) from None
    except (AzureError, ValueError, OSError) as error:
        raise TransientError(
            f"Microsoft Entra cannot be reached: {_first_line(error)}", "check the network, and AZURE_AUTHORITY_HOST"
        ) from None


def _create_credential() -> Any:
    """Return the workload identity where it is configured, so that its error is reported and not that of a chain."""
    from azure.identity import DefaultAzureCredential, WorkloadIdentityCredential

    # Its messages are logged by this module, in one line.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    if _is_workload():
        return WorkloadIdentityCredential(retry_total=0)
    return DefaultAzureCredential(
        exclude_workload_identity_credential=True,
        exclude_shared_token_cache_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_powershell_credential=True,
        exclude_developer_cli_credential=True,
        exclude_broker_credential=True,
    )


def _is_workload() -> bool:
    """Return True in pods of an annotated service account, where Azure's webhook sets these variables."""
    return all(os.environ.get(f"AZURE_{name}") for name in ("FEDERATED_TOKEN_FILE", "CLIENT_ID", "TENANT_ID"))


def _redact(secret: str, error: StepError) -> StepError:
    error.message = error.message.replace(secret, "***")
    error.args = (error.message,)
    return error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
