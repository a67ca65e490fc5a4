"""The estimate as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflows.estimate.cost import MIN_SPEEDUP_PER_NODE
from workflows.estimate.plan_estimate import Estimate

Row = tuple[str, str, str]


def as_text(estimate: Estimate) -> str:
    """Return a table of memory, instance type, time and cost."""
    rows = [*_tuning(estimate), *_serving(estimate), *_machine(estimate), *_money(estimate), *_budget(estimate)]
    widths = [max((len(row[column]) for row in rows if row[1]), default=0) for column in (0, 1)]
    lines = [
        f"{name:{widths[0]}}  {value:>{widths[1]}}  {remark}".rstrip() if value else f"\n{name}".rstrip()
        for name, value, remark in rows
    ]
    return "\n".join(lines).lstrip("\n")


def as_dict(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate as plain values: GiB, hours and USD."""
    time, usable = estimate.time, estimate.usable
    return {
        "instanceType": estimate.sku.name if estimate.sku else None,
        "usableGiB": rounded(usable),
        "smallestInstanceType": estimate.smallest.name if estimate.smallest else None,
        "tuning": _part(estimate.tuning, estimate.tuning_fits),
        "serving": _part(estimate.serving, estimate.serving_fits)
        and {
            **(_part(estimate.serving, estimate.serving_fits) or {}),
            "exact": estimate.serving.exact if estimate.serving else None,
        },
        "usdPerHour": estimate.price.regular * estimate.nodes if estimate.price else None,
        "spotUsdPerHour": estimate.price.spot * estimate.nodes if estimate.price and estimate.price.spot else None,
        "maxUsdPerHour": estimate.max_cost(1),
        "pricesRead": estimate.prices.read.isoformat(),
        "trials": estimate.trials,
        "tokensPerSecond": rounded(time.tokens_per_second if time else None),
        "nodeSpeedup": rounded(time.speedup if time else None),
        "startHours": rounded(time.start_hours if time else None),
        "hoursPerThousandRows": rounded(time.hours_per_thousand_rows if time else None),
        "usdPerThousandRows": rounded(estimate.cost(time.hours_per_thousand_rows) if time else None),
        "hours": rounded(time.total_hours if time else None),
        "usd": rounded(estimate.cost(time.total_hours) if time else None),
        "budgetHours": rounded(estimate.budget_hours or None),
        "budgetUsd": rounded(estimate.max_cost(estimate.budget_hours or None)),
    }


def _part(needed: Any, fits: bool | None) -> dict[str, Any] | None:
    if needed is None:
        return None
    parts = {name: rounded(size) for name, size in needed.components().items()}
    return {**parts, "total": rounded(needed.total), "fits": fits}


def _tuning(estimate: Estimate) -> Iterator[Row]:
    training, needed = estimate.training, estimate.tuning
    if not training or not needed:
        return
    settings = (
        f"{training.method}, batch {training.batch_size}, rows of {training.length} tokens, rank {training.rank}"
    )
    if training.processes > 1:
        settings += f", {training.processes} data-parallel GPUs"
        settings += ", sharded weights" if training.sharded else ""
    elif training.gpus > 1:
        settings += f", layers placed on {training.gpus} GPUs"
    yield f"TUNING, GiB OF A GPU ({settings}, checkpointing {'on' if training.checkpointing else 'off'})", "", ""
    for name, size in needed.components().items():
        yield name, f"{size:.2f}", ""
    yield "total", f"{needed.total:.2f}", _verdict(needed.total, estimate.usable, estimate)


def _serving(estimate: Estimate) -> Iterator[Row]:
    server, needed = estimate.server, estimate.serving
    if not server or not needed:
        return
    share = f"tensor parallel size {server.gpus}" if server.gpus > 1 else "1 GPU"
    share += f" on each of {server.nodes} nodes, pipeline parallel" if server.nodes > 1 else ""
    yield f"SERVING, GiB OF A GPU (vLLM, {share}, adapters: {server.adapters} of rank {server.adapter_rank})", "", ""
    for name, size in needed.components().items():
        remark = f"one request of {server.length or 'at least 1024'} tokens" if name == "cache" else ""
        yield name, f"{size:.2f}", remark
    room = server.utilization * estimate.usable if estimate.usable else None
    bound = "" if needed.exact else "; an upper bound for this architecture"
    yield "total", f"{needed.total:.2f}", _verdict(needed.total, room, estimate) + bound
    if room and not server.length and needed.total <= room:
        yield "longest context", f"{needed.longest(room):,}", "tokens of one request that fit"
    elif room and needed.total <= room:
        count = needed.held(room) // (server.length or 1)
        yield "concurrent requests", f"{min(count, server.sequences):,}", "of that length; more if shorter"


def _verdict(total: float, room: float | None, estimate: Estimate) -> str:
    if room is None or not estimate.sku:
        return "no instance type is set"
    name = f"{estimate.sku.name} ({estimate.sku.gpu})"
    if total <= room:
        return f"of {room:.1f} on {name}: fits, {100 * (1 - total / room):.0f}% free"
    return f"of {room:.1f} on {name}: does not fit"


def _machine(estimate: Estimate) -> Iterator[Row]:
    yield "INSTANCE TYPE AND COST", "", ""
    best = estimate.smallest
    if best:
        price = estimate.prices.usd_per_hour.get(best.name)
        cost = f", {price.regular:g} USD/hour" if price else ""
        yield "smallest that fits", best.name, f"{best.gpus} x {best.gpu}, {best.gpu_memory_gib} GiB each{cost}"
    else:
        yield "smallest that fits", "none", "of the current instance types"
    if not estimate.sku:
        return
    nodes = f", {estimate.nodes} nodes" if estimate.nodes > 1 else ""
    if estimate.price:
        price, hourly = estimate.price, estimate.hourly or 0
        others = {"spot": price.spot} if hourly == price.regular else {"spot; regular": price.regular}
        other = "".join(f", {name} {usd * estimate.nodes:.2f}" for name, usd in others.items() if usd)
        source = f"USD{nodes}{other}; {estimate.prices.region}, read {estimate.prices.read:%Y-%m-%d}"
        yield "price per hour", f"{hourly * estimate.nodes:.2f}", source
        if estimate.max_hourly > hourly:
            source = f"USD{nodes}, which a budget counts; {estimate.max_price_origin}"
            yield "at most", f"{estimate.max_hourly * estimate.nodes:.2f}", source
    else:
        yield "price per hour", "unknown", "site profile: prices: {" + estimate.sku.name + ": USD}"


def _money(estimate: Estimate) -> Iterator[Row]:
    time = estimate.time
    if not time:
        return
    if estimate.trials > 1:
        yield "trials", f"{estimate.trials}", "trainings at most; the times are those of all"
    yield "speed", f"{time.tokens_per_second:,.0f}", "tokens/second (approximately)"
    if estimate.nodes > 1 and estimate.training:
        yield f"{estimate.nodes} nodes", f"{time.speedup:.2f}", _node_verdict(time.speedup, estimate.nodes)
    yield "start", f"{time.start_hours:.2f}", f"hours, node and base model{_usd(estimate.cost(time.start_hours))}"
    if time.total_hours is None:
        usd = _usd(estimate.cost(time.hours_per_thousand_rows))
        yield "1,000 rows", f"{time.hours_per_thousand_rows:.2f}", f"hours at most, all epochs{usd}; --rows for all"
    else:
        usd = _usd(estimate.cost(time.total_hours))
        yield "total", f"{time.total_hours:.2f}", f"hours at most, training and start{usd}"


def _budget(estimate: Estimate) -> Iterator[Row]:
    budget = estimate.budget_hours
    if not budget:
        return
    hours = estimate.time.total_hours if estimate.time else None
    verdict = "" if hours is None else "; the estimate exceeds it" if hours > budget else "; the estimate is within it"
    yield "budget", f"{budget:.2f}", f"hours of tune and evaluate{_usd(estimate.max_cost(budget))}{verdict}"


def _node_verdict(speedup: float, nodes: int) -> str:
    """Return what more nodes buy, and whether they pay."""
    result = f"times the speed of one node, at {nodes / speedup:.2f} times the cost (approximately)"
    if speedup / nodes >= MIN_SPEEDUP_PER_NODE:
        return result
    return f"{result}: does not pay; write count: 1, or train with larger batches"


def _usd(cost: float | None) -> str:
    return "" if cost is None else f", {cost:.2f} USD"


def rounded(value: float | None) -> float | None:
    """Round to four decimals, or below 1 to four significant digits: the hours of a run of a second are not 0."""
    if value is None:
        return None
    return round(value, 4) if abs(value) >= 1 else float(f"{value:.4g}")
