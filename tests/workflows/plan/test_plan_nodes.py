"""Node settings of a Workspace and a site profile: flags of provision and release, and scheduling of the pods."""

import json

import pytest
import yaml
from workspace_sample import GOOD, check_broken

from steps.provision.settings import ReleaseSettings, Settings
from steps.runtime import entrypoint
from workflows import lint, runner
from workflows.compile.dag import compile_workflow
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans

A100, A10, TWO_A100 = "Standard_NC24ads_A100_v4", "Standard_NV36ads_A10_v5", "Standard_NC48ads_A100_v4"
AKS = {"provider": "aks", "subscription": "sub", "resourceGroup": "ml", "cluster": "aks-ml"}
NODES = {"fallbackInstanceTypes": [TWO_A100], "spot": True, "zones": ["2", "1"], "lease": "30h"}
UID = "{{workflow.uid}}"


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Return a function that compiles with these node settings, and returns the templates by name."""
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)

    def compile_templates(site=None, nodes=None, text=GOOD, **pipeline):
        document = yaml.safe_load(text)
        document["pipeline"] |= {**({"nodes": nodes} if nodes else {}), **pipeline}
        (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(document))
        (tmp_path / "site.yaml").write_text(yaml.safe_dump({"nodes": site} if site else {}))
        [plan] = load_plans(str(tmp_path / "workspace.yaml"), site_file=str(tmp_path / "site.yaml"))
        return {template["name"]: template for template in compile_workflow(plan)["spec"]["templates"]}

    return compile_templates


def flags(template):
    args = template["container"]["args"]
    return dict(zip((flag.removeprefix("--") for flag in args[::2]), args[1::2], strict=True))


def test_node_pool_of_the_run_is_created_and_released(compiled):
    templates = compiled(AKS, NODES)
    provision = flags(templates["provision"])
    assert provision["run"] == UID
    assert (provision["workflow"], provision["namespace"]) == ("{{workflow.name}}", "{{workflow.namespace}}")
    assert provision["workspace"] == "tuned"
    assert (
        provision["provider"],
        provision["subscription"],
        provision["resource-group"],
        provision["cluster"],
    ) == tuple(AKS.values())
    assert json.loads(provision["fallback-instance-types"]) == [TWO_A100]
    assert (provision["spot"], json.loads(provision["zones"]), provision["lease-seconds"]) == (
        "true",
        ["2", "1"],
        str(30 * 3600),
    )
    assert json.loads(provision["labels"]) == {"app": "tuned"}
    release = flags(templates["release"])
    assert (release["provider"], release["run"], release["cluster"]) == ("aks", UID, "aks-ml")
    assert int(provision["deadline-seconds"]) < 3600 and templates["provision"]["timeout"] == "1h"


@pytest.mark.parametrize("step", ["tune", "evaluate"])
def test_pods_select_the_nodes_of_their_run_with_any_instance_type(compiled, step):
    templates = compiled(AKS, NODES)[step]
    assert templates["nodeSelector"] == {"app": "tuned", "argotune.dev/run": UID}
    assert "affinity" not in templates
    tolerated = {toleration["key"] for toleration in templates["tolerations"]}
    assert {"sku", "kubernetes.azure.com/scalesetpriority"} <= tolerated


def test_the_linter_and_the_local_runner_accept_it(compiled, tmp_path):
    compiled(AKS, NODES)
    [plan] = load_plans(str(tmp_path / "workspace.yaml"), site_file=str(tmp_path / "site.yaml"))
    document = compile_workflow(plan)
    runner.check(document)
    assert not lint.lint([("aks.json", json.dumps(document))]).findings


def test_without_fallbacks_nodes_are_selected_by_instance_type(compiled):
    templates = compiled()
    assert templates["tune"]["nodeSelector"] == {"app": "tuned", "node.kubernetes.io/instance-type": A100}
    assert set(flags(templates["provision"])) == {"work", "instance-type"}
    assert set(flags(templates["release"])) == {"work"}


def test_with_fallbacks_all_instance_types_are_selected_and_the_first_is_preferred(compiled):
    templates = compiled(nodes={"fallbackInstanceTypes": [TWO_A100], "spot": True})["tune"]
    assert templates["nodeSelector"] == {"app": "tuned"}
    affinity = templates["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    [rule] = term["matchExpressions"]
    assert (rule["key"], rule["values"]) == ("node.kubernetes.io/instance-type", [A100, TWO_A100])
    weights = {
        rule["preference"]["matchExpressions"][0]["values"][0]: rule["weight"]
        for rule in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    }
    assert weights["spot"] > weights[A100] > weights[TWO_A100]


def test_serving_alone_uses_no_nodes_of_the_run(compiled):
    text = GOOD[: GOOD.index("tuning:")] + GOOD[GOOD.index("inference:") : GOOD.index("pipeline:")] + "pipeline: {}\n"
    templates = compiled(AKS, text=text)
    assert "provider" not in flags(templates["provision"])
    assert "provider" not in flags(templates["release"])


def test_without_an_instance_type_existing_nodes_are_used(compiled):
    text = GOOD.replace(f"  instanceType: {A100}\n", "")
    templates = compiled(AKS, text=text)
    assert flags(templates["provision"])["provider"] == "existing"
    assert flags(templates["release"])["provider"] == "existing"
    assert templates["tune"]["nodeSelector"] == {"app": "tuned"}


@pytest.mark.parametrize(
    ("site", "nodes", "pipeline", "path", "words"),
    [
        ({"provider": "aks", "cluster": "c"}, None, {}, "", "requires nodes.subscription, nodes.resourceGroup"),
        (AKS, {"lease": "10h"}, {"timeLimit": "20h"}, "pipeline.nodes.lease", "shorter than the time limit (20h)"),
        (
            AKS,
            None,
            {"tune": {"timeout": "48h"}},
            "pipeline.nodes.lease",
            "26h is shorter than the timeout of tune (48h)",
        ),
        (
            {"provider": "karpenter", "nodeClass": "Machine/a"},
            None,
            {},
            "nodes.nodeClass",
            "Machine/a: the API group of this kind is unknown",
        ),
        (
            {"provider": "karpenter", "nodeClass": "KaitoNodeClass/default"},
            {"spot": True},
            {},
            "pipeline.nodes.spot",
            "does not support spot nodes",
        ),
    ],
)
def test_node_settings_that_would_fail_later_are_rejected(compiled, site, nodes, pipeline, path, words):
    with pytest.raises(InvalidInput) as caught:
        compiled(site, nodes, **pipeline)
    [problem] = caught.value.problems
    assert path in problem.path and words in problem.message and problem.fix


def test_settings_without_local_effect_are_reported(compiled, capsys):
    compiled(nodes={"zones": ["1"], "lease": "25h"})
    stderr = capsys.readouterr().err
    assert "pipeline.nodes.zones: has no effect: the run creates no nodes (nodes.provider is autoscaler)" in stderr
    assert "pipeline.nodes.lease: has no effect" in stderr
    compiled(AKS, {"zones": ["1"], "lease": "25h"})
    assert "no effect" not in capsys.readouterr().err


def test_a_local_run_has_no_warnings_about_nodes(tmp_path, capsys):
    document = yaml.safe_load(GOOD)
    document["pipeline"]["nodes"] = {"zones": ["1"]}
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(document))
    for local, expected in ((False, True), (True, False)):
        load_plans(str(tmp_path / "workspace.yaml"), local=local)
        stderr = capsys.readouterr().err
        assert [text in stderr for text in ("no effect", "pods stay pending")] == [expected, expected]


PIPELINE = "pipeline:\n"
FALLBACKS = "pipeline.nodes.fallbackInstanceTypes"


@pytest.mark.parametrize(
    ("nodes", "path", "words"),
    [
        ("{fallbackInstanceTypes: [Standard_NC24_A100]}", f"{FALLBACKS}[0]", "Unsupported instance type"),
        (f"{{fallbackInstanceTypes: [{A100}]}}", f"{FALLBACKS}[0]", "duplicate"),
        ("{fallbackInstanceTypes: [Standard_NG32ads_V620_v1]}", f"{FALLBACKS}[0]", "AMD"),
        ("{zones: ['1', '1']}", "pipeline.nodes.zones", "has a duplicate zone"),
        ("{zones: [East US]}", "pipeline.nodes.zones[0]", "must be a zone"),
        ("{lease: 1 day}", "pipeline.nodes.lease", "must be a duration"),
        ("{count: 2}", "pipeline.nodes.count", "unknown field"),
    ],
)
def test_violated_rule_is_reported_with_its_line(tmp_path, nodes, path, words):
    check_broken(tmp_path, PIPELINE, f"{PIPELINE}  nodes: {nodes}  # <--\n", path, words)


def test_fallback_must_have_the_same_number_of_gpus(compiled):
    with pytest.raises(InvalidInput, match=r"has 1 GPUs, but the pods request the 2"):
        compiled(nodes={"fallbackInstanceTypes": [A100]}, text=GOOD.replace(A100, TWO_A100))


def test_fallback_must_have_memory_for_the_model(compiled):
    text = GOOD.replace("phi-3-mini-128k-instruct", "falcon-40b-instruct").replace(A100, "Standard_NC40ads_H100_v5")
    text += "  rollout: {runtime: transformers}\n"
    with pytest.raises(InvalidInput) as caught:
        compiled(nodes={"fallbackInstanceTypes": [A100, A10]}, text=text)
    assert {problem.path for problem in caught.value.problems} == {"pipeline.nodes.fallbackInstanceTypes[1]"}
    assert "GiB" in caught.value.problems[0].message


def test_fallback_requires_an_instance_type(compiled):
    text = GOOD.replace(f"  instanceType: {A100}\n", "")
    with pytest.raises(InvalidInput, match=r"requires resource\.instanceType"):
        compiled(nodes={"fallbackInstanceTypes": [A10]}, text=text)


@pytest.mark.parametrize(
    "site", [AKS, {"provider": "existing"}, {"provider": "karpenter", "nodeClass": "KaitoNodeClass/default"}]
)
def test_steps_accept_the_flags_of_each_provider(compiled, site):
    templates = compiled(site)
    provision = entrypoint.parse(Settings, templates["provision"]["container"]["args"])
    assert (provision.provider, provision.run, provision.node_class) == (
        site["provider"],
        UID,
        site.get("nodeClass", "default"),
    )
    release = entrypoint.parse(ReleaseSettings, templates["release"]["container"]["args"])
    assert (release.provider, release.run) == (site["provider"], UID)
