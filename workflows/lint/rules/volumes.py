"""Volume mounts (Argo's lint looks at the paths alone)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, Template, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown


def mount_path(document: Document) -> Iterator[Violation]:
    """Two volumes of a container are mounted at one path, or an input artifact is put where a volume is."""
    for template in document.templates:
        for container, mounts in _mounts(template):
            seen: dict[str, str] = {}
            for path, mount in mounts:
                place = str(mount.get("mountPath", "")).rstrip("/") or "/"
                if place in seen:
                    yield Violation(
                        join(path, "mountPath"), f"`{seen[place]}` is mounted at {place} already", "choose another"
                    )
                seen.setdefault(place, str(mount.get("name", "")))
            # Argo brings artifacts into the main container alone.
            for path, artifact in template.parts("inputs", "artifacts") if container else ():
                place = str(artifact.get("path", "")).rstrip("/")
                if place in seen:
                    yield Violation(
                        join(path, "path"), f"volume `{seen[place]}` is mounted at {place}", "choose another"
                    )


def unknown_volume(document: Document) -> Iterator[Violation]:
    """A container mounts a volume that is declared neither in the template nor in the workflow (`volumes`,
    `volumeClaimTemplates`). A template of a library, without entrypoint, may use those of the Workflow that calls it.
    """
    if document.is_template and not document.spec.get("entrypoint"):
        return
    shared = _volumes(document.spec) | _volumes(document.defaults)
    shared |= _volumes(document.referred.spec) if document.referred else set()
    for template in document.templates:
        known = shared | _volumes(template.value)
        for _, mounts in _mounts(template):
            for path, mount in mounts:
                name = str(mount.get("name", ""))
                if name not in known and "{{" not in name:
                    fix = unknown(name, sorted(known)) if known else "add it to volumes or volumeClaimTemplates"
                    yield Violation(join(path, "name"), f"no volume is called `{name}`", fix)


def _volumes(value: Value) -> set[str]:
    claims = [section(claim, "metadata") for _, claim in listed(value, "volumeClaimTemplates", "")]
    return {str(found.get("name")) for found in [*claims, *(volume for _, volume in listed(value, "volumes", ""))]}


def _mounts(template: Template) -> Iterator[tuple[bool, list[tuple[str, Value]]]]:
    """Of each container, whether it is the main one, and its mounts with their paths."""
    for path, container in template.pods:
        main = path.endswith((".container", ".script"))
        yield main, listed(container, "volumeMounts", path)
    of_set = section(template.value, "containerSet")
    yield True, listed(of_set, "volumeMounts", join(template.path, "containerSet"))
