"""The templates of calls whose names have tags: the verdicts are those of ``argo lint --offline`` 4.1.2."""

import pytest

from workflows.lint import lint

DOCUMENTS = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {{name: shared}}
spec:
  templates:
    - {{name: run, container: {{image: "x:1", command: [tool]}}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{name: sample}}
spec:
  entrypoint: main
  arguments:
    parameters:
      - {{name: library, value: shared}}
      - {{name: template, value: run}}
      - {{name: other, value: nope}}
      - {{name: default, default: nope}}
      - {{name: none}}
      - {{name: empty, value: ''}}
  templates:
    - name: main
      inputs: {{parameters: [{{name: template}}, {{name: own, default: nope}}]}}
      steps: [[{{name: a, {main}}}], [{{name: b, template: caller}}]]
    - name: caller
      inputs: {{parameters: [{{name: own, default: nope}}]}}
      steps: [[{{name: a, {caller}}}]]
    - {{name: local, container: {{image: "x:1", command: [tool]}}}}
"""


def reference(template: str = "run", name: str = "shared") -> str:
    return f'templateRef: {{name: "{name}", template: "{template}"}}'


def errors(main: str = "template: local", caller: str = "template: local") -> list[str]:
    report = lint([("file", DOCUMENTS.format(main=main, caller=caller))], strict_refs=True)
    return [finding.problem.message for finding in report.errors]


@pytest.mark.parametrize(
    "template",
    [
        "{{workflow.parameters.template}}",
        "{{workflow.parameters.default}}",
        "{{workflow.parameters.none}}",
        "{{inputs.parameters.template}}",
        "{{=workflow.parameters.template}}",
        "{{='r' + 'un'}}",
        "{{=sprig.lower('RUN')}}",
        "{{=workflow.name}}",
        "{{=true ? 'run' : 'x'}}",
        "x{{workflow.name}}",
        "{{text}}",
    ],
)
def test_a_template_that_can_exist_is_accepted(template):
    assert errors(reference(template)) == []


@pytest.mark.parametrize(
    ("template", "read"),
    [
        ("{{workflow.parameters.other}}", "nope"),
        ("{{inputs.parameters.own}}", "nope"),
        ("run{{=sprig.upper('x')}}", "runX"),
        ("{{=workflow.parameters.other}}", "nope"),
        ("{{=text}}", "{{=text}}"),
        ("{{=12}}", "12"),
    ],
)
def test_a_template_that_does_not_exist_is_named_as_argo_reads_it(template, read):
    assert errors(reference(template)) == [f"`shared` has no template `{read}`"]


@pytest.mark.parametrize("name", ["{{workflow.parameters.library}}", "{{='shared'}}", "x{{text}}"])
def test_a_library_that_can_exist_is_accepted(name):
    assert errors(reference(name=name)) == []


@pytest.mark.parametrize("name", ["x{{workflow.name}}", "{{workflow.parameters.none}}"])
def test_a_library_whose_name_is_known_only_at_runtime_is_an_error(name):
    assert errors(reference(name=name)) == ["the name is a value that is known only at runtime"]


def test_a_library_that_does_not_exist_is_named_as_argo_reads_it():
    assert errors(reference(name="{{workflow.parameters.other}}")) == ["WorkflowTemplate `nope` is not in the files"]
    assert errors(reference(name="shared{{=sprig.upper('x')}}")) == ["WorkflowTemplate `sharedX` is not in the files"]


def test_inputs_of_other_templates_than_the_entrypoint_are_known_only_at_runtime():
    assert errors(caller=reference("{{inputs.parameters.own}}")) == []
    assert errors(caller=reference(name="{{inputs.parameters.own}}")) != []


@pytest.mark.parametrize(
    ("template", "is_accepted"),
    [
        ("{{='lo' + 'cal'}}", True),
        ("{{='local' + workflow.parameters.empty}}", True),
        ("{{=workflow.parameters.empty + 'local'}}", True),
        ("local{{=sprig.upper('x')}}", False),
        ("{{=workflow.parameters.other}}", False),
        ("{{=workflow.name}}", False),
        ("{{=text}}", False),
    ],
)
def test_template_of_the_same_document(template, is_accepted):
    assert (errors(f'template: "{template}"') == []) is is_accepted


@pytest.mark.parametrize("reference", ["", "name: ''", "clusterScope: true"])
def test_a_reference_to_a_workflow_template_has_a_name(reference):
    document = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: sample-}\n"
        f"spec:\n  workflowTemplateRef: {{{reference}}}\n"
    )
    messages = [finding.problem.message for finding in lint([("sample.yaml", document)]).findings]
    assert "the workflowTemplateRef has no name" in messages
