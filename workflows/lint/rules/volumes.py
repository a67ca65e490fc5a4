"""Volume mounts (``argo lint`` checks only the paths)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, Template, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown


def mount_path(document: Document) -> Iterator[Violation]:
    """Two volumes of a container are mounted at the same path, or an input artifact has the path of a volume."""
    for template in document.templates:
        for container, mounts in _mounts(template):
            seen: dict[str, str] = {}
            for path, mount in mounts:
                mount_path = str(mount.get("mountPath", "")).rstrip("/") or "/"
                if mount_path in seen:
                    yield Violation(
                        join(path, "mountPath"),
                        f"`{seen[mount_path]}` is also mounted at {mount_path}",
                        "use another path",
                    )
                seen.setdefault(mount_path, str(mount.get("name", "")))
            # Argo loads artifacts only into the main container.
            for path, artifact in template.parts("inputs", "artifacts") if container else ():
                artifact_path = str(artifact.get("path", "")).rstrip("/")
                if artifact_path in seen:
                    yield Violation(
                        join(path, "path"),
                        f"volume `{seen[artifact_path]}` is mounted at {artifact_path}",
                        "use another path",
                    )


def unknown_volume(document: Document) -> Iterator[Violation]:
    """A container mounts a volume that is declared neither in the template nor in the workflow (`volumes`,
    `volumeClaimTemplates`). A WorkflowTemplate without entrypoint can use the volumes of the Workflow that calls it.
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
                    yield Violation(join(path, "name"), f"unknown volume `{name}`", fix)


def _volumes(value: Value) -> set[str]:
    claims = [section(claim, "metadata") for _, claim in listed(value, "volumeClaimTemplates", "")]
    return {str(each.get("name")) for each in [*claims, *(volume for _, volume in listed(value, "volumes", ""))]}


def _mounts(template: Template) -> Iterator[tuple[bool, list[tuple[str, Value]]]]:
    """Yield for each container True if it is a main container, and its mounts with their paths."""
    for path, container in template.pods:
        main = path.endswith((".container", ".script"))
        yield main, listed(container, "volumeMounts", path)
    container_set = section(template.value, "containerSet")
    yield True, listed(container_set, "volumeMounts", join(template.path, "containerSet"))
