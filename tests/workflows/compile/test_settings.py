"""Settings of the steps from a plan, and their argument lists."""

from __future__ import annotations

import pytest
from plan_samples import BASE, PLANS, ROLLOUT

from steps.runtime import entrypoint
from workflows.compile import settings
from workflows.compile.arguments import arguments
from workflows.errors import InvalidInput
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan, Rollout

SECTIONS = {
    "claims": "name",
    "preflight": "model",
    "dryrun": "tuning",
    "provision": "resource",
    "fetch": "model",
    "download": "tuning",
    "check": "schedule",
    "tune": "tuning",
    "evaluate": "evaluation",
    "package": "tuning",
    "rollout": "rollout",
    "release": "nodes",
    "report": "name",
}
"""The section of the plan that each step requires."""


def plan_of(values: dict) -> Plan:
    return merge([Layer("test", values)])


@pytest.mark.parametrize("step", SECTIONS)
@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_a_step_reads_its_arguments_as_the_same_settings(values, step):
    plan = plan_of(values)
    if getattr(plan, SECTIONS[step]):
        compiled = getattr(settings, step)(plan)
        assert entrypoint.parse(type(compiled), arguments(compiled), step) == compiled


def test_a_value_that_the_step_rejects_is_not_compiled():
    rollout = Rollout.model_construct(**plan_of(BASE | ROLLOUT).rollout.__dict__ | {"canary": 100})
    with pytest.raises(InvalidInput, match=r"rollout\.canary: .* less than or equal to 90"):
        settings.rollout(plan_of(BASE | ROLLOUT).model_copy(update={"rollout": rollout}))


def test_inputs_are_placeholders_under_the_name_of_their_flag():
    download = settings.download(plan_of(PLANS["everything"]))
    assert arguments(download, ["data-urls"]) == ["--urls", "{{inputs.parameters.data-urls}}", "--work", "/mnt/work"]


def test_a_chat_template_has_no_braces_that_argo_would_replace():
    template = "{{ messages }}"
    tune = settings.tune(plan_of(PLANS["everything"] | {"tuning.modelConfig": {"chat_template": template}}))
    args = arguments(tune)
    assert not any("{{" in word for word in args)
    assert entrypoint.parse(type(tune), args, "tune") == tune
