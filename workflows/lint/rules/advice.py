"""What Argo accepts and experience advises against: all of these are warnings, but for the size."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steps.oci import reference
from steps.runtime.errors import BadInput
from steps.runtime.redaction import redact
from workflows.argo import expressions
from workflows.argo.document import Document, Task, Value, listed, section, strings
from workflows.argo.tags import TAG
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

MAX_DOCUMENT_BYTES = 1024 * 1024
_APPROVES = re.compile(r"approv|confirm|review|gate|sign-?off", re.IGNORECASE)
_GPU = re.compile(r"(^|[./-])(gpu|mig-)", re.IGNORECASE)
_NOT_SECRET = re.compile(r"(?i)_?(file|path|dir|url|name|id|namespace|endpoint|enabled|limit|count|length)$")
_PARAMETER = re.compile(r"(?:tasks|steps)\.([^.]+)\.outputs\.parameters\.([^.]+)")


def size(document: Document) -> Iterator[Violation]:
    """A document is larger than 1 MiB, which Argo's controller and Kubernetes refuse."""
    if document.size > MAX_DOCUMENT_BYTES:
        fix = "loop with withParam over one task, refer to a WorkflowTemplate, keep data in ConfigMaps or artifacts"
        yield Violation("", f"it is {document.size / MAX_DOCUMENT_BYTES:.1f} MiB large; the limit is 1 MiB", fix)


def timed_approval(document: Document) -> Iterator[Violation]:
    """A `suspend` that asks for approval has a `duration`: when it is over, that counts as approved."""
    for template in document.templates:
        asks = any("supplied" in section(v, "valueFrom") for _, v in template.parts("outputs", "parameters"))
        if section(template.value, "suspend").get("duration") and (asks or _APPROVES.search(template.name)):
            fix = "leave duration out, or give an input with enum [YES, NO] and default NO and test it in `when`"
            yield Violation(
                f"{template.path}.suspend.duration", "the approval is given by itself when the time is over", fix
            )


def optional_output(document: Document) -> Iterator[Violation]:
    """A task reads an output of one that may be skipped, and neither that output nor the input has a default: Argo
    4.0.7 and later fail the task, older ones hang.
    """
    for template in document.templates:
        for task in template.tasks:
            for path, value in listed(section(task.value, "arguments"), "parameters", f"{task.path}.arguments"):
                name = str(value.get("value", ""))
                match = _PARAMETER.fullmatch((TAG.fullmatch(name.strip()) or [name, ""])[1])
                other = template.by_name.get(match[1]) if match else None
                if match and other and _may_be_skipped(other, task) and not _has_default(other, match[2]):
                    wanted = task.called.parts("inputs", "parameters") if task.called else []
                    if not any(w.get("name") == value.get("name") and "default" in w for _, w in wanted):
                        fix = f"give that output valueFrom.default, or wait for {other.name}.Succeeded"
                        what = f"`{other.name}` may be skipped, and its output `{match[2]}` has no default"
                        yield Violation(path, what, fix)


def command_missing(document: Document) -> Iterator[Violation]:
    """A container has no `command`: Argo then asks the image's registry for it each time, and must be let in there."""
    for template in document.templates:
        for kind in ("container", "script"):
            commands = [section(value, kind).get("command") for value in (template.value, document.defaults)]
            if kind in template.value and not any(commands):
                fix = "write it out" if kind == "container" else "name the interpreter, as in command: [python]"
                yield Violation(join(template.path, kind), f"the {kind} has no command", fix)


def gpu_without_retry(document: Document) -> Iterator[Violation]:
    """A template that asks for GPUs has no `retryStrategy`, so that one lost node ends the run."""
    for template in document.templates:
        wants = [name for _, pod in template.pods for name in _asked(pod) if _GPU.search(name)]
        if wants and not template.effective("retryStrategy"):
            fix = "add retryStrategy: {limit: '3', retryPolicy: OnError}, and resume from checkpoints"
            yield Violation(template.path, f"{template.label} asks for {wants[0]} and is not tried again", fix)


def retry_of_tasks(document: Document) -> Iterator[Violation]:
    """`templateDefaults` has `retryStrategy` or `timeout` and there are `dag` or `steps` templates: they get it as
    well, so that retries multiply and Argo refuses the timeout.
    """
    for field in ("retryStrategy", "timeout"):
        if field in document.defaults and any(template.type in ("dag", "steps") for template in document.templates):
            path = join(join(document.path, "templateDefaults"), field)
            yield Violation(path, f"`{field}` lands on dag and steps templates as well", "give it to each leaf")


def secret_in_text(document: Document) -> Iterator[Violation]:
    """What looks like a password, token or key stands in the document as text: in an environment variable, an
    argument, a parameter.
    """
    for template in document.templates:
        for path, pod in template.pods:
            for place, env in listed(pod, "env", path):
                yield from _secret(str(env.get("name", "")), env.get("value"), join(place, "value"))
            for field in ("args", "command", "source"):
                for place, text in strings(pod.get(field), join(path, field)):
                    if redact(text) != text:
                        yield Violation(place, "it carries what looks like a secret", "use env.valueFrom.secretKeyRef")
    for place, value in listed(section(document.spec, "arguments"), "parameters", join(document.path, "arguments")):
        yield from _secret(str(value.get("name", "")), value.get("value"), join(place, "value"))


def image_tag(document: Document) -> Iterator[Violation]:
    """An image has the tag `latest` or none, so that what runs changes by itself; or it is no image reference."""
    for template in document.templates:
        for path, pod in template.pods:
            image = str(pod.get("image", ""))
            if not image or "{{" in image:
                continue
            try:
                found = reference.parse(image)
            except BadInput as error:
                yield Violation(join(path, "image"), error.message, error.fix)
                continue
            if found.pulled == "latest":
                what = f"`{image}` has {'the tag latest' if found.tag else 'no tag'}"
                yield Violation(
                    join(path, "image"), what, f"write a version, as in {image.removesuffix(':latest')}:1.0"
                )


def _may_be_skipped(other: Task, task: Task) -> bool:
    """Whether ``task`` may run although ``other`` was skipped."""
    if not other.value.get("when"):
        return False
    if other.within.type == "steps" or not task.depends:
        return other.value.get("when") != task.value.get("when")
    try:
        depends = expressions.parse_depends(task.depends)
    except (expressions.ExpressionError, RecursionError):
        return False
    ran = {"Succeeded", "Failed", "Errored"}
    asked = {result for name, result in expressions.results_of(depends) if name == other.name}
    return not (asked and asked <= ran) and other.value.get("when") != task.value.get("when")


def _has_default(task: Task, name: str) -> bool:
    if task.called is None:
        return True
    outputs = [value for _, value in task.called.parts("outputs", "parameters") if value.get("name") == name]
    return any("default" in section(value, "valueFrom") or "value" in value for value in outputs) or not outputs


def _asked(pod: Value) -> list[str]:
    resources = section(pod, "resources")
    return [*section(resources, "limits"), *section(resources, "requests")]


def _secret(name: str, value: object, path: str) -> Iterator[Violation]:
    if not isinstance(value, str) or not value or "{{" in value or _NOT_SECRET.search(name):
        return
    # As key and value, by which redact tells counts (MAX_NEW_TOKENS: 128) from tokens.
    if redact({name: value}) != {name: value}:
        fix = "keep it in a Secret: valueFrom.secretKeyRef"
        yield Violation(
            path, f"the value of `{name}` looks like a secret, and anyone who reads the Workflow reads it", fix
        )
