"""What a compiled step is told, for a command that does here what the step does in a run."""

from __future__ import annotations

from workflows.compile.dag import compile_workflow
from workflows.plan.model import Plan


def of_step(plan: Plan, step: str) -> dict[str, str]:
    """Flags of a step by name (``--urls``), with the values that a run has when no parameter is set."""
    spec = compile_workflow(plan)["spec"]
    parameters = spec.get("arguments", {}).get("parameters", [])
    values = {f"{{{{inputs.parameters.{item['name']}}}}}": item["value"] for item in parameters}
    words = next(template["container"]["args"] for template in spec["templates"] if template["name"] == step)
    return {flag: values.get(value, value) for flag, value in zip(words[::2], words[1::2], strict=True)}
