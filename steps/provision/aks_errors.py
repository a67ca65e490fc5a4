"""Step errors for errors of Azure, and the causes of missing quota or capacity.

Codes: learn.microsoft.com, "Troubleshoot AKS error codes" and "Allocation failures of virtual machines". AKS wraps
those of the scale set into its own (``CreateVMSSAgentPoolFailed``), so the whole text is searched.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from steps.runtime import connection_failure
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
    "SkuNotAvailable": "the instance type is not offered to this subscription",
    "VMSizeNotSupported": "the instance type is not offered to this subscription",
    "VMSizeDoesntSupportSpot": "the instance type is not available as spot",
    "AvailabilityZoneNotSupported": "the instance type is not offered in this zone",
    "AllocationFailed": "the region is out of capacity for this instance type",
    "ZonalAllocationFailed": "the zone is out of capacity for this instance type",
    "OverconstrainedAllocationRequest": "the region is out of capacity for this combination of requirements",
    "OverconstrainedZonalAllocationRequest": "the zone is out of capacity for this combination of requirements",
    "AllocationTimeout": "the region did not allocate this instance type in time",
}
"""Reasons by code. Another instance type, zone or price can still be available."""
_CODE = re.compile(rf"\b({'|'.join(sorted(NO_CAPACITY, key=len, reverse=True))})\b")
# For codes with several meanings, by the text of the message.
_WORDS = {
    "the quota is used up": re.compile(
        r"exceed\w* (?:the )?(?:approved|allowed)?.{0,60}quota|quota (?:is )?exceeded", re.I
    ),
    "the instance type is not offered to this subscription": re.compile(
        r"VM size .{0,80}(?:not (?:allowed|available|supported)|restricted)", re.I
    ),
}
_BUSY = re.compile(r"\bin progress\b|aks-pending-operation|\bAnotherOperationInProgress\b", re.I)

ROLE = "assign the role in docs/NODES.md"


def format_error(error: Any) -> str:
    """Return code and message of an Azure error and its inner errors, on one line."""
    if error is None:
        return ""
    details = getattr(error, "details", None) or []
    parts = [str(getattr(error, "code", "") or ""), str(getattr(error, "message", "") or error)]
    parts += [format_error(detail) for detail in details]
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
    return format_error(getattr(error, "error", None) or error)


def to_step_error(error: AzureError, prefix: str) -> StepError:
    """Return the step error for an exception of the SDK; ``prefix`` names the failed operation.

    ``InsufficientCapacity`` for quota and capacity, ``BadInput`` for errors that a retry cannot fix, or ``StepError``.
    """
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    message = error_message(error)
    status = getattr(error, "status_code", None)
    failure = connection_failure.classify(error)
    if failure.is_proxy and failure.is_permanent:
        return BadInput(f"{prefix}: {failure.reason}", failure.fix)
    if isinstance(error, ClientAuthenticationError) and (status not in (401, 403) or _is_token_request(error)):
        if status is not None and (status == 429 or status >= 500):
            return StepError(f"{prefix}: no token from Azure: {message}", "the step is retried")
        fix = "set azureWorkloadIdentity: true in the site profile, or use a managed identity; on a laptop: az login"
        return BadInput(f"{prefix}: no token from Azure: {message}", fix)
    if capacity(message):
        return InsufficientCapacity(f"{prefix}: {capacity(message)} ({message})")
    if status in (401, 403):
        return BadInput(f"{prefix}: forbidden by Azure: {message}", ROLE)
    if status == 404:
        fix = "check subscription, resourceGroup and cluster in the site profile"
        return BadInput(f"{prefix}: not found: {message}", fix)
    if isinstance(error, HttpResponseError) and status in (400, 405, 422):
        return BadInput(f"{prefix}: rejected by Azure: {message}", "correct the setting that the message names")
    return StepError(f"{prefix}: {message}", "the step is retried and continues")


def _is_token_request(error: ClientAuthenticationError) -> bool:
    """Return True if the request for a token failed, rather than a request that used one."""
    request = getattr(error.response, "request", None)
    return "/oauth2/" in str(getattr(request, "url", ""))
