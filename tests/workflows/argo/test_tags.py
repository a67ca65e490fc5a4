"""Tags are replaced as Argo's fasttemplate replaces them."""

import pytest

from workflows.argo.tags import substitute

SCOPE = {"workflow.name": "run-1", "inputs.parameters.x": "1"}


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("{{workflow.name}}/{{ inputs.parameters.x }}", "run-1/1"),
        ("{{workflow.name}}}", "run-1}"),
        ("{ {{inputs.parameters.x}} }", "{ 1 }"),
        ("{{{workflow.name}}}", "{{{workflow.name}}}"),  # Argo reads from the first brace: a tag `{workflow.name`
        ("{{nope}}", "{{nope}}"),
    ],
)
def test_substitute(text, replaced):
    assert substitute(text, SCOPE) == replaced
