"""Every rule, in the order of docs/LINT.md."""

from __future__ import annotations

from workflows.lint.rules import (
    advice,
    arguments,
    concurrency,
    crd,
    cron,
    dag,
    expressions,
    global_outputs,
    gpu,
    metrics,
    names,
    outputs,
    references,
    resources,
    tags,
    templates,
    unused,
    values,
    volumes,
)
from workflows.lint.rules.rule import Check, Rule, Severity

READING = {
    "syntax": "The file is not YAML or JSON, has a duplicate key, or is nested too deeply.",
    "kind": "An object is not a Kubernetes object, or its `kind` or `apiVersion` is almost one of Argo Workflows.",
    "suppression": "A comment `# argotune: ignore[...]` names an unknown rule.",
    "nothing-to-lint": "There is no Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow in the files.",
    "unknown-field": "A field that Argo does not have, and ignores silently or rejects.",
    "removed-field": "A field that Argo has removed: `schedule` of a CronWorkflow, `mutex` and `semaphore` of "
    "`synchronization`, `podPriority`, `priority` of a template.",
    "missing-field": "A required field is missing.",
    "wrong-type": "A value has the wrong type.",
    "quantity": "A quantity has a unit that Kubernetes does not have, such as `2GB` or `1 core`.",
    "null-item": "An item of a list is null: Argo reads an empty value, and an API server with Argo's full CRDs "
    "rejects it.",
}
"""Errors of the parser and of Argo's schema, which are checked before the rules."""

ERRORS: list[Check] = [
    names.object_name,
    names.name_syntax,
    names.parameter_name,
    names.duplicate_name,
    references.entrypoint,
    references.on_exit,
    references.templates_beside_reference,
    references.template_reference,
    references.missing_input,
    arguments.argument_value,
    arguments.enum,
    arguments.artifact_argument,
    templates.template_type,
    templates.misplaced_field,
    templates.plugin_name,
    templates.image_missing,
    templates.reserved_container,
    templates.container_set,
    values.allowed_value,
    values.duration,
    values.deadline,
    dag.no_tasks,
    dag.depends_syntax,
    dag.unknown_dependency,
    dag.dependency_cycle,
    dag.depends_beside_dependencies,
    dag.continue_on,
    dag.items_result,
    dag.task_digit,
    dag.dag_target,
    dag.one_loop,
    dag.loop_list,
    expressions.when_syntax,
    expressions.expression_syntax,
    expressions.retry_expression,
    expressions.cron_expression,
    expressions.hook_expression,
    tags.unresolved_tag,
    tags.unclosed_tag,
    global_outputs.global_output_order,
    global_outputs.library_tag,
    tags.missing_dependency,
    tags.unknown_output,
    tags.failures_outside_exit,
    outputs.output_source,
    outputs.artifact_path,
    volumes.mount_path,
    volumes.unknown_volume,
    resources.resource_manifest,
    resources.pod_resource,
    cron.cron_schedule,
    cron.timezone,
    metrics.metric,
    crd.crd_value,
    advice.size,
]
WARNINGS: list[Check] = [
    references.outside_reference,
    tags.pod_field_tag,
    tags.template_field_tag,
    references.unknown_input,
    references.endless_recursion,
    expressions.when_doubtful,
    crd.unquoted_number,
    crd.crd_size,
    crd.crd_schedule,
    advice.timed_approval,
    advice.optional_output,
    advice.command_missing,
    gpu.gpu_without_retry,
    gpu.preemptible_without_retry,
    gpu.gpu_without_deadline,
    gpu.gpu_limits,
    concurrency.unbounded_fan_out,
    concurrency.mutex_deadlock,
    unused.unused_volume,
    advice.retry_of_tasks,
    advice.secret_in_text,
    advice.image_tag,
]
OPTIONAL: list[Check] = [unused.unread_output]
RULES = [
    *(Rule(check, "error") for check in ERRORS),
    *(Rule(check, "warning") for check in WARNINGS),
    *(Rule(check, "warning", is_optional=True) for check in OPTIONAL),
]
_READING_WARNINGS = ("null-item", "suppression")


def describe_rules() -> list[tuple[str, Severity, str]]:
    """Return id, severity and description of every rule."""
    reading: list[tuple[str, Severity, str]] = [
        (name, "warning" if name in _READING_WARNINGS else "error", text) for name, text in READING.items()
    ]
    return reading + [(rule.id, rule.severity, rule.doc) for rule in RULES]
