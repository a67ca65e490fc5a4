"""Price of the nodes of a plan: that of the dearest node that the run can get, so that a budget is a bound."""

from __future__ import annotations

from collections.abc import Sequence

import presets
from workflows.plan.layers import Layer
from workflows.plan.model import Plan

PATH = "resource.usdPerHour"
LISTED = "prices of "
"""Start of the origin of a price from the table, or from ``prices`` of the site profile."""
UNKNOWN = "unknown for "
"""Part of the origin before the instance types without a price."""


def price_layer(instance_types: Sequence[str], prices: presets.Prices, *, spot: bool) -> Layer:
    """Return the highest on-demand price of the instance types that a run accepts; 0 if one is unknown.

    The spot price is no bound: where no spot node is available, the run gets an on-demand one.
    """
    if not instance_types:
        return Layer("prices", {})
    origin = f"{LISTED}{prices.read}"
    listed = {name: _listed_price(name, prices) for name in instance_types}
    if unknown := [name for name, price in listed.items() if not price]:
        return Layer(f"{origin}: {UNKNOWN}{', '.join(unknown)}", {PATH: 0})
    dearest = max(listed, key=lambda name: listed[name])
    if spot or len(listed) > 1:
        origin += f": {dearest}, on demand"
    return Layer(origin, {PATH: listed[dearest]})


def is_listed(plan: Plan) -> bool:
    """Return True if the price is that of the table, and not set by the user."""
    return plan.origin(PATH).startswith(LISTED)


def is_maximum(plan: Plan) -> bool:
    """Return True if the run can also get cheaper nodes than those of the price."""
    varies = plan.nodes.spot or bool(plan.nodes.fallback_instance_types)
    return varies and is_listed(plan) and plan.resource.usd_per_hour > 0


def unknown_prices(plan: Plan) -> str:
    """Return the instance types of the plan whose price is unknown, as a list in one text."""
    return plan.origin(PATH).partition(UNKNOWN)[2]


def _listed_price(instance_type: str, prices: presets.Prices) -> float:
    """Return the on-demand price of an instance type; 0 if it is unknown."""
    try:
        sku = presets.find_sku(instance_type)
    except presets.UnknownSku:
        sku = None
    price = prices.usd_per_hour.get(sku.name) if sku else None
    return price.regular if price else 0.0
