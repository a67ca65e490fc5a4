"""Errors of Azure in plain words, and which of them mean missing quota or capacity.

Codes: learn.microsoft.com, "Troubleshoot AKS error codes" and "Allocation failures of virtual machines". AKS wraps
those of the scale set into its own (``CreateVMSSAgentPoolFailed``), so they are looked for in the whole text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError, ClientAuthenticationError

NO_CAPACITY = {
    "QuotaExceeded": "the quota is used up",
    "ErrCode_InsufficientVCPUQuota": "too few vCPUs are left in the quota",
    "InsufficientVCPUQuota": "too few vCPUs are left in the quota",
    "PublicIPCountLimitReached": "the quota of public addresses is used up",
    "SubnetIsFull": "the subnet has no addresses left",
    "InsufficientSubnetSize": "the subnet has too few addresses left",
    "SkuNotAvailable": "the size is not offered here to this subscription",
    "VMSizeNotSupported": "the size is not offered here to this subscription",
    "VMSizeDoesntSupportSpot": "the size is not available as spot",
    "AvailabilityZoneNotSupported": "the size is not offered in this zone",
    "AllocationFailed": "the region has no machine of this size free",
    "ZonalAllocationFailed": "the zone has no machine of this size free",
    "OverconstrainedAllocationRequest": "the region has no machine free that meets all demands",
    "OverconstrainedZonalAllocationRequest": "the zone has no machine free that meets all demands",
    "AllocationTimeout": "the region found no machine of this size in time",
}
"""By code. Another size, zone or price may still be had."""
_CODE = re.compile(rf"\b({'|'.join(sorted(NO_CAPACITY, key=len, reverse=True))})\b")
# Codes that mean several things; then the words of the message count.
_WORDS = {
    "the quota is used up": re.compile(
        r"exceed\w* (?:the )?(?:approved|allowed)?.{0,60}quota|quota (?:is )?exceeded", re.I
    ),
    "the size is not offered here to this subscription": re.compile(
        r"VM size .{0,80}(?:not (?:allowed|available|supported)|restricted)", re.I
    ),
}
_BUSY = re.compile(r"\bin progress\b|aks-pending-operation|\bAnotherOperationInProgress\b", re.I)

ROLE = "docs/NODES.md has the role that it needs"


def text(error: Any) -> str:
    """Code and message of an error of Azure's, on one line, with those of inner errors."""
    if error is None:
        return ""
    details = getattr(error, "details", None) or []
    parts = [str(getattr(error, "code", "") or ""), str(getattr(error, "message", "") or error)]
    parts += [text(detail) for detail in details]
    return " ".join(": ".join(dict.fromkeys(part for part in parts if part)).split())


def capacity(message: str) -> str:
    """Return why quota or capacity is missing; empty if the message is about something else."""
    code = _CODE.search(message)
    if code:
        return NO_CAPACITY[code[1]]
    return next((words for words, pattern in _WORDS.items() if pattern.search(message)), "")


def is_busy(error: AzureError) -> bool:
    """Return True if the cluster has to finish another operation first."""
    return getattr(error, "status_code", None) == 409 and bool(_BUSY.search(error_message(error)))


def error_message(error: AzureError) -> str:
    """Return the message of an SDK exception, code first."""
    return text(getattr(error, "error", None) or error)


def in_words(error: AzureError, doing: str) -> StepError:
    """The step's own error for one of the SDK's.

    ``InsufficientCapacity`` for quota and capacity, ``BadInput`` for what a retry cannot fix, else ``StepError``.
    """
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    message = error_message(error)
    status = getattr(error, "status_code", None)
    if isinstance(error, ClientAuthenticationError) and (status not in (401, 403) or _of_a_token(error)):
        if status is not None and (status == 429 or status >= 500):
            return StepError(f"{doing}: Azure gave no token: {message}", "the step is retried")
        fix = "azureWorkloadIdentity: true in the site profile, or a managed identity; on a laptop: az login"
        return BadInput(f"{doing}: Azure gave no token: {message}", fix)
    if capacity(message):
        return InsufficientCapacity(f"{doing}: {capacity(message)} ({message})")
    if status in (401, 403):
        return BadInput(f"{doing}: Azure does not allow it: {message}", ROLE)
    if status == 404:
        return BadInput(
            f"{doing}: not there: {message}", "subscription, resourceGroup and cluster of the site profile"
        )
    if isinstance(error, HttpResponseError) and status in (400, 405, 422):
        return BadInput(f"{doing}: Azure refuses it: {message}")
    return StepError(f"{doing}: {message}", "the step is retried and continues")


def _of_a_token(error: ClientAuthenticationError) -> bool:
    """Return True if the request for a token failed, not one that used the token."""
    request = getattr(error.response, "request", None)
    return "/oauth2/" in str(getattr(request, "url", ""))
