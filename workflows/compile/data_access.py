"""Environment of a pod that reads the data: credentials of the hub and of object stores, by reference to a Secret."""

from __future__ import annotations

from hera.workflows import SecretEnv

from steps.data.locations import azure, s3
from workflows.compile import pod
from workflows.plan.model import Plan
from workflows.plan.pods import ALL

VARIABLES = ("HF_TOKEN", *s3.ENVIRONMENT, *azure.ENVIRONMENT)
"""Variables that ``pipeline.data.secret`` can have as keys."""


def environment(plan: Plan, step: str) -> list[SecretEnv]:
    """Return the variables of a step; keys are optional, because a Secret has those of one store.

    ``pipeline.data.secret`` takes precedence over the token of the base model, and the site profile over both.
    """
    data = plan.data
    if data and data.secret:
        of_site = {variable.name for name in (ALL, step) if name in plan.pods for variable in plan.pods[name].env}
        keys = [key for key in VARIABLES if key not in of_site]
        return [SecretEnv(name=key, secret_name=data.secret, secret_key=key, optional=True) for key in keys]
    has_urls = data is not None and (data.urls or any(named.urls for named in data.inputs))
    return [pod.access_token(plan, optional=True)] if has_urls and plan.model.access_secret else []
