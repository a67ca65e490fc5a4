"""Registry Secrets in the compiled Workflow."""

import json

from plan_samples import PLANS, compiled


def flags(document: dict, name: str) -> dict[str, str]:
    [step] = [item for item in document["spec"]["templates"] if item["name"] == name]
    return dict(zip(*[iter(step["container"]["args"])] * 2, strict=True))


def test_several_secrets_are_one_folder_with_a_file_for_each():
    values = PLANS["everything"] | {"output.pushSecret": "push", "rollout.pullSecrets": ["adapters", "push"]}
    values |= {"data.urls": [], "data.image": "reg.io/rows:1", "data.imagePullSecrets": ["pull", "more"]}
    document = compiled(values)
    assert json.loads(flags(document, "preflight")["--registry-secrets"]) == [
        ["pull", "more"],
        ["adapters", "push"],
        "push",
    ]
    assert json.loads(flags(document, "rollout")["--registry-secrets"]) == ["adapters", "push"]
    [volume] = [item for item in document["spec"]["volumes"] if item["name"] == "pull-secret"]
    key = ".dockerconfigjson"
    assert [source["secret"] for source in volume["projected"]["sources"]] == [
        {"name": "pull", "items": [{"key": key, "path": "config.json"}], "optional": True},
        {"name": "more", "items": [{"key": key, "path": "config-2.json"}], "optional": True},
    ]


def test_servers_pull_with_the_secrets_of_adapters_and_of_the_output():
    values = PLANS["everything"] | {"output.pushSecret": "push", "rollout.pullSecrets": ["adapters"]}
    assert json.loads(flags(compiled(values), "rollout")["--registry-secrets"]) == ["adapters", "push"]
