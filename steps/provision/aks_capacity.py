"""Asks Azure which kinds of pool can be had, before one is made: is the size offered, and what is left of the quotas.

A size that is offered and within the quota may still have no machine free; only making it tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps.provision.aks_client import asking
from steps.provision.nodes import NodeOption
from steps.provision.settings import Settings

if TYPE_CHECKING:
    from steps.provision.aks_client import Cluster

Refusal = tuple[NodeOption, str]
SPOT_QUOTA, REGION_QUOTA = "lowPriorityCores", "cores"


def split(
    cluster: Cluster, settings: Settings, location: str, node_options: Sequence[NodeOption]
) -> tuple[list[NodeOption], list[Refusal]]:
    """Return the node options that can be available, and those that cannot, each with the reason.

    Who may not read skus and usages (they belong to the subscription, not to the cluster) gets all node_options back.

    Raises:
        StepError: Azure does not answer.
    """
    from azure.core.exceptions import HttpResponseError

    with asking(f"asking for sizes and quotas in {location}"):
        try:
            skus, usages = cluster.skus(location), cluster.usages(location)
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            print(
                "quota not checked: no permission to read Microsoft.Compute skus and usages (docs/NODES.md)",
                flush=True,
            )
            return list(node_options), []
    offered = {str(sku["name"]).lower(): sku for sku in skus if sku.get("resourceType") == "virtualMachines"}
    quotas = {str(usage["name"]["value"]).lower(): usage for usage in usages}
    refusals = [(choice, refusal(settings, choice, location, offered, quotas)) for choice in node_options]
    refused = [(choice, why) for choice, why in refusals if why]
    return [choice for choice, why in refusals if not why], refused


def refusal(
    settings: Settings,
    choice: NodeOption,
    location: str,
    offered: Mapping[str, Mapping[str, Any]],
    quotas: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return why an option is unavailable; empty if all checks passed."""
    sku = offered.get(choice.size.lower())
    if sku is None:
        return f"{location} does not offer it"
    capabilities = {item["name"]: item["value"] for item in sku.get("capabilities", [])}
    return (
        _restricted(sku, choice, location)
        or _lacks(capabilities, choice, settings)
        or _over_quota(sku, capabilities, choice, settings, quotas, location)
    )


def _restricted(sku: Mapping[str, Any], choice: NodeOption, location: str) -> str:
    zones = {zone for info in sku.get("locationInfo", []) for zone in info.get("zones", [])}
    for restriction in sku.get("restrictions", []):
        reason = restriction.get("reasonCode", "")
        if restriction.get("type") == "Zone":
            zones -= set(restriction.get("restrictionInfo", {}).get("zones", []))
        elif reason == "QuotaId":
            return f"{location} does not offer it to subscriptions of this kind"
        else:
            return f"{location} does not offer it to this subscription ({reason}); ask Azure's support for access"
    if choice.zone and choice.zone not in zones:
        there = f"; it is in {', '.join(sorted(zones))}" if zones else ""
        return f"{location} does not offer it in zone {choice.zone}{there}"
    return ""


def _lacks(capabilities: Mapping[str, str], choice: NodeOption, settings: Settings) -> str:
    gpus = int(float(capabilities.get("GPUs", "0")))
    if gpus < settings.gpus:
        return f"it has {gpus} GPUs; the pods ask for {settings.gpus}"
    if choice.spot and capabilities.get("LowPriorityCapable") == "False":
        return "it is not available as spot"
    return ""


def _over_quota(
    sku: Mapping[str, Any],
    capabilities: Mapping[str, str],
    choice: NodeOption,
    settings: Settings,
    quotas: Mapping[str, Mapping[str, Any]],
    location: str,
) -> str:
    needed = settings.count * int(float(capabilities.get("vCPUs", "0")))
    for quota in [SPOT_QUOTA] if choice.spot else [str(sku.get("family", "")), REGION_QUOTA]:
        usage = quotas.get(quota.lower())
        if usage and usage["currentValue"] + needed > usage["limit"]:
            left = max(usage["limit"] - usage["currentValue"], 0)
            return (
                f"{needed} vCPUs are needed, and the quota {quota} of {location} has {left} left "
                f"({usage['currentValue']} of {usage['limit']} in use)"
            )
    return ""
