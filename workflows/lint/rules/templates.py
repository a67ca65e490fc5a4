"""What a template may hold: one type, and only the fields of that type (Argo: ``validateTemplate``,
``validateLeaf``).
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from workflows.argo.document import LEAF_TYPES, POD_TYPES, TYPES, Document, Template, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_ON = {
    "timeout": LEAF_TYPES,
    "pendingTimeout": LEAF_TYPES,
    "activeDeadlineSeconds": LEAF_TYPES | {"suspend"},
    "parallelism": {"dag", "steps"},
    "resourceClaims": POD_TYPES,
    "podResources": set(TYPES) - {"http", "plugin"},
}
"""On which types of templates a field has a meaning; on the others Argo refuses it."""
_RESERVED = ("wait", "supervisor")
_RESERVED_START = "artifact-plugin-"


def template_type(document: Document) -> Iterator[Violation]:
    """A template is none, or more than one, of `container`, `script`, `dag`, `steps`, `suspend`..."""
    for template in document.templates:
        if len(template.types) != 1:
            has = f"is {' and '.join(template.types)} at once" if template.types else "has no type"
            fix = f"give exactly one of {', '.join(TYPES)}"
            yield Violation(template.path, f"{template.label} {has}", fix)


def misplaced_field(document: Document) -> Iterator[Violation]:
    """A field stands on a type of template that can't have it: `timeout` on a `dag`, `parallelism` on a
    container...
    """
    for template in document.templates:
        for field, types in _ON.items():
            if field in template.value and template.type and template.type not in types:
                fix = f"move it to a template of type {', '.join(name for name in TYPES if name in types)}"
                if field == "timeout" and template.type in ("dag", "steps"):
                    fix = "give each leaf its own; for the whole, spec.activeDeadlineSeconds"
                yield Violation(join(template.path, field), f"`{field}` is not for {template.type} templates", fix)


def image_missing(document: Document) -> Iterator[Violation]:
    """A container or script has no `image`, and `templateDefaults` gives none."""
    for template in document.templates:
        for kind in ("container", "script"):
            own = section(template.value, kind)
            if kind in template.value and not own.get("image") and not section(document.defaults, kind).get("image"):
                yield Violation(join(template.path, kind), f"{template.label} has no image", "add image: NAME:TAG")


def reserved_container(document: Document) -> Iterator[Violation]:
    """A sidecar or a container of a set has a name that Argo needs itself: `wait`, `supervisor`,
    `artifact-plugin-...`; for a sidecar also `main`.
    """
    for template in document.templates:
        sidecars = listed(template.value, "sidecars", template.path)
        containers = listed(section(template.value, "containerSet"), "containers", f"{template.path}.containerSet")
        for path, value in [*sidecars, *containers]:
            name = str(value.get("name", ""))
            taken = name in _RESERVED or name.startswith(_RESERVED_START)
            if taken or (name == "main" and ".sidecars" in path):
                yield Violation(join(path, "name"), f"`{name}` is a container of Argo's own", "give it another name")


def container_set(document: Document) -> Iterator[Violation]:
    """A container set is empty, its containers depend on unknown ones or on each other in a ring, or it has inputs or
    outputs but no container `main` that gets them.
    """
    for template in document.templates:
        if "containerSet" in template.value:
            yield from _container_set(template)


def _container_set(template: Template) -> Iterator[Violation]:
    path = join(template.path, "containerSet")
    containers = {str(v.get("name")): (p, v) for p, v in listed(template.value["containerSet"], "containers", path)}
    if not containers:
        yield Violation(path, "no containers", "add at least one")
    for place, value in containers.values():
        for name in value.get("dependencies", []):
            if name not in containers:
                fix = f"there are {', '.join(containers)}"
                yield Violation(join(place, "dependencies"), f"no container is called `{name}`", fix)
    try:
        TopologicalSorter({name: value.get("dependencies", []) for name, (_, value) in containers.items()}).prepare()
    except CycleError as error:
        yield Violation(
            path, f"containers wait for each other: {' -> '.join(error.args[1])}", "take one dependency out"
        )
    wanted = [
        template.names("inputs", "artifacts"),
        *(template.names("outputs", k) for k in ("parameters", "artifacts")),
    ]
    if any(wanted) and containers and "main" not in containers:
        yield Violation(
            path, "a set with inputs or outputs needs a container `main`", "call the one that has them main"
        )
