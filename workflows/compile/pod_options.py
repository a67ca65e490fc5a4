"""The options of the site profile (``pods:``) in the template of a step."""

from __future__ import annotations

import json
from typing import Any

from hera.workflows import models as m

from workflows.plan.pods import PodOptions, fragments


def apply(options: PodOptions, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a Hera template, extended by the options.

    What the step needs (its variables, the labels of its nodes) wins over the options; resources of the options win.
    """
    if not (parts := fragments(options)):
        return fields
    metadata, spec, container = (parts[name] for name in ("metadata", "spec", "container"))
    extended = dict(fields)
    if "env" in container:
        names = {variable.name for variable in fields["env"]}
        variables = [
            m.EnvVar.model_validate(variable) for variable in container["env"] if variable["name"] not in names
        ]
        extended["env"] = [*fields["env"], *variables]
    if "resources" in container:
        extended["resources"] = _resources(fields["resources"], container["resources"])
    if "imagePullPolicy" in container:
        extended["image_pull_policy"] = container["imagePullPolicy"]
    for name in ("labels", "annotations"):
        if name in metadata:
            extended[name] = {**metadata[name], **(fields.get(name) or {})}
    if "nodeSelector" in spec:
        extended["node_selector"] = {**spec["nodeSelector"], **(fields.get("node_selector") or {})}
    if "tolerations" in spec:
        tolerations = [m.Toleration.model_validate(toleration) for toleration in spec["tolerations"]]
        extended["tolerations"] = [*(fields.get("tolerations") or []), *tolerations]
    if "priorityClassName" in spec:
        extended["priority_class_name"] = spec["priorityClassName"]
    if "volumes" in spec:
        volumes = [m.Volume.model_validate(volume) for volume in spec["volumes"]]
        mounts = [m.VolumeMount.model_validate(mount) for mount in container["volumeMounts"]]
        extended["volumes"] = [*(fields.get("volumes") or []), *volumes]
        extended["volume_mounts"] = [*fields["volume_mounts"], *mounts]
    # Fields of the pod that Argo's templates do not have.
    if patch := {name: spec[name] for name in ("runtimeClassName", "imagePullSecrets") if name in spec}:
        own = json.loads(fields.get("pod_spec_patch") or "{}")
        extended["pod_spec_patch"] = json.dumps({**own, **patch})
    return extended


def _resources(own: Any, site: dict[str, dict[str, str]]) -> m.ResourceRequirements:
    """Return the resources of a step, replaced by those of the site profile."""
    built = own.build()
    merged = {}
    for kind in ("requests", "limits"):
        amounts = {name: amount.root for name, amount in (getattr(built, kind) or {}).items()} | site.get(kind, {})
        merged[kind] = amounts or None
    return m.ResourceRequirements.model_validate(merged)
