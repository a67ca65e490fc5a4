"""Into an Azure Container Registry without a stored password: a token of Microsoft Entra for one of the registry's.

Pods have it by workload identity, virtual machines by their managed identity, people by ``az login``. The exchange is
ACR's own, ``POST /oauth2/exchange`` (Azure/acr, docs/AAD-OAuth.md); what it gives works like docker's identity token.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import requests

from steps.oci import registry_errors
from steps.oci.reference import Reference
from steps.oci.registry_errors import TIMEOUT
from steps.runtime.errors import BadInput, StepError, TransientError

LISTED = "ARGOTUNE_AZURE_REGISTRIES"
AUDIENCES = {
    "azurecr.io": "https://containerregistry.azure.net",
    "azurecr.cn": "https://management.chinacloudapi.cn",
    "azurecr.us": "https://management.usgovcloudapi.net",
}
"""Whom a token is asked for, by the cloud's domain. No other host gets to see one, unless it is listed."""


def is_azure(registry: str) -> bool:
    """Whether a registry is Azure's by its name, or by ``ARGOTUNE_AZURE_REGISTRIES`` (a domain of one's own)."""
    listed = [name.strip() for name in os.environ.get(LISTED, "").split(",")]
    return registry in listed or registry.endswith(tuple(f".{domain}" for domain in AUDIENCES))


def refresh_token(reference: Reference, origin: str, service: str, *, push: bool) -> str:
    """A refresh token of the registry for who we are to Azure; empty, with a word why, when we are nobody there.

    Raises:
        BadInput: Entra does not know the identity, or the registry does not take it.
        TransientError: one of the two can't be reached, or is busy.
    """
    token = _entra_token(reference.registry)
    if not token:
        return ""
    form = {"grant_type": "access_token", "service": service or reference.registry, "access_token": token}
    if tenant := os.environ.get("AZURE_TENANT_ID"):
        form["tenant"] = tenant
    try:
        answer = requests.post(f"{origin}/oauth2/exchange", data=form, timeout=TIMEOUT, allow_redirects=False)
    except requests.RequestException as error:
        raise registry_errors.lost(error, reference.registry) from None
    if answer.status_code in (401, 403):
        role = registry_errors.AZURE_PUSH if push else registry_errors.AZURE_PULL
        raise BadInput(
            f"{reference.registry} does not take the Azure identity of this step: HTTP {answer.status_code}",
            f"give it the role {role} on the registry, in the registry's own tenant",
        )
    if answer.status_code != 200:
        raise _without(token, registry_errors.refused(answer, reference, push=push, known=True))
    try:
        return str(answer.json()["refresh_token"])
    except (ValueError, KeyError, TypeError):
        raise TransientError(f"{reference.registry} gave no token for the Azure identity", "see its log") from None


def _entra_token(registry: str) -> str:
    domain = next((domain for domain in AUDIENCES if registry.endswith(f".{domain}")), "azurecr.io")
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError
    except ModuleNotFoundError:
        print(f"{registry} is asked as nobody: azure-identity is not installed (argotune[azure])", flush=True)
        return ""
    try:
        with _credential() as credential:
            return str(credential.get_token(f"{AUDIENCES[domain]}/.default").token)
    except CredentialUnavailableError as error:
        print(f"{registry} is asked as nobody: there is no Azure identity here ({_first_line(error)})", flush=True)
        return ""
    except ClientAuthenticationError as error:
        status = getattr(error.response, "status_code", 0) or 0
        if not status and not _is_workload():
            print(f"{registry} is asked as nobody: no Azure identity here ({_first_line(error)})", flush=True)
            return ""
        if status in (408, 429) or status >= 500 or not status:
            raise TransientError(
                f"Microsoft Entra gave no token: {_first_line(error)}", "run it again later"
            ) from None
        raise BadInput(
            f"Microsoft Entra does not take the identity of this step: {_first_line(error)}",
            "compare AZURE_CLIENT_ID and AZURE_TENANT_ID (annotations of the service account) with the managed"
            " identity, and its federated credential with the service account's namespace and name",
        ) from None
    except (AzureError, ValueError, OSError) as error:
        raise TransientError(
            f"Microsoft Entra cannot be reached: {_first_line(error)}", "check the network, and AZURE_AUTHORITY_HOST"
        ) from None


def _credential() -> Any:
    """Who we are: directly where it is plain, so that its own error is seen and not that of a chain."""
    from azure.identity import DefaultAzureCredential, WorkloadIdentityCredential

    # What it would say here is said by us, in one line.
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
    """Set by Azure's webhook in pods of a service account that is annotated for it."""
    return all(os.environ.get(f"AZURE_{name}") for name in ("FEDERATED_TOKEN_FILE", "CLIENT_ID", "TENANT_ID"))


def _without(secret: str, error: StepError) -> StepError:
    error.message = error.message.replace(secret, "***")
    error.args = (error.message,)
    return error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
