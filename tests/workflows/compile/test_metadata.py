"""Title, description and labels of a run: what differs comes first, and no secret of a URL is in them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_samples import BASE, PLANS, ROLLOUT, TUNING, compiled

from workflows.compile import metadata
from workflows.plan.layers import Layer, merge

DESCRIPTION = "workflows.argoproj.io/description"


def description(values: dict) -> str:
    return metadata.title_and_description(merge([Layer("test", BASE | values)]))[DESCRIPTION]


def test_the_description_has_base_data_gpu_and_price_with_links():
    values = TUNING | {"resource.instanceType": "Standard_NC24ads_A100_v4", "model.revision": "a" * 40}
    text = description(values)
    assert text.startswith(f"[microsoft/phi-4](https://huggingface.co/microsoft/phi-4/tree/{'a' * 40}) at aaaaaaa, ")
    assert ", data [a.parquet](https://example.com/a.parquet), 1 x NVIDIA A100 (Standard_NC24ads_A100_v4), " in text
    assert text.endswith(" USD/hour")
    assert re.search(
        r"at most [0-9.]+ USD$", description(values | {"tuning.maxSteps": 10, "resource.usdPerHour": 3.673})
    )


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"data.image": "reg.io/rows:1"}, "data reg.io/rows:1,"),
        ({"data.volume": {"persistentVolumeClaim": {"claimName": "rows"}}}, "data persistentVolumeClaim rows,"),
        ({"data.volume": {"hostPath": {"path": "/d"}}}, "data hostPath,"),
        ({"data.urls": ["hf://datasets/o/n", "s3://b/k/"]}, "data hf://datasets/o/n + s3://b/k/,"),
        ({"data.urls": [f"https://e.com/{i}.csv" for i in range(5)]}, " + 2 more, 1 x nvidia.com/gpu"),
        ({"resource.gpus": 0}, ", CPU"),
        (ROLLOUT, "huggingface.co/microsoft/phi-4/tree/main), 1 x nvidia.com/gpu"),
    ],
)
def test_each_source_of_data_is_named(values, part):
    tuned = {} if values is ROLLOUT else {"tuning.method": "qlora", "output.image": "reg.io/a:1"}
    assert part in description(tuned | values)


SIGNED = "https://me:hush@e.com/a(1).parquet?sig=hush&token=hush#sha256=hush"


def test_no_secret_of_a_url_is_shown():
    text = description(TUNING | {"data.urls": [SIGNED]})
    assert "hush" not in text
    assert "[a(1).parquet](https://e.com/a%281%29.parquet)" in text


@given(st.text(max_size=40))
def test_no_url_breaks_the_markdown_or_argo_s_placeholders(text):
    written = description(TUNING | {"data.urls": [f"https://e.com/{text}"]})
    assert "{{" not in written and "\n" not in written
    assert len(re.findall(r"\[[^\[\]]*\]\(\S+?\)(?=[, ])", written)) == 2


def test_labels_select_runs_by_preset_and_method():
    values = BASE | TUNING | {"labels": {"team": "a"}, "model.preset": "phi-4"}
    labels = metadata.labels(merge([Layer("test", values)]))
    assert labels["argotune.dev/preset"] == "phi-4" and labels["argotune.dev/method"] == "qlora"
    serving = metadata.labels(merge([Layer("test", BASE | ROLLOUT)]))
    assert "argotune.dev/method" not in serving


def test_pods_that_failed_and_the_training_stay_for_their_logs():
    document = compiled(PLANS["everything"])
    rules = document["spec"]["podGC"]
    assert rules["strategy"] == "OnPodSuccess", "pods of failed steps stay"
    [expression] = rules["labelSelector"]["matchExpressions"]
    assert expression == {"key": "argotune.dev/keep-log", "operator": "NotIn", "values": ["true"]}
    kept = {
        template["name"]
        for template in document["spec"]["templates"]
        if ((template.get("metadata") or {}).get("labels") or {}).get("argotune.dev/keep-log") == "true"
    }
    assert kept == {"tune"}
