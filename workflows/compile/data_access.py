"""Environment of a pod that reads the data: credentials of the hub and of object stores, by reference to a Secret."""

from __future__ import annotations

from hera.workflows import SecretEnv

from steps.data.locations import azure, s3
from workflows.compile import pod
from workflows.plan.model import Plan

VARIABLES = ("HF_TOKEN", *s3.ENVIRONMENT, *azure.ENVIRONMENT)
"""Variables that ``pipeline.data.secret`` can have as keys."""


def environment(plan: Plan) -> list[SecretEnv]:
    """Return the variables; keys are optional, because a Secret has those of one store.

    ``pipeline.data.secret`` takes precedence over the token of the base model.
    """
    data = plan.data
    if data is None or not data.urls:
        return []
    if data.secret:
        return [SecretEnv(name=key, secret_name=data.secret, secret_key=key, optional=True) for key in VARIABLES]
    return [pod.access_token(plan, optional=True)] if plan.model.access_secret else []
