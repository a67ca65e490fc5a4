"""Tracking tools, their environment variables, and a check for missing ones.

It imports no tool, so the compiler can use it; ``steps.tune.tracking`` sends the metrics.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

ReportTo = Literal["none", "mlflow", "wandb"]
OFFLINE = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE that need no server."""


@dataclass(frozen=True)
class Tool:
    """Name and environment variables of a tracking tool."""

    name: str
    address: str
    """Variable of the server's address."""
    project: str
    """Variable of the project or experiment."""
    credentials: tuple[str, ...]
    """Variables that can come from a Secret, in addition to the address."""
    accounts: tuple[str, ...]
    """Credentials of which one is required."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Default variables; ``{report}`` is the run's report directory."""


TOOLS: Mapping[str, Tool] = {
    "mlflow": Tool(
        "MLflow",
        address="MLFLOW_TRACKING_URI",
        project="MLFLOW_EXPERIMENT_NAME",
        credentials=("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
        accounts=("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"),
        # Its defaults are seven retries and a timeout of two minutes.
        defaults={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"},
    ),
    "wandb": Tool(
        "Weights & Biases",
        address="WANDB_BASE_URL",
        project="WANDB_PROJECT",
        credentials=("WANDB_API_KEY", "WANDB_ENTITY"),
        accounts=("WANDB_API_KEY",),
        # Its default is the working directory, which is read-only in a pod.
        defaults={"WANDB_DIR": "{report}", "WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60"},
    ),
}


def missing_settings(report_to: str, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield message and fix for everything that is missing in this environment to send metrics."""
    tool = TOOLS[report_to]
    package = importlib.util.find_spec(report_to)
    if package is None or package.origin is None:  # a directory of that name, such as W&B creates, has no origin
        extra = "tracking" if report_to == "mlflow" else report_to
        yield f"the package {report_to} is not installed", f"pip install 'argotune[{extra}]' where tune runs"
    if report_to == "mlflow" and not environment.get(tool.address):
        fix = f"export {tool.address}, or set pipeline.tracking.uri, or add it to pipeline.tracking.secret"
        yield f"{tool.address} is not set", fix
    if report_to == "wandb" and not _has_key(environment):
        fix = "export it (or WANDB_MODE=offline), or add it to pipeline.tracking.secret"
        yield "WANDB_API_KEY is not set", fix


def required_keys(report_to: str, *, addressed: bool) -> tuple[str, ...]:
    """Return the keys of which a Secret must have one; ``addressed``: the address is set elsewhere."""
    tool = TOOLS[report_to]
    return tool.accounts if addressed or report_to == "wandb" else (tool.address,)


def _has_key(environment: Mapping[str, str]) -> bool:
    """Return True if W&B finds a key or needs none; ``wandb login`` writes it to .netrc."""
    if environment.get("WANDB_MODE", "").lower() in OFFLINE:
        return True
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import requests

    address = environment.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    return bool(urlsplit(address).hostname and requests.utils.get_netrc_auth(address))
