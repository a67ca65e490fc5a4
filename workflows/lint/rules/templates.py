"""Templates: one type, and only the fields of that type (Argo: ``validateTemplate``, ``validateLeaf``)."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from workflows.argo.document import LEAF_TYPES, POD_TYPES, TYPES, Document, Template, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_FIELD_TYPES = {
    "timeout": LEAF_TYPES,
    "pendingTimeout": LEAF_TYPES,
    "activeDeadlineSeconds": LEAF_TYPES | {"suspend"},
    "parallelism": {"dag", "steps"},
    "resourceClaims": POD_TYPES,
    "podResources": set(TYPES) - {"http", "plugin"},
}
"""Template types that allow a field; Argo rejects it on the others."""
_RESERVED = ("wait", "supervisor")
_RESERVED_PREFIX = "artifact-plugin-"


def template_type(document: Document) -> Iterator[Violation]:
    """A template does not have exactly one of `container`, `script`, `dag`, `steps`, `suspend`..."""
    for template in document.templates:
        if len(template.types) != 1:
            types = " cannot be combined with ".join(template.types) or "no type"
            fix = f"set exactly one of {', '.join(TYPES)}"
            yield Violation(template.path, f"{template.label}: {types}", fix)


def misplaced_field(document: Document) -> Iterator[Violation]:
    """A template has a field that its type does not allow, such as `timeout` on a `dag` or `parallelism` on a
    container.
    """
    for template in document.templates:
        for field, types in _FIELD_TYPES.items():
            if field in template.value and template.type and template.type not in types:
                fix = f"move it to a template of type {', '.join(name for name in TYPES if name in types)}"
                if field == "timeout" and template.type in ("dag", "steps"):
                    fix = "set it on each leaf template, or set spec.activeDeadlineSeconds"
                yield Violation(
                    join(template.path, field), f"`{field}` is not allowed on {template.type} templates", fix
                )


def plugin_name(document: Document) -> Iterator[Violation]:
    """A `plugin` does not have exactly one key, the name of the plugin."""
    for template in document.templates:
        plugin = template.value.get("plugin")
        if isinstance(plugin, dict) and len(plugin) != 1:
            message = f"the plugin has {len(plugin)} keys instead of one"
            yield Violation(join(template.path, "plugin"), message, "use the name of the plugin as the only key")


def image_missing(document: Document) -> Iterator[Violation]:
    """A container or script has no `image`, and neither has `templateDefaults`."""
    for template in document.templates:
        for kind in ("container", "script"):
            container = section(template.value, kind)
            if (
                kind in template.value
                and not container.get("image")
                and not section(document.defaults, kind).get("image")
            ):
                yield Violation(join(template.path, kind), f"{template.label} has no image", "add image: NAME:TAG")


def reserved_container(document: Document) -> Iterator[Violation]:
    """A sidecar or a container of a set has a reserved name: `wait`, `supervisor`, `artifact-plugin-...`; for a
    sidecar also `main`.
    """
    for template in document.templates:
        sidecars = listed(template.value, "sidecars", template.path)
        containers = listed(section(template.value, "containerSet"), "containers", f"{template.path}.containerSet")
        for path, value in [*sidecars, *containers]:
            name = str(value.get("name", ""))
            reserved = name in _RESERVED or name.startswith(_RESERVED_PREFIX)
            if reserved or (name == "main" and ".sidecars" in path):
                yield Violation(join(path, "name"), f"the container name `{name}` is reserved", "rename it")


def container_set(document: Document) -> Iterator[Violation]:
    """A container set is empty, its dependencies are unknown or form a cycle, or it has inputs or outputs but no
    container `main` that uses them.
    """
    for template in document.templates:
        if "containerSet" in template.value:
            yield from _container_set(template)


def _container_set(template: Template) -> Iterator[Violation]:
    path = join(template.path, "containerSet")
    containers = {str(v.get("name")): (p, v) for p, v in listed(template.value["containerSet"], "containers", path)}
    if not containers:
        yield Violation(path, "the container set is empty", "add a container")
    for container_path, value in containers.values():
        for name in value.get("dependencies", []):
            if name not in containers:
                fix = f"use one of {', '.join(containers)}"
                yield Violation(join(container_path, "dependencies"), f"unknown container `{name}`", fix)
    try:
        TopologicalSorter({name: value.get("dependencies", []) for name, (_, value) in containers.items()}).prepare()
    except CycleError as error:
        yield Violation(path, f"dependency cycle: {' -> '.join(error.args[1])}", "remove one dependency")
    files = [
        template.names("inputs", "artifacts"),
        *(template.names("outputs", k) for k in ("parameters", "artifacts")),
    ]
    if any(files) and containers and "main" not in containers:
        yield Violation(
            path,
            "a container set with inputs or outputs requires a container `main`",
            "rename the container that uses them",
        )
