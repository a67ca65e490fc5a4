"""Each rule, broken alone in an otherwise good file, is the one problem reported, at its line."""

import pytest

from workflows.errors import InvalidInput
from workflows.spec import load

GOOD = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: tuned
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector:
    matchLabels:
      app: tuned
tuning:
  preset:
    name: phi-3-mini-128k-instruct
  method: qlora
  input:
    urls:
      - https://data.example.com/train.parquet?download=true
  output:
    image: registry.example.com/team/adapter:1.0
inference:
  preset:
    name: phi-3-mini-128k-instruct
  adapters:
    - source:
        name: other
        image: registry.example.com/team/other:1.0
pipeline:
  data:
    evalSplit: 0.1
"""
URL = "      - https://data.example.com/train.parquet?download=true\n"
TUNING_PRESET = "tuning:\n  preset:\n    name: phi-3-mini-128k-instruct\n"
INFERENCE_PRESET = "inference:\n  preset:\n    name: phi-3-mini-128k-instruct\n"
OUTPUT_IMAGE = "    image: registry.example.com/team/adapter:1.0\n"
OTHER_IMAGE = "        image: registry.example.com/team/other:1.0\n"
INPUT = "  input:\n    urls:\n" + URL
TUNING = GOOD[GOOD.index("tuning:") : GOOD.index("inference:")]
INFERENCE = GOOD[GOOD.index("inference:") : GOOD.index("pipeline:")]
PIPELINE = GOOD[GOOD.index("pipeline:") :]
ADAPTERS = "".join(
    f"    - source:\n        name: a{n}\n        image: registry.example.com/team/other:1.0\n" for n in range(10)
)


def tuned(preset):
    return TUNING.replace("phi-3-mini-128k-instruct", preset)


def url(text):
    return URL, f"      - {text}  # <--\n"


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
    "wrong type": ("app: tuned\n", "app: 5  # <--\n", "resource.labelSelector.matchLabels.app", "must be text, not 5"),
    "twice": ("  method: qlora\n", "  method: qlora\n  method: lora  # <--\n", "tuning.method", "stands twice"),
    "bool as number": ("evalSplit: 0.1", "evalSplit: true  # <--", "pipeline.data.evalSplit", "must be a number"),
    "range": ("evalSplit: 0.1", "evalSplit: 0.6  # <--", "pipeline.data.evalSplit", "less than or equal to 0.5"),
    "duration": (PIPELINE, PIPELINE + "  tune: {timeout: 1 day}  # <--\n", "pipeline.tune.timeout", "no duration"),
    "no duration": (PIPELINE, PIPELINE + "  tune: {timeout: 0s}  # <--\n", "pipeline.tune.timeout", "no duration"),
    "size": (PIPELINE, PIPELINE + "  storage: {size: big}  # <--\n", "pipeline.storage.size", "is no size"),
    "count": ("resource:\n", "resource:\n  count: 2  # <--\n", "resource.count", "multinode configurations"),
    "no nodes": ("resource:\n", "resource:\n  count: 0  # <--\n", "resource.count", "at least 1"),
    "partition": (
        "resource:\n",
        "resource:\n  partition: {mode: mig, profile: 1g.10gb}  # <--\n",
        "resource.partition",
        "GPU partitioning is not supported for tuning workloads",
    ),
    "preferred nodes": (
        "resource:\n",
        "resource:\n  preferredNodes: [a]  # <--\n",
        "resource.preferredNodes",
        "is not supported",
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
        "private image are not supported yet",
    ),
    "preset image": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions:\n      image: a.example/b:1  # <--\n",
        "tuning.preset.presetOptions.image",
        "private image are not supported yet",
    ),
    "preset pull secrets": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions:\n      imagePullSecrets: [x]  # <--\n",
        "tuning.preset.presetOptions.imagePullSecrets",
        "no preset image is pulled",
    ),
    "secret name": (
        TUNING_PRESET,
        TUNING_PRESET + "    presetOptions: {modelAccessSecret: My_Secret}  # <--\n",
        "tuning.preset.presetOptions.modelAccessSecret",
        "not a name Kubernetes allows",
    ),
    "two inputs": (
        "  input:\n",
        "  input:  # <--\n    image: registry.example.com/data:1\n",
        "tuning.input",
        "Exactly one of URLs, Volume, or Image must be specified",
    ),
    "empty input": (INPUT, "  input: {}  # <--\n", "tuning.input", "Exactly one of URLs, Volume, or Image"),
    "input image": (
        INPUT,
        "  input:\n    image: registry.example.com/Data:1  # <--\n",
        "tuning.input.image",
        "Unable to parse input image reference",
    ),
    "input name": ("  input:\n", "  input:\n    name: A b  # <--\n", "tuning.input.name", "DNS-1123 subdomain"),
    "input secrets": (
        "  input:\n",
        "  input:\n    imagePullSecrets: [x]  # <--\n",
        "tuning.input.imagePullSecrets",
        "no image is pulled",
    ),
    "volume kind": (
        INPUT,
        "  input:\n    volumeSource:\n      persistentVolumeClaims: {claimName: x}  # <--\n",
        "tuning.input.volumeSource.persistentVolumeClaims",
        "unknown kind of volume",
    ),
    "claim": (
        INPUT,
        "  input:\n    volumeSource:\n      persistentVolumeClaim: {}  # <--\n",
        "tuning.input.volumeSource.persistentVolumeClaim",
        "missing field claimName",
    ),
    "two volumes": (
        INPUT,
        "  input:\n    volumeSource: {emptyDir: {}, nfs: {}}  # <--\n",
        "tuning.input.volumeSource",
        "exactly one kind of volume",
    ),
    "two outputs": (
        "  output:\n",
        "  output:  # <--\n    volumeSource: {persistentVolumeClaim: {claimName: x}}\n",
        "tuning.output",
        "Exactly one of Volume or Image must be specified",
    ),
    "no output": ("  output:\n" + OUTPUT_IMAGE, "  output: {}  # <--\n", "tuning.output", "Exactly one of Volume or"),
    "output image": (
        OUTPUT_IMAGE,
        "    image: registry.example.com/Team/adapter  # <--\n",
        "tuning.output.image",
        "Unable to parse output image reference",
    ),
    "output digest": (
        OUTPUT_IMAGE,
        f"    image: registry.example.com/a@sha256:{'0' * 64}  # <--\n",
        "tuning.output.image",
        "a digest cannot be chosen",
    ),
    "output placeholder": (
        OUTPUT_IMAGE,
        "    image: <YOUR_IMAGE>  # <--\n",
        "tuning.output.image",
        "is a placeholder",
    ),
    "push secret": (
        OUTPUT_IMAGE,
        OUTPUT_IMAGE + "    imagePushSecret: A_b  # <--\n",
        "tuning.output.imagePushSecret",
        "not a name Kubernetes allows",
    ),
    "push secret without image": (
        OUTPUT_IMAGE,
        "    volumeSource: {persistentVolumeClaim: {claimName: x}}\n    imagePushSecret: s  # <--\n",
        "tuning.output.imagePushSecret",
        "no image is pushed",
    ),
    "template": (
        INFERENCE,
        "inference:\n  template: {}  # <--\n",
        "inference.template",
        "a pod template is not supported yet",
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
        "is not the model that is tuned (phi-3-mini-128k-instruct)",
    ),
    "adapter without name": (
        "    - source:\n        name: other\n",
        "    - source:  # <--\n",
        "inference.adapters[0].source",
        "Name of Adapter field must be specified",
    ),
    "adapter name": (
        "name: other\n",
        "name: Other  # <--\n",
        "inference.adapters[0].source.name",
        "DNS-1123 subdomain",
    ),
    "adapter named as the tuned one": (
        "name: other\n",
        "name: tuned  # <--\n",
        "inference.adapters[0].source.name",
        "Duplicate adapter source name found: tuned",
    ),
    "adapter named as the base": (
        "name: other\n",
        "name: phi-3-mini-128k-instruct  # <--\n",
        "inference.adapters[0].source.name",
        "is the name of the base model",
    ),
    "adapter urls": (
        OTHER_IMAGE,
        "        urls: [https://x.example/y]  # <--\n",
        "inference.adapters[0].source.urls",
        "URLs are not supported as adapter source",
    ),
    "adapter without source": (
        "    - source:\n        name: other\n" + OTHER_IMAGE,
        "    - strength: '1'  # <--\n",
        "inference.adapters[0].source",
        "missing field",
    ),
    "adapter without image": (
        "    - source:\n        name: other\n" + OTHER_IMAGE,
        "    - source:  # <--\n        name: other\n",
        "inference.adapters[0].source",
        "Either Image or Volume must be specified",
    ),
    "adapter image": (
        OTHER_IMAGE,
        "        image: a.example/B:1  # <--\n",
        "inference.adapters[0].source.image",
        "Unable to parse adapter image reference",
    ),
    "adapter secrets": (
        OTHER_IMAGE,
        OTHER_IMAGE + "        imagePullSecrets: [x]  # <--\n",
        "inference.adapters[0].source.imagePullSecrets",
        "not supported for adapters yet",
    ),
    "strength": (
        OTHER_IMAGE,
        OTHER_IMAGE + "      strength: '0.5'  # <--\n",
        "inference.adapters[0].strength",
        "vLLM does not support adapter strength",
    ),
    "strength out of range": (
        OTHER_IMAGE,
        OTHER_IMAGE + "      strength: '2'  # <--\n",
        "inference.adapters[0].strength",
        "Strength value for Adapter 'other' must be between 0 and 1",
    ),
    "too many adapters": (
        "  adapters:\n",
        "  adapters:  # <--\n" + ADAPTERS,
        "inference.adapters",
        "maximum of 10 allowed",
    ),
    "adapters of one name": (
        PIPELINE,
        "    - source:\n        name: other  # <--\n" + OTHER_IMAGE + PIPELINE,
        "inference.adapters[1].source.name",
        "Duplicate adapter source name found: other",
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
        "holds '{{', which Argo would replace",
    ),
    "braces in a key": (
        "      app: tuned\n",
        "      '{{app}}': tuned  # <--\n",
        "resource.labelSelector.matchLabels.{{app}}",
        "holds '{{'",
    ),
    "nothing held out": (
        "    evalSplit: 0.1\n",
        "    evalSplit: 0\n  evaluation: {samples: 1}  # <--\n",
        "pipeline.evaluation",
        "no rows are held out",
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
    "annotation not honoured": (
        "metadata:\n",
        "metadata:\n  annotations: {kaito.sh/enablelb: 'True'}  # <--\n",
        "metadata.annotations.kaito.sh/enablelb",
        "is not supported yet",
    ),
    "unknown annotation": (
        "metadata:\n",
        "metadata:\n  annotations: {kaito.sh/runtim: vllm}  # <--\n",
        "metadata.annotations.kaito.sh/runtim",
        "unknown annotation",
    ),
    "not http": (*url("s3://bucket/x.parquet"), "tuning.input.urls[0]", "data source URL must use HTTP or HTTPS"),
    "path": (*url("/data/x.parquet"), "tuning.input.urls[0]", "data source URL must use HTTP or HTTPS"),
    "no host": (*url("https:///x"), "tuning.input.urls[0]", "invalid data source URL"),
    "bad port": (*url("https://a.example:99999/x"), "tuning.input.urls[0]", "invalid data source URL"),
    "bad brackets": (*url("'https://[::1/x'"), "tuning.input.urls[0]", "invalid data source URL"),
    "loopback": (*url("http://127.0.0.1/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "loopback in short": (*url("http://127.1/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "loopback as number": (*url("http://2130706433/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "loopback as hex": (*url("http://0x7f.1/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "loopback in v6": (*url("'http://[::ffff:127.0.0.1]/x'"), "tuning.input.urls[0]", "loopback, private"),
    "private": (*url("http://10.1.2.3/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "carrier": (*url("http://100.64.0.1/x"), "tuning.input.urls[0]", "loopback, private, or link-local"),
    "metadata": (*url("http://169.254.169.254/x"), "tuning.input.urls[0]", "local or metadata endpoint"),
    "wire server": (*url("http://168.63.129.16/x"), "tuning.input.urls[0]", "local or metadata endpoint"),
    "metadata name": (*url("http://metadata.google.internal/x"), "tuning.input.urls[0]", "metadata endpoint"),
    "localhost": (*url("http://LOCALHOST./x"), "tuning.input.urls[0]", "local or metadata endpoint"),
    "service": (*url("http://minio.default.svc/x"), "tuning.input.urls[0]", "local or metadata endpoint"),
    "bare name": (*url("http://minio/x"), "tuning.input.urls[0]", "local or metadata endpoint"),
    "checksum": (*url("https://a.example/x#sha256=12ab"), "tuning.input.urls[0]", "is no checksum"),
    "fragment": (*url("https://a.example/x#top"), "tuning.input.urls[0]", "is no checksum"),
    "password": (*url("https://me:pw@a.example/x"), "tuning.input.urls[0]", "carries a user or password"),
}


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        file = tmp_path / "workspace.yaml"
        file.write_text(text)
        return file

    return to_file


def problems(file):
    with pytest.raises(InvalidInput) as caught:
        load(file)
    return caught.value.problems


@pytest.mark.parametrize(("old", "new", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_the_one_problem_at_its_line(write, old, new, path, words):
    assert GOOD.count(old), "the test replaces what is not there"
    text = GOOD.replace(old, new, 1)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# <--")]
    file = write(text)
    [problem] = problems(file)
    assert (problem.path, problem.file) == (path, str(file))
    assert words in problem.what
    assert not marked or problem.line == marked[0]


def test_the_good_file_is_good(write):
    [manifest] = load(write(GOOD))
    assert manifest.warnings == ()
    assert manifest.workspace.preset.name == "phi-3-mini-128k-instruct"
    assert manifest.workspace.tuning and manifest.workspace.tuning.quantized
    assert manifest.source.line("tuning.input.urls[0]") == GOOD.splitlines().index(URL.rstrip("\n")) + 1


def test_all_problems_are_told_at_once_in_the_order_of_the_file(write):
    text = GOOD
    for old, new in (
        ("name: tuned", "name: Tuned"),
        ("resource:\n", "resource:\n  count: 2\n  instancetype: x\n"),
        ("  method: qlora\n", "  method: full\n"),
        (URL, "      - ftp://x.example/a\n      - http://127.0.0.1/x\n"),
        ("evalSplit: 0.1", "evalSplit: much"),
    ):
        text = text.replace(old, new, 1)
    found = problems(write(text))
    assert [problem.path for problem in found] == [
        "metadata.name",
        "resource.count",
        "resource.instancetype",
        "tuning.method",
        "tuning.input.urls[0]",
        "tuning.input.urls[1]",
        "pipeline.data.evalSplit",
    ]
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


def test_a_problem_does_not_drag_others_along(write):
    """A block under a misspelt name is one problem, not also a missing block."""
    [problem] = problems(write(GOOD.replace("tuning:\n", "tunning:\n").replace(PIPELINE, "")))
    assert (problem.path, problem.fix) == ("tunning", "did you mean tuning?")
    [problem] = problems(write(GOOD.replace("    urls:\n" + URL, "    urls: https://a.example/x\n")))
    assert problem.path == "tuning.input.urls"
    assert "must be a list" in problem.what


def test_spec_around_the_fields_is_said_and_the_rest_is_still_checked(write):
    head, fields = GOOD.split("resource:\n")
    inside = "".join(f"  {line}\n" for line in ("resource:\n" + fields).replace("qlora", "full").splitlines())
    spec, method = problems(write(f"{head}spec:\n{inside}"))
    assert (spec.path, spec.line) == ("spec", 5)
    assert "top level" in spec.what
    assert (method.path, method.line) == ("tuning.method", 14)


def test_private_hosts_are_allowed_when_the_pipeline_says_so(write):
    text = GOOD.replace(URL, "      - http://minio.default.svc:9000/x\n      - http://127.0.0.1:1/x\n")
    load(write(text.replace("evalSplit: 0.1", "allowPrivateHosts: true")))


def test_a_checksum_after_a_url_is_taken(write):
    text = GOOD.replace(URL, f"      - https://a.example/x#sha256={'0f' * 32}\n")
    [manifest] = load(write(text))
    assert manifest.workspace.tuning and manifest.workspace.tuning.input.urls[0].endswith("0f" * 32)


def test_a_push_secret_is_optional_and_the_method_has_any_case(write):
    [manifest] = load(write(GOOD.replace("method: qlora", "method: LoRA")))
    assert manifest.workspace.tuning and not manifest.workspace.tuning.quantized


def test_v1alpha1_has_a_default_size_and_no_access_secret(write):
    old = GOOD.replace("v1beta1", "v1alpha1").replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    [manifest] = load(write(old))
    assert manifest.workspace.resource and manifest.workspace.resource.instance_type == "Standard_NC24ads_A100_v4"
    options = TUNING_PRESET + "    presetOptions: {modelAccessSecret: hf-token}\n"
    [problem] = problems(write(old.replace(TUNING_PRESET, options)))
    assert "not a field of kaito.sh/v1alpha1" in problem.what


def test_only_resources_that_are_there_need_no_size(write):
    [manifest] = load(write(GOOD.replace("  instanceType: Standard_NC24ads_A100_v4\n", "")))
    assert manifest.workspace.resource and manifest.workspace.resource.instance_type == ""


WARNED = {
    "retired": ("Standard_NC24ads_A100_v4", "Standard_NC6s_v3", "resource.instanceType", "is retired"),
    "placeholder": ("registry.example.com/team/adapter", "ACR_REPO_HERE.azurecr.io/NAME_HERE", "", "ACR_REPO_HERE"),
    "signed": ("?download=true", "?sv=1&sig=abc", "tuning.input.urls[0]", "signed (sig)"),
    "twice": (URL, URL + URL, "tuning.input.urls[1]", "stands in the list twice"),
    "no evaluation": ("evalSplit: 0.1", "evalSplit: 0", "pipeline.data.evalSplit", "not evaluated"),
    "status": (PIPELINE, PIPELINE + "status: {state: Pending}\n", "status", "written by the cluster"),
    "reserved label": (
        "      app: tuned\n",
        "      app: tuned\n      kaito.sh/workspace: x\n",
        "resource.labelSelector",
        "reserved by KAITO",
    ),
    "other kinds": (
        PIPELINE,
        PIPELINE + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
        "kind",
        "Secret s is not compiled",
    ),
    "unused config": (
        PIPELINE,
        PIPELINE + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
        "kind",
        "ConfigMap c is not named by any Workspace",
    ),
    "KAITO's template": (
        "  method: qlora\n",
        "  method: qlora\n  config: qlora-params-template\n",
        "tuning.config",
        "KAITO's own default",
    ),
}


@pytest.mark.parametrize(("old", "new", "path", "words"), WARNED.values(), ids=WARNED)
def test_warnings(write, old, new, path, words):
    assert old in GOOD
    [manifest] = load(write(GOOD.replace(old, new, 1)))
    [warning] = manifest.warnings
    assert words in str(warning)
    assert path in warning.path
    assert warning.line


def test_a_base_model_without_chat_template_is_warned_about(write):
    [manifest] = load(write(GOOD.replace("phi-3-mini-128k-instruct", "mistral-7b")))
    assert {warning.path for warning in manifest.warnings} == {"tuning.preset.name"}
    assert "without a chat template" in manifest.warnings[0].what


def test_what_the_cluster_writes_into_metadata_is_not_the_users(write):
    text = GOOD.replace("name: tuned\n", "name: tuned\n  uid: abc\n  generation: 3\n  managedFields: [{a: 1}]\n", 1)
    [manifest] = load(write(text))
    assert manifest.warnings == ()


def test_the_resource_check_can_be_bypassed(write):
    text = GOOD.replace("metadata:\n", "metadata:\n  annotations: {kaito.sh/bypass-resource-checks: 'True'}\n")
    [manifest] = load(write(text.replace("Standard_NC24ads_A100_v4", "Standard_NV6")))
    assert ["is retired" in warning.what for warning in manifest.warnings] == [True]


def test_two_documents_of_one_name(write):
    [problem] = problems(write(f"{GOOD}---\n{GOOD}"))
    assert "Workspace tuned stands twice in the file, first on line 4" in problem.what
    assert problem.line == 4 + GOOD.count("\n") + 1
    other = GOOD.replace("name: tuned\n", "name: tuned\n  namespace: other\n", 1)
    assert len(load(write(f"{GOOD}---\n{other}"))) == 2
