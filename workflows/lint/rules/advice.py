"""Best practices: warnings about what Argo accepts, and the size limit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steps.oci import reference
from steps.runtime.errors import BadInput
from steps.runtime.redaction import redact_secrets
from workflows.argo import expressions
from workflows.argo.document import Document, Task, listed, section, strings
from workflows.argo.tags import TAG
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

MAX_DOCUMENT_BYTES = 1024 * 1024
_APPROVES = re.compile(r"approv|confirm|review|gate|sign-?off", re.IGNORECASE)
_NOT_SECRET = re.compile(r"(?i)_?(file|path|dir|url|name|id|namespace|endpoint|enabled|limit|count|length)$")
_FILE = re.compile(r"(/[a-z0-9_.-]+)+/?")
_PARAMETER = re.compile(r"(?:tasks|steps)\.([^.]+)\.outputs\.parameters\.([^.]+)")


def size(document: Document) -> Iterator[Violation]:
    """A document is larger than 1 MiB, which the Argo controller and Kubernetes reject."""
    size = len(document.text.encode(errors="replace"))
    if size > MAX_DOCUMENT_BYTES:
        fix = "use withParam, refer to a WorkflowTemplate, or move data to ConfigMaps or artifacts"
        yield Violation("", f"the document has {size / MAX_DOCUMENT_BYTES:.1f} MiB (at most 1 MiB)", fix)


def timed_approval(document: Document) -> Iterator[Violation]:
    """A `suspend` for an approval has a `duration`: it counts as approved when the time has passed."""
    for template in document.templates:
        has_answer = any("supplied" in section(v, "valueFrom") for _, v in template.parts("outputs", "parameters"))
        if section(template.value, "suspend").get("duration") and (has_answer or _APPROVES.search(template.name)):
            fix = "remove duration, or add an input with enum [YES, NO] and default NO and test it in `when`"
            yield Violation(
                f"{template.path}.suspend.duration", "the approval is automatic when the time has passed", fix
            )


def optional_output(document: Document) -> Iterator[Violation]:
    """A task reads an output of a task that can be skipped, and neither the output nor the input has a default: Argo
    4.0.7 and later fail the task, older versions hang.
    """
    for template in document.templates:
        for task in template.tasks:
            for path, value in listed(section(task.value, "arguments"), "parameters", f"{task.path}.arguments"):
                name = str(value.get("value", ""))
                match = _PARAMETER.fullmatch((TAG.fullmatch(name.strip()) or [name, ""])[1])
                other = template.by_name.get(match[1]) if match else None
                if match and other and _can_be_skipped(other, task) and not _has_default(other, match[2]):
                    inputs = task.called.parts("inputs", "parameters") if task.called else []
                    if not any(i.get("name") == value.get("name") and "default" in i for _, i in inputs):
                        fix = f"add valueFrom.default to the output, or depend on {other.name}.Succeeded"
                        message = f"`{other.name}` can be skipped, and its output `{match[2]}` has no default"
                        yield Violation(path, message, fix)


def command_missing(document: Document) -> Iterator[Violation]:
    """A container has no `command`: Argo then reads it from the registry on each run, and needs access to it."""
    for template in document.templates:
        for kind in ("container", "script"):
            commands = [section(value, kind).get("command") for value in (template.value, document.defaults)]
            if kind in template.value and not any(commands):
                fix = "add command" if kind == "container" else "add the interpreter, such as command: [python]"
                yield Violation(join(template.path, kind), f"the {kind} has no command", fix)


def retry_of_tasks(document: Document) -> Iterator[Violation]:
    """`templateDefaults` has `retryStrategy` or `timeout` and there are `dag` or `steps` templates: it applies to them
    too, so that retries multiply and Argo rejects the timeout.
    """
    for field in ("retryStrategy", "timeout"):
        if field in document.defaults and any(template.type in ("dag", "steps") for template in document.templates):
            path = join(join(document.path, "templateDefaults"), field)
            yield Violation(path, f"`{field}` also applies to dag and steps templates", "set it in each leaf template")


def secret_in_text(document: Document) -> Iterator[Violation]:
    """The document contains what looks like a password, token or key as plain text: in an environment variable, an
    argument or a parameter.
    """
    for template in document.templates:
        for path, pod in template.pods:
            for env_path, env in listed(pod, "env", path):
                yield from _secret(str(env.get("name", "")), env.get("value"), join(env_path, "value"))
            for field in ("args", "command", "source"):
                for text_path, text in strings(pod.get(field), join(path, field)):
                    if redact_secrets(text) != text:
                        yield Violation(text_path, "the text looks like a secret", "use env.valueFrom.secretKeyRef")
    for path, value in listed(section(document.spec, "arguments"), "parameters", join(document.path, "arguments")):
        yield from _secret(str(value.get("name", "")), value.get("value"), join(path, "value"))


def image_tag(document: Document) -> Iterator[Violation]:
    """An image has the tag `latest` or no tag, so that its content can change; or it is not an image reference."""
    for template in document.templates:
        for path, pod in template.pods:
            image = str(pod.get("image", ""))
            if not image or "{{" in image:
                continue
            try:
                parsed = reference.parse(image)
            except BadInput as error:
                yield Violation(join(path, "image"), error.message, error.fix)
                continue
            if parsed.tag_or_digest == "latest":
                message = f"`{image}` has {'the tag latest' if parsed.tag else 'no tag'}"
                yield Violation(
                    join(path, "image"), message, f"use a version tag, such as {image.removesuffix(':latest')}:1.0"
                )


def _can_be_skipped(other: Task, task: Task) -> bool:
    """Return True if ``task`` can run although ``other`` was skipped."""
    if not other.value.get("when"):
        return False
    if other.within.type == "steps" or not task.depends:
        return other.value.get("when") != task.value.get("when")
    try:
        depends = expressions.parse_depends(task.depends)
    except (expressions.ExpressionError, RecursionError):
        return False
    ran = {"Succeeded", "Failed", "Errored"}
    required = {result for name, result in expressions.results_of(depends) if name == other.name}
    return not (required and required <= ran) and other.value.get("when") != task.value.get("when")


def _has_default(task: Task, name: str) -> bool:
    if task.called is None:
        return True
    outputs = [value for _, value in task.called.parts("outputs", "parameters") if value.get("name") == name]
    return any("default" in section(value, "valueFrom") or "value" in value for value in outputs) or not outputs


def _secret(name: str, value: object, path: str) -> Iterator[Violation]:
    if not isinstance(value, str) or not value or "{{" in value or _NOT_SECRET.search(name) or _FILE.fullmatch(value):
        return
    # As key and value: redact_secrets distinguishes counts (MAX_NEW_TOKENS: 128) from tokens.
    if redact_secrets({name: value}) != {name: value}:
        fix = "move it to a Secret: valueFrom.secretKeyRef"
        yield Violation(
            path, f"the value of `{name}` looks like a secret, and every reader of the Workflow can see it", fix
        )
