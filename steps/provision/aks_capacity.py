"""Availability of node options according to Azure, before a pool is created: offered instance types and free quota.

An instance type that is offered and within the quota can still be out of capacity; only creating a pool shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps.provision.aks_client import translate_errors
from steps.provision.nodes import NodeOption
from steps.provision.settings import Settings

if TYPE_CHECKING:
    from steps.provision.aks_client import Cluster

Unavailable = tuple[NodeOption, str]
"""An option and the reason why it is unavailable."""
SPOT_QUOTA, REGION_QUOTA = "lowPriorityCores", "cores"


def split(
    cluster: Cluster, settings: Settings, location: str, options: Sequence[NodeOption]
) -> tuple[list[NodeOption], list[Unavailable]]:
    """Return the node options that can be available, and those that cannot, each with the reason.

    Without permission to read skus and usages (of the subscription, not the cluster), all are returned as available.

    Raises:
        StepError: Azure does not respond.
    """
    from azure.core.exceptions import HttpResponseError

    with translate_errors(f"cannot read instance types and quotas of {location}"):
        try:
            skus, usages = cluster.skus(location), cluster.usages(location)
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            print(
                "quota not checked: no permission to read Microsoft.Compute skus and usages (docs/NODES.md)",
                flush=True,
            )
            return list(options), []
    offered = {str(sku["name"]).lower(): sku for sku in skus if sku.get("resourceType") == "virtualMachines"}
    quotas = {str(usage["name"]["value"]).lower(): usage for usage in usages}
    reasons = [(option, unavailable_reason(settings, option, location, offered, quotas)) for option in options]
    unavailable = [(option, reason) for option, reason in reasons if reason]
    return [option for option, reason in reasons if not reason], unavailable


def unavailable_reason(
    settings: Settings,
    option: NodeOption,
    location: str,
    offered: Mapping[str, Mapping[str, Any]],
    quotas: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return why an option is unavailable; empty if all checks passed."""
    sku = offered.get(option.size.lower())
    if sku is None:
        return f"not offered in {location}"
    capabilities = {item["name"]: item["value"] for item in sku.get("capabilities", [])}
    return (
        _restricted(sku, option, location)
        or _missing_capability(capabilities, option, settings)
        or _over_quota(sku, capabilities, option, settings, quotas, location)
    )


def _restricted(sku: Mapping[str, Any], option: NodeOption, location: str) -> str:
    zones = {zone for info in sku.get("locationInfo", []) for zone in info.get("zones", [])}
    for restriction in sku.get("restrictions", []):
        reason = restriction.get("reasonCode", "")
        if restriction.get("type") == "Zone":
            zones -= set(restriction.get("restrictionInfo", {}).get("zones", []))
        elif reason == "QuotaId":
            return f"not offered in {location} to subscriptions of this type"
        else:
            return f"not offered in {location} to this subscription ({reason}); request access from Azure support"
    if option.zone and option.zone not in zones:
        others = f" (available: {', '.join(sorted(zones))})" if zones else ""
        return f"not offered in zone {option.zone} of {location}{others}"
    return ""


def _missing_capability(capabilities: Mapping[str, str], option: NodeOption, settings: Settings) -> str:
    gpus = int(float(capabilities.get("GPUs", "0")))
    if gpus < settings.gpus:
        return f"{gpus} GPUs; the pods request {settings.gpus}"
    if option.spot and capabilities.get("LowPriorityCapable") == "False":
        return "not available as spot"
    return ""


def _over_quota(
    sku: Mapping[str, Any],
    capabilities: Mapping[str, str],
    option: NodeOption,
    settings: Settings,
    quotas: Mapping[str, Mapping[str, Any]],
    location: str,
) -> str:
    required = settings.count * int(float(capabilities.get("vCPUs", "0")))
    for quota in [SPOT_QUOTA] if option.spot else [str(sku.get("family", "")), REGION_QUOTA]:
        usage = quotas.get(quota.lower())
        if usage and usage["currentValue"] + required > usage["limit"]:
            left = max(usage["limit"] - usage["currentValue"], 0)
            return (
                f"{required} vCPUs are required, and the quota {quota} of {location} has {left} left "
                f"({usage['currentValue']} of {usage['limit']} in use)"
            )
    return ""
