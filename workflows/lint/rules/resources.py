"""Resource templates and resource requests of pods."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from workflows.argo.document import Document, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.source import documents

_TAG = re.compile(r"\{\{.*?\}\}")


def resource_manifest(document: Document) -> Iterator[Violation]:
    """A `resource` with an action other than get and delete does not have exactly one manifest, its manifest is not
    YAML, or `manifestFrom` refers to an unknown input artifact.
    """
    for template in document.templates:
        resource = section(template.value, "resource")
        path = join(template.path, "resource")
        if not resource or resource.get("action") in ("get", "delete"):
            continue
        manifest, source = str(resource.get("manifest", "")), section(resource, "manifestFrom")
        if not manifest and not source:
            yield Violation(path, "the resource has no manifest", "add manifest, or manifestFrom.artifact")
        elif manifest and source:
            yield Violation(path, "manifest cannot be combined with manifestFrom", "remove one of them")
        artifact = section(source, "artifact").get("name")
        if source and artifact not in template.names("inputs", "artifacts"):
            yield Violation(join(path, "manifestFrom"), f"unknown input artifact `{artifact}`", "declare it in inputs")
        if manifest and (error := _yaml_error(manifest)):
            yield Violation(
                join(path, "manifest"), f"the manifest is not YAML: {error}", "check its indentation and quotes"
            )


def pod_resource(document: Document) -> Iterator[Violation]:
    """`podResources` requests a resource that Kubernetes allows only on containers: a pod can have `cpu`, `memory` and
    `hugepages-...`.
    """
    requests = [(join(document.path, "podResources"), section(document.spec, "podResources"))]
    requests += [(join(t.path, "podResources"), section(t.value, "podResources")) for t in document.templates]
    for path, resources in requests:
        for kind in ("limits", "requests"):
            for name in section(resources, kind):
                if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                    fix = "move it to container.resources"
                    yield Violation(join(join(path, kind), name), f"`{name}` is not allowed in podResources", fix)
        if resources.get("claims"):
            yield Violation(join(path, "claims"), "claims is not allowed in podResources", "use resourceClaims")


def _yaml_error(manifest: str) -> str:
    """Return the syntax error of a manifest, with tags replaced by a string; empty when there is none."""
    text = _TAG.sub("x", manifest)
    try:
        list(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError:
        _, problems = documents(text, "")
        return problems[0].message.removeprefix("not YAML: ") if problems else "it does not parse"
    except RecursionError:
        return "nested too deeply"
    return ""
