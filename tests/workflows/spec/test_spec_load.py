"""A Workspace file as a whole: what it gives, all problems at once, and what is only worth a warning."""

from pathlib import Path

import pytest
from workspace_sample import GOOD, PIPELINE, TUNING_PRESET, URL, problems, write

from workflows.errors import InvalidInput
from workflows.spec import load

HOSTILE = Path(__file__).parents[2] / "data" / "hostile"


def test_valid_file_is_accepted(tmp_path):
    [manifest] = load(write(tmp_path, GOOD))
    assert manifest.warnings == ()
    assert manifest.workspace.preset.name == "phi-3-mini-128k-instruct"
    assert manifest.workspace.tuning and manifest.workspace.tuning.quantized
    assert manifest.source.line("tuning.input.urls[0]") == GOOD.splitlines().index(URL.rstrip("\n")) + 1


def test_all_problems_are_reported_in_file_order(tmp_path):
    text = GOOD
    for old, new in (
        ("name: tuned", "name: Tuned"),
        ("resource:\n", "resource:\n  count: 0\n  instancetype: x\n"),
        ("  method: qlora\n", "  method: full\n"),
        (URL, "      - ftp://x.example/a\n      - http://127.0.0.1/x\n"),
        ("evalSplit: 0.1", "evalSplit: much"),
    ):
        text = text.replace(old, new, 1)
    found = problems(write(tmp_path, text))
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


def test_one_mistake_is_one_problem(tmp_path):
    """A block under a misspelt name is one problem, not also a missing block."""
    [problem] = problems(write(tmp_path, GOOD.replace("tuning:\n", "tunning:\n").replace(PIPELINE, "")))
    assert (problem.path, problem.fix) == ("tunning", "did you mean tuning?")
    [problem] = problems(write(tmp_path, GOOD.replace("labelSelector:", "labelSelecter:")))
    assert (problem.path, problem.fix) == ("resource.labelSelecter", "did you mean labelSelector?")
    [problem] = problems(write(tmp_path, GOOD.replace("    urls:\n" + URL, "    urls: https://a.example/x\n")))
    assert problem.path == "tuning.input.urls"
    assert "must be a list" in problem.message


def test_fields_below_spec_are_reported_and_the_rest_is_checked(tmp_path):
    head, fields = GOOD.split("resource:\n")
    inside = "".join(f"  {line}\n" for line in ("resource:\n" + fields).replace("qlora", "full").splitlines())
    spec, method = problems(write(tmp_path, f"{head}spec:\n{inside}"))
    assert (spec.path, spec.line) == ("spec", 5)
    assert "top level" in spec.message
    assert (method.path, method.line) == ("tuning.method", 14)


def test_private_hosts_are_allowed_if_the_pipeline_allows_them(tmp_path):
    text = GOOD.replace(URL, "      - http://minio.default.svc:9000/x\n      - http://127.0.0.1:1/x\n")
    load(write(tmp_path, text.replace("evalSplit: 0.1", "allowPrivateHosts: true")))


def test_metadata_services_are_rejected_although_private_hosts_are_allowed():
    (problem,) = problems(HOSTILE / "meta.yaml")
    assert problem.path == "tuning.input.urls[0]" and "metadata endpoint" in problem.message


def test_checksum_after_a_url_is_accepted(tmp_path):
    text = GOOD.replace(URL, f"      - https://a.example/x#sha256={'0F' * 32}\n")
    [manifest] = load(write(tmp_path, text))
    assert manifest.workspace.tuning and manifest.workspace.tuning.input.urls[0].endswith("0F" * 32)


def test_a_push_secret_is_optional_and_the_method_has_any_case(tmp_path):
    [manifest] = load(write(tmp_path, GOOD.replace("method: qlora", "method: LoRA")))
    assert manifest.workspace.tuning and not manifest.workspace.tuning.quantized


def test_v1alpha1_has_a_default_size_and_no_access_secret(tmp_path):
    old = GOOD.replace("v1beta1", "v1alpha1").replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    [manifest] = load(write(tmp_path, old))
    assert manifest.workspace.resource and manifest.workspace.resource.instance_type == "Standard_NC24ads_A100_v4"
    options = TUNING_PRESET + "    presetOptions: {modelAccessSecret: hf-token}\n"
    [problem] = problems(write(tmp_path, old.replace(TUNING_PRESET, options)))
    assert "not a field of kaito.sh/v1alpha1" in problem.message


def test_existing_nodes_need_no_instance_type(tmp_path):
    [manifest] = load(write(tmp_path, GOOD.replace("  instanceType: Standard_NC24ads_A100_v4\n", "")))
    assert manifest.workspace.resource and manifest.workspace.resource.instance_type == ""


WARNED = {
    "retired": ("Standard_NC24ads_A100_v4", "Standard_NC6s_v3", "resource.instanceType", "is retired"),
    "placeholder": ("registry.example.com/team/adapter", "ACR_REPO_HERE.azurecr.io/NAME_HERE", "", "ACR_REPO_HERE"),
    "signed": ("?download=true", "?sv=1&sig=abc", "tuning.input.urls[0]", "signed (sig)"),
    "no evaluation": ("evalSplit: 0.1", "evalSplit: 0", "pipeline.data.evalSplit", "without evaluation"),
    "no live adapter": (
        "evalSplit: 0.1",
        "evalSplit: 0.1\n  evaluation: {betterThanPrevious: false}",
        "pipeline.evaluation.betterThanPrevious",
        "no effect without pipeline.schedule",
    ),
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
        "Secret s cannot be compiled",
    ),
    "unused config": (
        PIPELINE,
        PIPELINE + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
        "kind",
        "ConfigMap c is not used by any Workspace",
    ),
    "KAITO's template": (
        "  method: qlora\n",
        "  method: qlora\n  config: qlora-params-template\n",
        "tuning.config",
        "KAITO's default",
    ),
}


@pytest.mark.parametrize(("old", "new", "path", "words"), WARNED.values(), ids=WARNED)
def test_warnings(tmp_path, old, new, path, words):
    assert old in GOOD
    [manifest] = load(write(tmp_path, GOOD.replace(old, new, 1)))
    [warning] = manifest.warnings
    assert words in str(warning)
    assert path in warning.path
    assert warning.line


def test_a_base_model_without_chat_template_is_warned_about(tmp_path):
    [manifest] = load(write(tmp_path, GOOD.replace("phi-3-mini-128k-instruct", "mistral-7b")))
    assert {warning.path for warning in manifest.warnings} == {"tuning.preset.name"}
    assert "without a chat template" in manifest.warnings[0].message


def test_metadata_written_by_the_cluster_is_ignored(tmp_path):
    text = GOOD.replace("name: tuned\n", "name: tuned\n  uid: abc\n  generation: 3\n  managedFields: [{a: 1}]\n", 1)
    [manifest] = load(write(tmp_path, text))
    assert manifest.warnings == ()


def test_labels_are_those_a_node_must_have(tmp_path):
    labels = (
        "      app: tuned\n      kaito.sh/workspace: x\n    matchExpressions: [{key: b, operator: In, values: [c]}]\n"
    )
    [manifest] = load(write(tmp_path, GOOD.replace("      app: tuned\n", labels)))
    assert manifest.workspace.resource
    assert manifest.workspace.resource.label_selector.labels == {"app": "tuned", "b": "c"}


def test_the_resource_check_can_be_bypassed(tmp_path):
    text = GOOD.replace("metadata:\n", "metadata:\n  annotations: {kaito.sh/bypass-resource-checks: 'True'}\n")
    [manifest] = load(write(tmp_path, text.replace("Standard_NC24ads_A100_v4", "Standard_NV6")))
    assert ["is retired" in warning.message for warning in manifest.warnings] == [True]


def test_two_documents_with_the_same_name_are_rejected(tmp_path):
    [problem] = problems(write(tmp_path, f"{GOOD}---\n{GOOD}"))
    assert "Workspace tuned is a duplicate, first on line 4" in problem.message
    assert problem.line == 4 + GOOD.count("\n") + 1
    other = GOOD.replace("name: tuned\n", "name: tuned\n  namespace: other\n", 1)
    assert len(load(write(tmp_path, f"{GOOD}---\n{other}"))) == 2


@pytest.mark.parametrize("code", ["\\0", "\\x07", "\\x1b[31m", "\\x7f", "\\x9b"])
def test_control_characters_are_rejected_with_their_path(tmp_path, code):
    text = GOOD.replace(URL, f'      - "https://a.example/{code}x"\n')
    with pytest.raises(InvalidInput) as error:
        load(write(tmp_path, text))
    messages = [problem.message for problem in error.value.problems if problem.path == "tuning.input.urls[0]"]
    assert any("contains the control character" in message for message in messages)
