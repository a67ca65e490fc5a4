"""Where metrics may go besides the run's report: the tools, the environment variables they go by, and what they lack.

Light, for whoever compiles a step too; ``steps.tune.tracking`` does the sending.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

ReportTo = Literal["none", "mlflow", "wandb"]
OFFLINE = ("offline", "dryrun", "disabled")
"""Values of WANDB_MODE with which no server is spoken to."""


@dataclass(frozen=True)
class Tool:
    """How a tracking tool is called, and the environment variables that it reads."""

    name: str
    address: str
    project: str
    credentials: tuple[str, ...]
    """What may come from a Secret besides."""
    accounts: tuple[str, ...]
    """Those of them that name an account: it takes one."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Variables for where the user has set none; ``{report}`` is the run's report folder."""


TOOLS: Mapping[str, Tool] = {
    "mlflow": Tool(
        "MLflow",
        address="MLFLOW_TRACKING_URI",
        project="MLFLOW_EXPERIMENT_NAME",
        credentials=("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
        accounts=("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"),
        # It would try seven times, and wait two minutes for each answer.
        defaults={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"},
    ),
    "wandb": Tool(
        "Weights & Biases",
        address="WANDB_BASE_URL",
        project="WANDB_PROJECT",
        credentials=("WANDB_API_KEY", "WANDB_ENTITY"),
        accounts=("WANDB_API_KEY",),
        # It would write where the process was started, which a pod may not.
        defaults={"WANDB_DIR": "{report}", "WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60"},
    ),
}


def missing_settings(report_to: str, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a process with this environment lacks to send metrics, and how to mend it."""
    tool = TOOLS[report_to]
    package = importlib.util.find_spec(report_to)
    if package is None or package.origin is None:  # a mere folder of the name, as W&B makes one, has no origin
        extra = "tracking" if report_to == "mlflow" else report_to
        yield f"the package {report_to} is not installed", f"pip install 'argotune[{extra}]' where tune runs"
    if report_to == "mlflow" and not environment.get(tool.address):
        fix = f"export {tool.address}, or write pipeline.tracking.uri, or put it into pipeline.tracking.secret"
        yield f"{tool.address} is not set", fix
    if report_to == "wandb" and not _has_key(environment):
        fix = "export it (or WANDB_MODE=offline), or put it into pipeline.tracking.secret"
        yield "WANDB_API_KEY is not set", fix


def required_keys(report_to: str, *, addressed: bool) -> tuple[str, ...]:
    """Keys of which a Secret must have one; ``addressed``: the address of the server is written elsewhere."""
    tool = TOOLS[report_to]
    return tool.accounts if addressed or report_to == "wandb" else (tool.address,)


def _has_key(environment: Mapping[str, str]) -> bool:
    """Whether W&B will find a key, or needs none; ``wandb login`` writes it to .netrc."""
    if environment.get("WANDB_MODE", "").lower() in OFFLINE:
        return True
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import requests

    address = environment.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    return bool(urlsplit(address).hostname and requests.utils.get_netrc_auth(address))
