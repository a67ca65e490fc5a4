"""Named inputs (``pipeline.data.inputs``) from the Workspace to the arguments and volumes of the steps."""

import json
from typing import Any

import pytest
from workspace_sample import check_broken

from steps.download.settings import Settings
from workflows.compile.dag import compile_workflow
from workflows.load_plans import load_plans

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: mixed}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {app: mixed}}}
tuning:
  preset: {name: phi-4}
  method: qlora
  input: {}
  output: {image: reg.io/a/mixed:1}
pipeline:
  data:
    inputs:
      - {name: chat, urls: ["https://example.com/chat.jsonl"], weight: 0.5}
      - name: code
        volumeSource: {persistentVolumeClaim: {claimName: code}}
        columns: {prompt: question, completion: answer}
"""


@pytest.fixture
def templates(tmp_path) -> dict[str, dict[str, Any]]:
    (tmp_path / "mixed.yaml").write_text(WORKSPACE)
    document = compile_workflow(load_plans(str(tmp_path / "mixed.yaml"))[0])
    assert {"name": "input-code", "persistentVolumeClaim": {"claimName": "code"}} in document["spec"]["volumes"]
    assert "data-urls" not in [parameter["name"] for parameter in document["spec"]["arguments"]["parameters"]]
    return {template["name"]: template for template in document["spec"]["templates"]}


@pytest.mark.parametrize("step", ["preflight", "download"])
def test_steps_read_each_input(templates, step):
    container = templates[step]["container"]
    args = container["args"]
    inputs = json.loads(args[args.index("--inputs") + 1])
    read = Settings.model_validate({"work": "w", "inputs": inputs}).inputs
    assert [(data.name, data.urls, data.weight) for data in read] == [
        ("chat", ["https://example.com/chat.jsonl"], 0.5),
        ("code", [], 1),
    ]
    assert read[1].columns == {"prompt": "question", "completion": "answer"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["input-code"] == str(read[1].source)


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("name: code", "name: chat", "pipeline.data.inputs[1].name", "chat is the name of another input"),
        ("name: code", "name: Code", "pipeline.data.inputs[1].name", "lower-case letters"),
        ("weight: 0.5", "weight: 101", "pipeline.data.inputs[0].weight", "less than or equal to 100"),
        (
            ", weight: 0.5",
            ', image: "reg.io/a/b:1"',
            "pipeline.data.inputs[0]",
            "Exactly one of URLs, Volume, or Image",
        ),
        ("https://example.com/chat.jsonl", "ftp://example.com/chat.jsonl", "pipeline.data.inputs[0].urls[0]", "ftp"),
        ("input: {}", "input: {urls: [x]}", "tuning.input.urls[0]", ""),
        ("{prompt: question, completion: answer}", "{frage: question}", "pipeline.data.inputs[1].columns.frage", ""),
    ],
)
def test_errors_name_the_input(tmp_path, old, new, path, words):
    check_broken(tmp_path, old, new, path, words, good=WORKSPACE)
