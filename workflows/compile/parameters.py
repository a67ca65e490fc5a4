"""Parameters of a workflow, which can be set at submission, and their default values from the plan."""

from __future__ import annotations

from dataclasses import astuple

from annotated_types import Ge, Gt, Le, Lt
from hera.workflows import Parameter
from pydantic.fields import FieldInfo

from steps.data.locations.url_list import format_urls
from steps.runtime.gpu_time import PARAMETER as BUDGET
from steps.runtime.gpu_time import BudgetOptions
from steps.tune.settings import SubmittedOptions
from workflows.plan.model import Data, Plan, Tuning
from workflows.spec.search import flag_names

DATA_URLS = "data-urls"
TUNING = tuple(SubmittedOptions.PARAMETERS.values())
IMAGE = ("image", "push")
SUBMITTED = (DATA_URLS, *TUNING, *IMAGE, BUDGET)
"""Names of all parameters; the inputs of steps have the same names."""
_BOUNDS = {Gt: "more than", Ge: "at least", Lt: "less than", Le: "at most"}


def parameters(plan: Plan) -> list[Parameter]:
    """Return what can be set at submission (``argo submit -p``, the form of the Argo UI, ``argotune run -p``)."""
    if plan.tuning is None or plan.data is None or plan.output is None:
        return []
    tuning = plan.tuning
    description = "Data files, one URL a line: https, hf, s3, gs, abfss or az"
    data_urls = Parameter(name=DATA_URLS, value=format_urls(plan.data.urls), description=description)
    return [
        *([data_urls] if plan.data.urls else []),
        *(number for number in _numbers(tuning) if number.name in tuning_inputs(plan)),
        Parameter(name="image", value=plan.output.image, description="Image reference that the adapter is pushed to"),
        Parameter(
            name="push",
            value="true" if plan.output.image else "false",
            enum=["true", "false"],
            description="Push the image to its registry",
        ),
        _number(BUDGET, BudgetOptions.model_fields["budget_hours"], plan.budget_hours),
    ]


def parameter_defaults(plan: Plan) -> dict[str, str]:
    """Return the values of the numbers in the plan, by parameter."""
    return {str(item.name): str(item.value) for item in (_numbers(plan.tuning) if plan.tuning else ())}


def tuning_inputs(plan: Plan) -> list[str]:
    """Return the numbers that can be set at submission: not those that a search sets."""
    searched = flag_names(plan.search)
    return [name for name in TUNING if name not in searched]


def data_inputs(data: Data) -> list[str]:
    """Return the inputs of a step that reads the rows: URLs, unless a volume, an image or named inputs have them."""
    elsewhere = data.volume is not None or data.image or (data.inputs and not data.urls)
    return [] if elsewhere else [DATA_URLS]


def budget_default(plan: Plan) -> dict[str, str]:
    """Return the budget of the plan, for custom workflows without this parameter."""
    return {BUDGET: f"{plan.budget_hours:g}"}


def task_output(task: str, name: str) -> str:
    """Return Argo's placeholder for an output of a task of the same DAG."""
    return f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"


def _numbers(tuning: Tuning) -> list[Parameter]:
    fields = SubmittedOptions.model_fields
    return [
        _number(name, fields[field], getattr(tuning, field)) for field, name in SubmittedOptions.PARAMETERS.items()
    ]


def _number(name: str, declared: FieldInfo, value: float) -> Parameter:
    """Return the parameter of a number, with its bounds: an enum would be too long, and the form checks no bounds."""
    bounds = [f"{_BOUNDS[type(bound)]} {astuple(bound)[0]:,}" for bound in declared.metadata]
    description = f"{(declared.description or name).rstrip('.')} ({', '.join(bounds)})"
    return Parameter(name=name, value=f"{value:g}", description=description)
