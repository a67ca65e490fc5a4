"""Environment of a pod that sends metrics to a tracking tool; credentials by reference to a Secret."""

from __future__ import annotations

from hera.workflows import Env, SecretEnv

from steps.tune.tracking_tools import TOOLS
from workflows.compile.settings import is_tracked
from workflows.plan.model import Plan


def environment(plan: Plan) -> list[Env | SecretEnv]:
    """Return the variables that the tool reads.

    Keys of the Secret are optional: the step reports a missing one, while a pod would hang without a message.
    """
    tracking = plan.tracking
    if tracking is None or not is_tracked(plan):
        return []
    tool, secret = TOOLS[tracking.report_to], tracking.secret
    values = {tool.address: tracking.uri, tool.project: tracking.project}
    keys = [*(name for name, value in values.items() if not value), *tool.credentials] if secret else []
    return [
        *(Env(name=name, value=value) for name, value in values.items() if value),
        *(SecretEnv(name=key, secret_name=secret, secret_key=key, optional=True) for key in keys),
    ]
