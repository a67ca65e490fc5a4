"""Values of KAITO's documents: each is honored as KAITO honors it, or rejected with the nearest alternative."""

import pytest
import yaml

import presets
from workflows.errors import InvalidInput
from workflows.load_plans import load_with_manifests

SERVE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi, annotations: ANNOTATIONS}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {apps: phi}}}
inference: {preset: {name: phi-4-mini-instruct}, config: server}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: server}
data: {inference_config.yaml: "vllm: FLAGS"}
"""
TUNE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {apps: phi}}}
tuning:
  preset: {name: phi-4-mini-instruct}
  method: qlora
  config: training
  input: {urls: ["https://example.com/a.parquet"]}
  output: {image: registry.example.com/team/phi:1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: training}
data:
  training_config.yaml: |
    training_config: CONFIG
"""


@pytest.fixture
def read(tmp_path, monkeypatch, capsys):
    """Return the plan of a text, or its errors, and the warnings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)

    def read(text):
        file = tmp_path / "workspace.yaml"
        file.write_text(text)
        try:
            [loaded] = load_with_manifests(str(file))
        except InvalidInput as error:
            return None, [f"{problem.path}: {problem.message}; {problem.fix}" for problem in error.problems]
        return loaded.plan, [f"{warning.path}: {warning.message}" for warning in loaded.warnings]

    yield read
    presets.set_site_skus([])


def served(read, annotations="{}", flags="{}"):
    return read(SERVE.replace("ANNOTATIONS", annotations).replace("FLAGS", flags))


def trained(read, config):
    return read(TUNE.replace("CONFIG", config))


@pytest.mark.parametrize("name", ["streaming-service-account", "model-mirror-storage-class", "model-streaming"])
def test_streaming_annotations_have_no_effect(read, name):
    plan, warnings = served(read, f"{{kaito.sh/{name}: enabled}}")
    assert plan
    assert any("not streamed" in warning for warning in warnings)


def test_disabled_streaming_is_what_happens(read):
    _, warnings = served(read, "{kaito.sh/model-streaming: disabled}")
    assert not any("annotations" in warning for warning in warnings)


def test_weights_of_a_blob_container_are_rejected(read):
    _, [error] = served(read, '{inference.kaito.sh/static-model-mirror: "true"}')
    assert "blob container is not supported" in error
    assert "--set model.repository=" in error


@pytest.mark.parametrize(
    ("annotation", "nearest"),
    [("enablelb", "kubectl expose service"), ("use-local-weights", "storage.modelsClaim")],
)
def test_annotations_that_are_not_supported_name_the_nearest_way(read, annotation, nearest):
    _, [error] = served(read, f'{{kaito.sh/{annotation}: "true"}}')
    assert nearest in error


def test_a_benchmark_at_load_time_is_a_command(read):
    plan, warnings = served(read, '{kaito.sh/disable-benchmark: "false"}')
    assert plan
    assert any("disable-benchmark" in warning for warning in warnings)


@pytest.mark.parametrize("family", ["Ubuntu", "UBUNTU", "AzureLinux"])
def test_the_image_family_is_read_in_any_case(read, family):
    plan, _ = served(read, f"{{kaito.sh/node-image-family: {family}}}")
    assert plan.nodes.image_family == family.lower()


@pytest.mark.parametrize("word", ["true", "True", "yes", "on"])
def test_booleans_of_vllm_can_be_words(read, word):
    plan, _ = served(read, flags=f"{{enable-prefix-caching: '{word}'}}")
    assert plan.rollout.server_arguments["enable-prefix-caching"] is True


def test_a_chat_template_of_kaitos_image_becomes_its_text(read):
    plan, _ = served(read, flags="{chat-template: /workspace/chat_templates/tool-chat-phi4-mini.jinja}")
    template = plan.rollout.server_arguments["chat-template"]
    assert template == presets.chat_template("/workspace/chat_templates/tool-chat-phi4-mini.jinja")
    assert "{%" in template


def test_an_unknown_chat_template_names_the_similar_ones(read):
    _, [error] = served(read, flags="{chat-template: /workspace/chat_templates/tool-chat-phi4.jinja}")
    assert "tool-chat-phi4-mini.jinja" in error


def test_a_chat_template_of_kaitos_image_can_be_trained_with(read):
    plan, _ = trained(read, "{ModelConfig: {chat_template: /workspace/chat_templates/phi-4.jinja}}")
    assert plan.tuning.model_config_["chat_template"].startswith("{% for message in messages %}")


@pytest.mark.parametrize(
    ("text", "names"),
    [("qkv_proj", ["qkv_proj"]), ("qkv_proj,o_proj", ["qkv_proj", "o_proj"]), ("[o_proj]", ["o_proj"])],
)
def test_target_modules_can_be_text(read, text, names):
    value = text if text.startswith("[") else f"'{text}'"
    plan, _ = trained(read, f"{{LoraConfig: {{target_modules: {value}}}}}")
    assert plan.tuning.target_modules == names


def test_a_pattern_of_target_modules_is_rejected(read):
    _, [error] = trained(read, "{LoraConfig: {target_modules: '.*_proj'}}")
    assert "names of layers" in error


@pytest.mark.parametrize("word", ["False", "false", "no"])
def test_booleans_of_the_training_can_be_words(read, word):
    arguments = f"{{packing: '{word}', use_cpu: '{word}'}}"
    text = f"{{ModelConfig: {{trust_remote_code: '{word}'}}, TrainingArguments: {arguments}}}"
    plan, _ = trained(read, text)
    assert plan.tuning.training_arguments["packing"] is False


def partition(text, annotations="{}"):
    [document] = yaml.safe_load_all(SERVE.partition("---")[0].replace("ANNOTATIONS", annotations))
    document["resource"] = {"labelSelector": {"matchLabels": {"a": "b"}}, "partition": yaml.safe_load(text)}
    del document["inference"]["config"]
    return yaml.safe_dump(document)


def test_a_model_larger_than_its_slice_is_rejected_unless_bypassed(read):
    _, [error] = read(partition("{mode: mig, profile: 1g.5gb}"))
    assert "exceeds the 1g.5gb MIG slice" in error
    plan, _ = read(partition("{mode: mig, profile: 1g.5gb}", "{kaito.sh/bypass-resource-checks: 'true'}"))
    assert plan.resource.gpu_resource == "nvidia.com/mig-1g.5gb"


def test_accelerators_are_counted(read):
    _, [error] = read(partition("{mode: accelerator}"))
    assert error == "resource.partition: missing field count; add count: 1, the GPUs of one server"


@pytest.mark.parametrize(
    ("size", "gpus", "gpu"),
    [
        ("g5.4xlarge", 1, "NVIDIA A10G"),
        ("P5.48xlarge", 8, "NVIDIA H100"),
        ("Standard_ND128isr_NDR_GB200_v6", 4, "GB200"),
    ],
)
def test_sizes_of_other_clouds_and_gb200_are_known(read, size, gpus, gpu):
    plan, warnings = read(
        SERVE.replace("Standard_NC24ads_A100_v4", size).replace("ANNOTATIONS", "{}").replace("FLAGS", "{}")
    )
    assert plan.resource.gpus == gpus
    assert gpu in presets.sku(size).gpu
    assert any("Arm processors" in warning for warning in warnings) == ("GB200" in size)


def test_too_small_a_size_of_aws_is_replaced_by_one_of_aws(read):
    text = SERVE.replace("Standard_NC24ads_A100_v4", "g5.xlarge").replace("phi-4-mini-instruct", "phi-4")
    _, errors = served(lambda _: read(text.replace("ANNOTATIONS", "{}").replace("FLAGS", "{}")))
    assert any("g6.12xlarge" in error or "g5.12xlarge" in error for error in errors)
    assert not any("Standard_" in error for error in errors)


def site(tmp_path, monkeypatch, text):
    file = tmp_path / "site.yaml"
    file.write_text(text)
    monkeypatch.setenv("ARGOTUNE_SITE", str(file))


def test_a_site_profile_adds_sizes(read, tmp_path, monkeypatch):
    on_rack = lambda text: read(text.replace("Standard_NC24ads_A100_v4", "rack-7"))  # noqa: E731
    _, [error] = served(on_rack)
    assert "Unsupported instance type rack-7" in error
    size = "{name: rack-7, gpus: 2, gpuMemoryGib: 80, gpu: NVIDIA A100, computeCapability: 8.0}"
    site(tmp_path, monkeypatch, f"instanceTypes: [{size}]\nprices: {{rack-7: 2.5}}\n")
    plan, _ = served(on_rack)
    assert plan.resource.gpus == 2


def test_an_invalid_size_of_a_site_profile_is_named_once(read, tmp_path, monkeypatch):
    site(tmp_path, monkeypatch, "instanceTypes: [{name: rack-7, gpus: 0, memory: 80}]\n")
    _, errors = served(read)
    fields = sorted(error.partition(":")[0] for error in errors)
    assert fields == [f"instanceTypes[0].{name}" for name in ("gpuMemoryGib", "gpus", "memory")]


def test_labels_that_no_provider_sets_are_reported(read):
    _, warnings = served(read)
    assert any("pods stay pending unless a node pool of the cluster has apps=phi" in warning for warning in warnings)


def test_a_web_page_as_weights_has_the_id_as_fix(tmp_path):
    file = tmp_path / "workspace.yaml"
    file.write_text(SERVE.replace("ANNOTATIONS", "{}").replace("FLAGS", "{}"))
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests(str(file), ["model.repository=https://huggingface.co/Qwen/Qwen3-8B/"])
    [problem] = caught.value.problems
    assert (problem.path, problem.fix) == ("model.repository", "write the Hugging Face id: Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    ("location", "fix"),
    [
        ("hf://Qwen/Qwen3-8B", "write the Hugging Face id: Qwen/Qwen3-8B"),
        ("https://huggingface.co/Qwen/Qwen3-8B/", "write the Hugging Face id: Qwen/Qwen3-8B"),
        ("s3://bucket/model", "set pipeline: {model: {repository: s3://bucket/model}}"),
        ("oci://registry.example.com/weights:1", "{model: {repository: oci://registry.example.com/weights:1}}"),
        ("/mnt/models/phi", "set pipeline: {model: {repository: /mnt/models/phi}}"),
        ("/tmp/phi", "copy the weights to the models volume"),
    ],
)
def test_a_location_as_name_has_the_field_as_fix(tmp_path, location, fix):
    file = tmp_path / "workspace.yaml"
    text = SERVE.replace("ANNOTATIONS", "{}").replace("FLAGS", "{}")
    file.write_text(text.replace("name: phi-4-mini-instruct", f'name: "{location}"'))
    with pytest.raises(InvalidInput) as caught:
        load_with_manifests(str(file))
    problems = caught.value.problems
    assert any("Unsupported inference preset name" in item.message and fix in item.fix for item in problems)
