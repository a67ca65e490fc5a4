"""Each rule, broken alone in an otherwise good file, is the one problem reported, at its line."""

import pytest
from workspace_sample import (
    GOOD,
    INFERENCE,
    INFERENCE_PRESET,
    INPUT,
    PIPELINE,
    TUNING,
    TUNING_PRESET,
    URL,
    check_broken,
)


def tuned(preset):
    return TUNING.replace("phi-3-mini-128k-instruct", preset)


# What is replaced by what (the bad line ends with `# <--`), the path, and words of the message.
BROKEN = {
    "name": ("name: tuned\n", "name: Tuned_1  # <--\n", "metadata.name", "not a DNS-1123 label"),
    "name too long": ("name: tuned\n", f"name: {'n' * 64}  # <--\n", "metadata.name", "not a DNS-1123 label"),
    "name missing": (
        "metadata:\n  name: tuned\n",
        "metadata:  # <--\n  namespace: x\n",
        "metadata.name",
        "missing field",
    ),
    "namespace": ("name: tuned\n", "name: tuned\n  namespace: a.b  # <--\n", "metadata.namespace", "not a DNS-1123"),
    "api version": ("kaito.sh/v1beta1\n", "kaito.sh/v1  # <--\n", "apiVersion", "must be 'kaito.sh/v1alpha1' or"),
    "unknown field": ("  method: qlora\n", "  method: qlora\n  epochs: 3  # <--\n", "tuning.epochs", "unknown field"),
    "unknown block": (PIPELINE, PIPELINE + "schedule: daily  # <--\n", "schedule", "unknown field"),
    "unknown in pipeline": (PIPELINE, PIPELINE + "  gate: 1  # <--\n", "pipeline.gate", "unknown field"),
    "wrong type": (
        "app: tuned\n",
        "app: 5  # <--\n",
        "resource.labelSelector.matchLabels.app",
        "must be a string, not 5",
    ),
    "twice": ("  method: qlora\n", "  method: qlora\n  method: lora  # <--\n", "tuning.method", "duplicate"),
    "bool as number": ("evalSplit: 0.1", "evalSplit: true  # <--", "pipeline.data.evalSplit", "must be a number"),
    "range": ("evalSplit: 0.1", "evalSplit: 0.6  # <--", "pipeline.data.evalSplit", "less than or equal to 0.5"),
    "duration": (
        PIPELINE,
        PIPELINE + "  tune: {timeout: 1 day}  # <--\n",
        "pipeline.tune.timeout",
        "a duration",
    ),
    "no duration": (
        PIPELINE,
        PIPELINE + "  tune: {timeout: 0s}  # <--\n",
        "pipeline.tune.timeout",
        "a duration",
    ),
    "size": (PIPELINE, PIPELINE + "  storage: {size: big}  # <--\n", "pipeline.storage.size", "must be a quantity"),
    "no nodes": ("resource:\n", "resource:\n  count: 0  # <--\n", "resource.count", "at least 1"),
    "partition": (
        "resource:\n",
        "resource:\n  partition: {mode: mig, profile: 1g.10gb}  # <--\n",
        "resource.partition",
        "GPU partitioning is not supported for tuning workloads",
    ),
    "preferred nodes": (
        "resource:\n",
        "resource:\n  preferredNodes: [a, B_]  # <--\n",
        "resource.preferredNodes[1]",
        "'B_' is not the name of a node",
    ),
    "no selector": (
        "resource:\n  instanceType: Standard_NC24ads_A100_v4\n  labelSelector:\n    matchLabels:\n      app: tuned\n",
        "resource:  # <--\n  instanceType: Standard_NC24ads_A100_v4\n",
        "resource.labelSelector",
        "missing field",
    ),
    "selector": (
        "    matchLabels:\n      app: tuned\n",
        "    matchExpressions:\n      - {key: app, operator: NotIn, values: [x]}  # <--\n",
        "resource.labelSelector.matchExpressions[0]",
        "Only allow matchLabels or 'IN' matchExpression",
    ),
    "reserved labels": (
        "  labelSelector:\n    matchLabels:\n      app: tuned\n",
        "  labelSelector:  # <--\n    matchLabels:\n      kaito.sh/workspace: x\n",
        "resource.labelSelector",
        "only labels reserved by KAITO",
    ),
    "instance type": (
        "Standard_NC24ads_A100_v4\n",
        "Standard_NC24_A100  # <--\n",
        "resource.instanceType",
        "Unsupported instance type Standard_NC24_A100",
    ),
    "method": ("method: qlora\n", "method: full  # <--\n", "tuning.method", "invalid value: full"),
    "no method": (
        TUNING_PRESET + "  method: qlora\n",
        TUNING_PRESET.replace("tuning:\n", "tuning:  # <--\n"),
        "tuning.method",
        "missing field",
    ),
    "no input": (INPUT, "", "tuning.input", "missing field"),
    "preset missing": (TUNING_PRESET, "tuning:  # <--\n", "tuning.preset", "missing field"),
    "unknown preset": (
        TUNING_PRESET,
        "tuning:\n  preset:\n    name: phi-9  # <--\n",
        "tuning.preset.name",
        "Unsupported tuning preset name phi-9",
    ),
    "preset that is not tuned": (
        TUNING + INFERENCE,
        tuned("gpt-oss-20b  # <--"),
        "tuning.preset.name",
        "Unsupported tuning preset name gpt-oss-20b",
    ),
    "deprecated preset": (
        TUNING + INFERENCE,
        tuned("phi-2  # <--"),
        "tuning.preset.name",
        "Model phi-2 is deprecated and no longer supported",
    ),
    "gated preset": (
        TUNING + INFERENCE,
        tuned("llama-3.1-8b-instruct").replace("  preset:", "  preset:  # <--"),
        "tuning.preset",
        "needs a modelAccessSecret with HF_TOKEN key",
    ),
    "private preset": (
        TUNING_PRESET,
        TUNING_PRESET + "    accessMode: private  # <--\n",
        "tuning.preset.accessMode",
        "When AccessMode is private, an image must be provided in PresetOptions",
    ),
    "preset image": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions:\n      image: a.example/B:1  # <--\n",
        "tuning.preset.presetOptions.image",
        "Unable to parse preset image reference",
    ),
    "preset pull secrets": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions:\n      imagePullSecrets: [x]  # <--\n",
        "tuning.preset.presetOptions.imagePullSecrets",
        "is only for images",
    ),
    "secret name": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions: {modelAccessSecret: My_Secret}  # <--\n",
        "tuning.preset.presetOptions.modelAccessSecret",
        "is not a valid Kubernetes name",
    ),
    "template": (
        INFERENCE,
        "inference:\n  template: {}  # <--\n",
        "inference.template",
        "cannot serve the tuned adapter",
    ),
    "template and preset": (
        INFERENCE_PRESET,
        INFERENCE_PRESET + "  template: {}  # <--\n",
        "inference.template",
        "Preset and Template cannot be set at the same time",
    ),
    "no inference preset": (INFERENCE, "inference: {}  # <--\n", "inference", "Preset or Template must be specified"),
    "another base": (
        INFERENCE_PRESET,
        "inference:\n  preset:\n    name: phi-4  # <--\n",
        "inference.preset.name",
        "is not the tuned model (phi-3-mini-128k-instruct)",
    ),
    "too little memory": (
        GOOD[GOOD.index("resource:") :],
        (
            "resource:\n  instanceType: Standard_NV36ads_A10_v5  # <--\n  labelSelector: {}\n"
            "inference:\n  preset: {name: falcon-40b}\n"
        ),
        "resource.instanceType",
        "but preset falcon-40b requires at least 76.93Gi",
    ),
    "config not there": (
        "  method: qlora\n",
        "  method: qlora\n  config: mine  # <--\n",
        "tuning.config",
        "ConfigMap 'mine' specified in 'config' not found",
    ),
    "braces": (
        URL,
        "      - https://data.example.com/{{x}}  # <--\n",
        "tuning.input.urls[0]",
        "contains '{{', which Argo would replace",
    ),
    "braces in a key": (
        "      app: tuned\n",
        "      '{{app}}': tuned  # <--\n",
        "resource.labelSelector.matchLabels.{{app}}",
        "contains '{{'",
    ),
    "nothing held out": (
        "    evalSplit: 0.1\n",
        "    evalSplit: 0\n  evaluation: {samples: 1}  # <--\n",
        "pipeline.evaluation",
        "no rows are held out",
    ),
    "answers that are not given": (
        "    evalSplit: 0.1\n",
        "    evalSplit: 0.1\n  evaluation:\n    samples: 0\n    minRougeL: 0.5  # <--\n",
        "pipeline.evaluation.minRougeL",
        "samples is 0",
    ),
    "score above 1": (
        "    evalSplit: 0.1\n",
        "    evalSplit: 0.1\n  evaluation: {minExactMatch: 80}  # <--\n",
        "pipeline.evaluation.minExactMatch",
        "less than or equal to 1",
    ),
    "rollout without inference": (
        INFERENCE + PIPELINE,
        "pipeline:\n  rollout: {port: 8000}  # <--\n",
        "pipeline.rollout",
        "has no effect without inference",
    ),
    "tune without tuning": (
        TUNING + INFERENCE + PIPELINE,
        INFERENCE + "pipeline:\n  tune: {retries: 1}  # <--\n",
        "pipeline.tune",
        "has no effect without tuning",
    ),
    "neither": (TUNING + INFERENCE + PIPELINE, "", "", "Either Inference or Tuning must be specified, not neither"),
    "annotation value": (
        "metadata:\n",
        "metadata:\n  annotations: {kaito.sh/performance-mode: fast}  # <--\n",
        "metadata.annotations.kaito.sh/performance-mode",
        '"fast" is not a valid performance mode; choose one of: balanced, interactivity, throughput',
    ),
    "label": (
        "  name: tuned\n",
        "  name: tuned\n  labels: {team: a b}  # <--\n",
        "metadata.labels.team",
        "'a b' is not a valid Kubernetes label",
    ),
    "annotation not honoured": (
        "metadata:\n",
        "metadata:\n  annotations: {kaito.sh/enablelb: 'True'}  # <--\n",
        "metadata.annotations.kaito.sh/enablelb",
        "public endpoints are not supported",
    ),
    "unknown KAITO annotation": (
        "metadata:\n",
        "metadata:\n  annotations: {kaito.sh/runtim: vllm}  # <--\n",
        "metadata.annotations.kaito.sh/runtim",
        "unknown KAITO annotation",
    ),
}


@pytest.mark.parametrize(("old", "new", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_violated_rule_is_the_only_problem_at_its_line(tmp_path, old, new, path, words):
    check_broken(tmp_path, old, new, path, words)


@pytest.mark.parametrize("label", ["apps: a b", "apps: ends-", "a b: x", "apps: " + "x" * 64])
def test_labels_of_the_selector_are_those_kubernetes_allows(tmp_path, label):
    path = f"resource.labelSelector.matchLabels.{label.partition(':')[0]}"
    check_broken(tmp_path, "      app: tuned\n", f"      {label}  # <--\n", path, "is not a valid Kubernetes label")
