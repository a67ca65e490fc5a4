"""Resource templates, and what pods ask for."""

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
    """A `resource` that changes something has no manifest or two, its manifest is not YAML, or `manifestFrom` names an
    artifact that is not among the inputs.
    """
    for template in document.templates:
        resource = section(template.value, "resource")
        path = join(template.path, "resource")
        if not resource or resource.get("action") in ("get", "delete"):
            continue
        manifest, source = str(resource.get("manifest", "")), section(resource, "manifestFrom")
        if not manifest and not source:
            yield Violation(path, "no manifest", "add manifest, or manifestFrom.artifact")
        elif manifest and source:
            yield Violation(path, "both manifest and manifestFrom", "keep one of them")
        artifact = section(source, "artifact").get("name")
        if source and artifact not in template.names("inputs", "artifacts"):
            yield Violation(
                join(path, "manifestFrom"), f"no input artifact is called `{artifact}`", "declare it among inputs"
            )
        if manifest and (fault := _not_yaml(manifest)):
            yield Violation(
                join(path, "manifest"), f"the manifest is not YAML: {fault}", "check its indentation and quotes"
            )


def pod_resource(document: Document) -> Iterator[Violation]:
    """`podResources` asks for something that Kubernetes does not give to a pod as a whole: only `cpu`, `memory` and
    `hugepages-...`.
    """
    places = [(join(document.path, "podResources"), section(document.spec, "podResources"))]
    places += [(join(t.path, "podResources"), section(t.value, "podResources")) for t in document.templates]
    for path, resources in places:
        for kind in ("limits", "requests"):
            for name in section(resources, kind):
                if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                    fix = "ask for it in container.resources"
                    yield Violation(join(join(path, kind), name), f"`{name}` is not given to a pod as a whole", fix)
        if resources.get("claims"):
            yield Violation(join(path, "claims"), "claims are not given to a pod as a whole", "use resourceClaims")


def _not_yaml(manifest: str) -> str:
    """What is wrong with a manifest once its tags have values; a tag alone may stand for any part of it."""
    text = _TAG.sub("x", manifest)
    try:
        list(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        _, problems = documents(text, "")
        return problems[0].message.removeprefix("not YAML: ") if problems else "it does not parse"
    except RecursionError:
        return "nested too deeply"
    return ""
