"""Access of a pod to a base model from an image or an object store: credentials, by reference to Secrets."""

from __future__ import annotations

from collections.abc import Sequence

from hera.workflows import Env, SecretEnv
from hera.workflows import models as m

from steps.data.locations import azure, s3
from steps.models import locations
from workflows.compile.mount_paths import MODEL_SECRET
from workflows.plan.model import Plan
from workflows.plan.pods import ALL

VARIABLES = (*s3.ENVIRONMENT, *azure.ENVIRONMENT)
"""Variables that ``pipeline.model.secret`` can have as keys."""


def environment(plan: Plan, step: str, others: Sequence[str] = ()) -> list[Env | SecretEnv]:
    """Return the variables of a step; keys are optional, because a Secret has those of one store.

    Variables of the site profile, and ``others`` that the step has already, take precedence.
    """
    variables: list[Env | SecretEnv] = []
    model = plan.model
    if model.secret and locations.is_store(model.repository):
        of_site = {variable.name for name in (ALL, step) if name in plan.pods for variable in plan.pods[name].env}
        keys = [key for key in VARIABLES if key not in {*of_site, *others}]
        variables += [SecretEnv(name=key, secret_name=model.secret, secret_key=key, optional=True) for key in keys]
    if model.image_pull_secret:
        variables.append(Env(name=locations.CONFIG_VARIABLE, value=MODEL_SECRET))
    return variables


def mounts(plan: Plan) -> list[m.VolumeMount]:
    """Return the mount of the Secret that the image is pulled with."""
    if not plan.model.image_pull_secret:
        return []
    return [m.VolumeMount(name="model-secret", mount_path=MODEL_SECRET, read_only=True)]
