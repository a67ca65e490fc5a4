"""Check experiment tracking: the keys of the Secret, and that MLflow accepts them.

A server that does not respond is reported and is no error: the training continues without it.
"""

from __future__ import annotations

import os

import requests

from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError
from steps.runtime.outcomes import NotChecked, Outcomes
from steps.runtime.pod import namespace_flag
from steps.tune.tracking_tools import TOOLS, required_keys

TIMEOUT_SECONDS = 10.0
SEARCH_PATH = "/api/2.0/mlflow/experiments/search"
"""MLflow's REST API: searches for one experiment."""


def check(report_to: str, uri: str, secret: str, *, has_secret: bool = True) -> Outcomes:
    """Check the environment of the pod, then the server.

    Args:
        report_to: the tool.
        uri: URL of its server; empty: of the environment.
        secret: the Secret with its variables; empty: none.
        has_secret: the environment is that of the Secret, and not that of a user's shell.
    """
    tool = TOOLS[report_to]
    if secret and not has_secret:
        if not any(os.environ.get(key) for key in tool.credentials):
            yield NotChecked(f"the server of {tool.name}", f"its credentials are in Secret {secret}")
            return
    elif secret:
        keys = required_keys(report_to, addressed=bool(uri))
        if not any(os.environ.get(key) for key in keys):
            yield BadInput(
                f"Secret {secret} not found, or it has no key {' or '.join(keys)}",
                f"kubectl create secret generic {secret}{namespace_flag()} --from-literal={keys[0]}=..."
                " (outside a cluster: export it)",
            )
            return
        variables = (*(() if uri else (tool.address,)), *tool.credentials)
        yield f"Secret {secret} has {', '.join(key for key in variables if os.environ.get(key))}"
    address = uri or os.environ.get(tool.address, "")
    if report_to == "mlflow" and address.startswith(("http://", "https://")):
        yield _check(address.rstrip("/"))


def _check(address: str) -> str | StepError:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    try:
        response = requests.get(
            f"{address}{SEARCH_PATH}",
            params={"max_results": 1},
            headers={"Authorization": f"Bearer {token}"} if token and not user[0] else {},
            auth=user if user[0] else None,
            timeout=TIMEOUT_SECONDS,
        )
    except requests.RequestException as error:
        reason = connection_failure.classify(error).reason
        return NotChecked(f"MLflow at {address}", f"{reason}; training continues without it")
    if response.status_code in (401, 403):
        return BadInput(
            f"MLflow at {address} does not accept the credentials ({response.status_code})",
            "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the Secret",
        )
    if not response.ok:
        reason = f"it returned {response.status_code}, unlike MLflow; training continues without it"
        return NotChecked(f"MLflow at {address}", reason)
    return f"MLflow at {address} responds"
