"""GPU time that a run has paid for, by cause, and its price; for the report and for ``argotune status``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from steps.runtime.gpu_time import EVALUATING, LOADING, TRAINING
from steps.runtime.json_text import number

IDLE = "idle"
CAUSES = (TRAINING, EVALUATING, LOADING, IDLE)


@dataclass(frozen=True)
class GpuNodes:
    """The nodes that a run pays for. A local run has none: it costs nothing, and only its time is split."""

    gpus: int = 0
    """GPUs of all nodes."""
    usd_per_hour: float | None = 0.0
    """Price of all nodes; None: unknown."""
    are_created: bool = False
    """True if the run creates its nodes, so that it also pays for them between its GPU steps."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of the GPUs that one pod of a step holds, by step: of the trials of a search, and of an evaluation, which
    runs on one of several nodes. Default: 1."""
    is_maximum: bool = False
    """True if the price is that of the dearest node that the run can get (on demand, or a fallback)."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the nodes that ``as_values`` describes.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: the values are damaged.
        """
        usd = values["usdPerHour"]
        shares = {step: _number(share) for step, share in values.get("shares", {}).items()}
        is_maximum = values.get("maximum") is True
        usd_per_hour = None if usd is None else _number(usd)
        return cls(int(_number(values["gpus"])), usd_per_hour, values["created"] is True, shares, is_maximum)

    def as_values(self) -> dict[str, Any]:
        """Return the nodes as plain values, without defaults."""
        values = {"gpus": self.gpus, "usdPerHour": self.usd_per_hour, "created": self.are_created}
        shares = {"shares": dict(self.shares)} if self.shares else {}
        return {**values, **shares, **({"maximum": True} if self.is_maximum else {})}

    def share(self, step: str) -> float:
        """Return the share of the GPUs that a pod of a step holds."""
        return self.shares.get(step, 1.0)


@dataclass(frozen=True)
class GpuUsage:
    """Paid time of the nodes."""

    nodes: GpuNodes
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of all GPUs, by cause: those of a part of them count in part."""

    @property
    def hours(self) -> float:
        """Paid hours of the nodes."""
        return sum(self.seconds.values()) / 3600

    @property
    def unit(self) -> str:
        """Unit of the minutes."""
        return "GPU minutes" if self.nodes.gpus else "minutes without a GPU"

    def minutes(self, cause: str = "") -> float:
        """Return the minutes of a cause, or of all, times the number of GPUs."""
        seconds = self.seconds.get(cause, 0.0) if cause else 3600 * self.hours
        return seconds / 60 * max(1, self.nodes.gpus)

    def usd(self, cause: str = "") -> float | None:
        """Return the price of a cause, or of all; None if it is unknown."""
        if self.nodes.usd_per_hour is None:
            return None
        return self.nodes.usd_per_hour * (self.seconds.get(cause, 0.0) / 3600 if cause else self.hours)

    @property
    def price(self) -> str:
        """Price as text."""
        usd = self.usd()
        limit = "at most " if self.nodes.is_maximum else ""
        return "price unknown" if usd is None else f"{limit}{usd:.2f} USD"

    def share(self, cause: str) -> float:
        """Return the share of a cause of the paid time, from 0 to 1."""
        return self.seconds.get(cause, 0.0) / (3600 * self.hours) if self.hours else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the usage as plain values."""
        usd = self.usd()
        return {
            "gpus": self.nodes.gpus,
            "minutes": round(self.minutes(), 4),
            **{cause: round(self.minutes(cause), 4) for cause in CAUSES},
            "usd": None if usd is None else round(usd, 4),
        }

    def __str__(self) -> str:
        """Return one line: minutes, causes with their shares, and price of GPUs."""
        shares = ", ".join(f"{cause} {self.share(cause):.0%}" for cause in CAUSES if self.seconds.get(cause))
        price = f", {self.price}" if self.nodes.gpus else ""
        return f"{self.minutes():.1f} {self.unit} ({shares or 'none'}){price}"


def split(nodes: GpuNodes, busy: Mapping[str, float], held_seconds: float = 0.0) -> GpuUsage:
    """Return the usage of nodes.

    Args:
        nodes: the nodes.
        busy: seconds of all GPUs in the GPU steps, by cause.
        held_seconds: time for which the run had the nodes it created; what is not busy is idle.
    """
    idle = max(0.0, held_seconds - sum(busy.values())) if nodes.are_created else 0.0
    return GpuUsage(nodes, {**busy, IDLE: idle})


def _number(value: Any) -> float:
    """Return a number of at least 0.

    Raises:
        ValueError: it is none.
    """
    result = number(value)
    if result is None or result < 0:
        raise ValueError(f"{value!r} is not a number of at least 0")
    return result
