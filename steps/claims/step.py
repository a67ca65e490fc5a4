"""Check that the claims exist which the data is read from and the adapter is written to.

A pod that mounts a missing or lost claim stays Pending without an error until the time limit of its step, and a
schedule with ``concurrencyPolicy: Forbid`` starts no other run until then.
"""

from __future__ import annotations

from steps.claims.settings import Result, Settings
from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.claims import check_claim
from steps.runtime.errors import BadInput, StepError, combine_errors
from steps.runtime.pod import is_pod


def claims(settings: Settings) -> Result:
    """Check all claims, then report all errors.

    Raises:
        BadInput: a claim does not exist, or has lost its volume.
        StepError: a claim has no volume yet; a retry can succeed.
    """
    if not is_pod():
        return Result("not checked: local run")
    try:
        cluster = kubernetes_client.connect()
    except BadInput as error:
        return Result(f"not checked: {error.message}")
    outcomes = [check_claim(cluster, name) for name in settings.claims]
    checked = [outcome for outcome in outcomes if isinstance(outcome, str)]
    for line in checked:
        print(f"ok: {line}", flush=True)
    if errors := [outcome for outcome in outcomes if isinstance(outcome, StepError)]:
        raise combine_errors(errors)
    return Result("; ".join(checked))
