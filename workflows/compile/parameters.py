"""Parameters of a workflow, which can be set at submission, and their default values from the plan."""

from __future__ import annotations

import json

from hera.workflows import Parameter

from workflows.plan.model import Data, Plan

DATA_URLS = "data-urls"
TUNING = ("epochs", "max-steps", "learning-rate", "batch-size", "rank", "alpha")
IMAGE = ("image", "push")
SUBMITTED = (DATA_URLS, *TUNING, *IMAGE)
"""Names of all parameters; the inputs of steps have the same names."""


def parameters(plan: Plan) -> list[Parameter]:
    """Return what can be set at submission (``argo submit -p``, the form of the Argo UI, ``argotune run -p``)."""
    if plan.tuning is None or plan.data is None or plan.output is None:
        return []
    tuning = plan.tuning
    # Kubernetes would replace $(NAME) by a variable of the pod.
    urls = json.dumps(plan.data.urls).replace("$(", "\\u0024(")
    data_urls = Parameter(name=DATA_URLS, value=urls, description="data files, a JSON list")
    return [
        *([data_urls] if plan.data.urls else []),
        _number("epochs", tuning.epochs, "passes over the data"),
        _number("max-steps", tuning.max_steps, "maximum number of optimizer steps; -1: given by the epochs"),
        _number("learning-rate", tuning.learning_rate, "peak learning rate"),
        _number("batch-size", tuning.batch_size, "rows of one step on each device"),
        _number("rank", tuning.rank, "LoRA rank r"),
        _number("alpha", tuning.alpha, "LoRA alpha"),
        Parameter(name="image", value=plan.output.image, description="image reference that the adapter is pushed to"),
        Parameter(
            name="push",
            value="true" if plan.output.image else "false",
            enum=["true", "false"],
            description="push the image to its registry",
        ),
    ]


def parameter_defaults(plan: Plan) -> dict[str, str]:
    """Return the values of the numbers in the plan, by parameter."""
    return {str(item.name): str(item.value) for item in parameters(plan) if item.name in TUNING}


def data_inputs(data: Data) -> list[str]:
    """Return the inputs of a step that reads the rows: URLs, unless a volume, an image or named inputs have them."""
    elsewhere = data.volume is not None or data.image or (data.inputs and not data.urls)
    return [] if elsewhere else [DATA_URLS]


def _number(name: str, value: float, description: str) -> Parameter:
    return Parameter(name=name, value=f"{value:g}", description=description)
