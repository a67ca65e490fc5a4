"""Names with tags: the linter gives the verdicts of ``argo lint`` 4.1.2, each tried with it."""

import pytest

from workflows.lint import lint

WORKFLOW = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{generateName: names-}}
spec:
  entrypoint: main
  arguments: {{parameters: [{{name: t, value: step}}]}}
  templates:
  - name: main
    inputs: {{parameters: [{{name: t}}]}}
    {body}
  - name: echo
    container: {{image: "busybox:1.36", command: [echo]}}
"""


def errors(body: str) -> list[tuple[str, str]]:
    text = WORKFLOW.format(body=body)
    return [(each.rule, each.problem.message) for each in lint([("workflow.yaml", text)]).errors]


@pytest.mark.parametrize(
    "name",
    ["{{workflow.name}}", "x-{{ workflow.uid }}", "{{inputs.parameters.t}}", "{{workflow.parameters.t}}",
     "{{='a'}}", "x{{=1}}", "x{{=1 + 2}}"],
)  # fmt: skip
def test_name_of_a_step_with_known_tags_is_accepted(name):
    assert errors(f'steps: [[{{name: "{name}", template: echo}}]]') == []


@pytest.mark.parametrize(
    "name",
    ["x{{item}}", "x{{lastRetry.exitCode}}", "x{{outputs.parameters.a.path}}", "x{{workflow.creationTimestamp}}",
     "{{steps.name}}", "x{{{workflow.name}}", "x{{=nope.x}}"],
)  # fmt: skip
def test_name_of_a_step_with_a_tag_that_has_no_value_yet_is_an_error(name):
    expected = ("name-syntax", f"`{name}` is not a valid name of a step")
    assert errors(f'steps: [[{{name: "{name}", template: echo}}]]') == [expected]


def test_name_of_a_step_is_checked_with_the_values_of_expressions():
    expected = ("name-syntax", "`a b` is not a valid name of a step")
    assert errors("""steps: [[{name: "{{='a b'}}", template: echo}]]""") == [expected]


@pytest.mark.parametrize("target", ["step", "{{inputs.parameters.t}}", "{{workflow.parameters.t}}", "{{{nope}}"])
def test_target_of_a_dag_is_accepted(target):
    assert errors(f'dag: {{target: "{target}", tasks: [{{name: step, template: echo}}]}}') == []


def test_all_inputs_are_no_target_of_a_dag():
    found = errors('dag: {target: "{{inputs.parameters}}", tasks: [{name: step, template: echo}]}')
    assert found == [("dag-target", 'unknown task `[{"name":"t"}]`')]
