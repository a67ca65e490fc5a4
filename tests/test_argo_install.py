"""``argo/install`` builds offline, is valid Kubernetes, and grants minimal permissions.

Overlays of the comment in ``kustomization.yaml`` and of ``argo/README.md`` are built too.
"""

import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity
from kubernetes_manifests import MODELS, build, faults, granted, kubectl, of_kind

from workflows.plan import site

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "argo" / "install"
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding")
README = (ROOT / "argo" / "README.md").read_text()


@pytest.fixture(scope="module")
def installed() -> list[dict[str, Any]]:
    return build(INSTALL)


def test_every_document_is_valid_kubernetes(installed):
    assert len(installed) == len({(document["kind"], document["metadata"]["name"]) for document in installed})
    assert {(document["apiVersion"], document["kind"]) for document in installed} == set(MODELS)
    for document in installed:
        assert faults(document, MODELS[document["apiVersion"], document["kind"]]) == []


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("ConfigMap", {"data": {"gpu": 1}}, "data.gpu: Input should be a valid string"),
        (
            "Role",
            {"rules": [{"verbs": ["get"], "resource": ["x"]}]},
            "rules.0.resource: Extra inputs are not permitted",
        ),
        ("Role", {"rules": [{"resources": ["pods"]}]}, "rules.0.verbs: Field required"),
        ("NetworkPolicy", {"spec": {"podSelektor": {}}}, "spec.podSelektor: Extra inputs are not permitted"),
        ("NetworkPolicy", {"spec": {"pod_selector": {}}}, "a field has its Python name"),
        ("NetworkPolicy", {"spec": {"egress": {}}}, "spec.egress: Input should be a valid list"),
    ],
)
def test_strict_validation_reports(installed, kind, change, fault):
    document = next(iter(of_kind(installed, kind).values()))
    assert faults(document | change, MODELS[document["apiVersion"], kind]) == [fault]


def test_every_file_is_a_resource_or_the_controller_patch():
    listed = yaml.safe_load((INSTALL / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml", "controller-patch.yaml", "ui"} == {file.name for file in INSTALL.iterdir()}
    assert all(f"`{name}`" in README for name in [*listed, "controller-patch.yaml"])


def test_controller_patch_applies_to_argos_config_map(tmp_path):
    shipped = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "workflow-controller-configmap"}}
    file = tmp_path / "shipped.yaml"
    file.write_text(yaml.safe_dump(shipped | {"data": {"parallelism": "10"}}))
    patch = ["--patch-file", str(INSTALL / "controller-patch.yaml")]
    patched = yaml.safe_load(kubectl("patch", "--local", "--filename", str(file), *patch, "--output", "yaml"))
    assert patched["data"]["parallelism"] == "10"
    assert "securityContext" in yaml.safe_load(patched["data"]["executor"])


def test_namespace_and_labels_are_set_on_all(installed):
    namespace = of_kind(installed, "Namespace")
    assert list(namespace) == ["argotune"]
    for document in installed:
        metadata = document["metadata"]
        assert document["kind"] in CLUSTER_WIDE or metadata["namespace"] == "argotune"
        labels = {label.removeprefix("app.kubernetes.io/") for label in metadata["labels"]}
        assert {"name", "part-of", "component", "managed-by"} <= labels
    levels = namespace["argotune"]["metadata"]["labels"]
    assert {levels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


def test_permissions_are_minimal(installed):
    rights = granted(installed)
    # Argo, docs/workflow-rbac.md
    assert rights["argotune"] == {("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch")}
    assert rights["argotune-submitter"] == {
        ("argoproj.io", resource, verb)
        for resource in ("workflows", "workflowtemplates", "cronworkflows")
        for verb in ("create", "get", "list", "watch")
    } | {("", "persistentvolumeclaims", "get"), ("", "configmaps", "get")}
    executor = rights["argotune"]
    assert executor < rights["argotune-rollout"]  # the rest: tests/steps/rollout/test_rollout_cluster.py
    assert not [word for account in rights.values() for right in account for word in right if "*" in word]


def quantities(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("hard", "requests", "limits", "min", "max", "default", "defaultRequest") and isinstance(
                item, dict
            ):
                yield from item.items()
            else:
                yield from quantities(item)
    elif isinstance(value, list):
        for item in value:
            yield from quantities(item)


def test_quantities_parse(installed):
    found = [item for document in installed for item in quantities(document)]
    assert {"requests.nvidia.com/gpu", "pods", "requests.storage", "cpu", "storage"} <= {name for name, _ in found}
    for name, text in found:
        assert parse_quantity(text) > 0, name


def test_semaphores_are_counts(installed):
    counts = of_kind(installed, "ConfigMap")["argotune-semaphores"]["data"]
    assert "gpu" in counts
    assert all(int(count) > 0 for count in counts.values())  # Argo reads them with strconv.Atoi


def test_compiled_templates_can_be_installed_unchanged(installed):
    built = build(ROOT / "argo")
    templates = of_kind(built, "WorkflowTemplate")
    example = build(ROOT / "argo" / "example")
    for document in example:
        document["metadata"]["namespace"] = "argotune"
    own = [document for document in built if document["kind"] != "WorkflowTemplate"]
    assert sorted(own, key=str) == sorted([*installed, *example], key=str)
    goldens = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "argo").glob("*.template.yaml"))]
    assert {golden["metadata"]["name"] for golden in goldens} == set(templates)
    for golden in goldens:
        golden["metadata"]["namespace"] = "argotune"
        assert templates[golden["metadata"]["name"]] == golden
    accounts = {document["spec"]["serviceAccountName"] for document in goldens}
    assert accounts <= set(of_kind(installed, "ServiceAccount"))


def test_the_example_s_rows_are_those_of_the_local_example():
    rows = (ROOT / "examples" / "data" / "oncall.parquet").read_bytes()
    assert (ROOT / "argo" / "example" / "oncall.parquet").read_bytes() == rows


def test_no_template_has_a_default_that_a_cluster_cannot_reach():
    for file in (ROOT / "argo").glob("*.template.yaml"):
        assert "127.0.0.1" not in file.read_text() and "localhost" not in file.read_text()


def test_the_component_adds_columns_of_labels_that_runs_have(tmp_path):
    shutil.copytree(INSTALL, tmp_path / "install")
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "workflow-controller-configmap"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_map | {"data": {"executor": "x"}}))
    kustomization = {"resources": ["config.yaml"], "components": ["install/ui"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    [built] = build(tmp_path)
    assert built["data"]["executor"] == "x"
    columns = yaml.safe_load(built["data"]["columns"])
    template = yaml.safe_load((ROOT / "argo" / "smollm2_135m_on_cluster.template.yaml").read_text())
    assert {column["key"] for column in columns} <= template["spec"]["workflowMetadata"]["labels"].keys()
    assert {column["type"] for column in columns} == {"label"}


# Overlays


def readme_block(first_line: str) -> str:
    """Return the YAML block of ``argo/README.md`` that starts with this comment."""
    found = re.findall(rf"```yaml\n# {re.escape(first_line)}.*?\n(.+?)```", README, flags=re.DOTALL)
    assert len(found) == 1, first_line
    return str(found[0])


@pytest.fixture
def overlay(tmp_path):
    """Return a function that builds an overlay of the README, in a directory next to the checkout."""
    shutil.copytree(INSTALL, tmp_path / "argotune" / "argo" / "install")

    def from_readme(name: str) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "kustomization.yaml").write_text(readme_block(f"{name}/kustomization.yaml"))
        return build(tmp_path / name)

    return from_readme


def changed(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> set[str]:
    def key(document: dict[str, Any]) -> str:
        return f"{document['kind']}/{document['metadata']['name']}"

    old = {key(document): document for document in before}
    new = {key(document): document for document in after}
    assert set(old) == set(new)
    return {name for name, document in new.items() if document != old[name]}


def test_commented_workload_identity_patch_works(installed, tmp_path):
    shutil.copytree(INSTALL, tmp_path / "install")
    file = tmp_path / "install" / "kustomization.yaml"
    text, count = re.subn(r"^# (patches:\n(?:# .*\n)+)", r"\1", file.read_text(), flags=re.MULTILINE)
    assert count == 1
    start = text.index("patches:")
    file.write_text(text[:start] + re.sub(r"^# ", "", text[start:], flags=re.MULTILINE))
    built = build(tmp_path / "install")
    assert changed(installed, built) == {"ServiceAccount/argotune"}
    account = of_kind(built, "ServiceAccount")["argotune"]
    assert list(account["metadata"]["annotations"]) == ["azure.workload.identity/client-id"]


def test_readme_overlay_moves_everything_to_another_namespace(overlay):
    built = overlay("my-site")
    assert list(of_kind(built, "Namespace")) == ["ml-tuning"]
    assert {document["metadata"].get("namespace", "ml-tuning") for document in built} == {"ml-tuning"}
    assert granted(built)["argotune"]
    assert of_kind(built, "ResourceQuota")["argotune"]["spec"]["hard"]["requests.nvidia.com/gpu"] == "16"


def test_readme_overlay_for_aks(installed, overlay):
    built = overlay("aks")
    assert changed(installed, built) == {
        "ServiceAccount/argotune",
        "PersistentVolumeClaim/argotune-models",
        "ConfigMap/argotune-semaphores",
    }
    for document in built:
        assert faults(document, MODELS[document["apiVersion"], document["kind"]]) == []
    claim = of_kind(built, "PersistentVolumeClaim")["argotune-models"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    quota = of_kind(built, "ResourceQuota")["argotune"]["spec"]["hard"]["requests.nvidia.com/gpu"]
    assert Decimal(of_kind(built, "ConfigMap")["argotune-semaphores"]["data"]["gpu"]) <= parse_quantity(quota)


def test_readme_site_profile_is_accepted(installed, tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text(readme_block("site.yaml"))
    values = site.load(str(file))
    assert values["namespace"] == "ml-tuning"
    assert values["serviceAccount"] in of_kind(installed, "ServiceAccount")
