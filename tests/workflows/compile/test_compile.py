"""The compiled Workflow: order of the steps, and arguments that the steps accept."""

import importlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_samples import BASE, EVALUATION, OF_A_TRIAL, PLANS, ROLLOUT, TUNING, compiled

from steps.data.locations.url_list import parse_urls
from steps.kubernetes import pod_policy
from steps.runtime import entrypoint
from workflows import runner
from workflows.argo.phase import Phase
from workflows.argo.workflow import Retry
from workflows.runner import launch, retries
from workflows.runner.state import Attempt


def tasks(document: dict) -> dict[str, dict]:
    main = next(template for template in document["spec"]["templates"] if template["name"] == "main")
    return {task["name"]: task for task in main["dag"]["tasks"]}


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_each_step_accepts_its_arguments(values, tmp_path):
    """The step's own parser reads the arguments and files, with values for Argo's placeholders."""
    document = compiled(values)
    parameters = {item["name"]: item["value"] for item in document["spec"].get("arguments", {}).get("parameters", [])}
    for template in document["spec"]["templates"]:
        if "container" not in template:
            continue
        module = importlib.import_module(template["container"]["command"][2] + ".settings")
        words = [filled(word, parameters) for word in template["container"]["args"]]
        for artifact in template["inputs"].get("artifacts", []) if "inputs" in template else []:
            file = tmp_path / f"{template['name']}-{artifact['name']}"
            file.write_text(filled(artifact["raw"]["data"], parameters))
            words = [str(file) if word == artifact["path"] else word for word in words]
        entrypoint.parse(module.Settings, words, template["name"])


def test_the_evaluation_gets_the_rules_of_the_gate():
    [words] = [t["container"]["args"] for t in compiled(PLANS["gate"])["spec"]["templates"] if t["name"] == "evaluate"]
    words = [filled(word, {"budget-hours": "0"}) for word in words]
    settings = entrypoint.parse(importlib.import_module("steps.evaluate.settings").Settings, words)
    rules = (settings.confident, settings.min_exact_match, settings.min_rouge_l, settings.max_regressions)
    assert rules == (True, 0.25, 0.5, 0.1)
    assert not settings.better_than_previous


def test_tune_gets_the_tasks_of_the_evaluation():
    document = compiled(PLANS["tasks"])
    assert flags(document, "tune")["--tasks"] == '["arc_easy"]'
    evaluate = flags(document, "evaluate")
    assert evaluate["--tasks"] == '["arc_easy"]'
    assert evaluate["--min-task-scores"] == '{"arc_easy": 0.4}'
    assert "--tasks" not in flags(compiled(PLANS["everything"]), "tune") | flags(compiled(PLANS["gate"]), "evaluate")


def test_download_gets_the_objective():
    document = compiled(PLANS["pairs"])
    assert flags(document, "download")["--objective"] == "dpo"
    for name in ("check", "tune"):
        assert (flags(document, name)["--objective"], flags(document, name)["--beta"]) == ("dpo", "0.2")
    assert "--objective" not in flags(compiled(PLANS["everything"]), "download")


def filled(word: str, parameters: dict[str, str]) -> str:
    if word.startswith("{{inputs.parameters."):
        name = word.removeprefix("{{inputs.parameters.").removesuffix("}}")
        return (parameters | OF_A_TRIAL).get(name, "sha256:" + "0" * 64)
    return {"{{workflow.status}}": "Succeeded", "{{workflow.failures}}": "null"}.get(word, word)


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_outputs_are_those_of_the_step(values):
    for template in compiled(values)["spec"]["templates"]:
        if "container" in template:
            module = importlib.import_module(template["container"]["command"][2] + ".settings")
            declared = {parameter["name"] for parameter in template["outputs"]["parameters"]}
            assert declared <= {field.replace("_", "-") for field in module.Result.__dataclass_fields__}


def test_dependencies_of_the_dag():
    dag = {name: task.get("depends") for name, task in tasks(compiled(PLANS["everything"])).items()}
    assert dag == {
        "preflight": None,
        "provision": "preflight",
        "download": "preflight",
        "tune": "provision && download",
        "evaluate": "tune",
        "package": "evaluate",
        "rollout": "package.Succeeded",
    }


def test_package_depends_on_the_gate_and_rollout_on_package():
    dag = tasks(compiled(PLANS["everything"]))
    assert dag["package"]["when"] == "{{tasks.evaluate.outputs.parameters.verdict}} == pass"
    assert dag["rollout"]["depends"] == "package.Succeeded"


def test_without_held_out_rows_there_is_no_evaluation():
    dag = tasks(compiled(PLANS["no evaluation"]))
    assert "evaluate" not in dag
    assert dag["package"]["depends"] == "tune"
    assert "when" not in dag["package"]


def test_inference_only_serves_the_given_adapters():
    document = compiled(PLANS["inference only"])
    assert list(tasks(document)) == ["preflight", "provision", "rollout"]
    template = next(item for item in document["spec"]["templates"] if item["name"] == "rollout")
    words = template["container"]["args"]
    assert json.loads(words[words.index("--adapters") + 1]) == [{"name": "other", "image": "reg.io/b:1"}]


def test_secrets_are_passed_by_reference_only():
    document = compiled(PLANS["secrets"])
    templates = {template["name"]: template for template in document["spec"]["templates"]}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}}
    assert token in templates["tune"]["container"]["env"]
    assert {"name": "DOCKER_CONFIG", "value": "/mnt/push-secret"} in templates["package"]["container"]["env"]
    volume = next(volume for volume in document["spec"]["volumes"] if volume["name"] == "push-secret")
    assert volume["secret"]["secretName"] == "push"


def test_only_tune_and_evaluate_request_a_gpu():
    document = compiled(PLANS["everything"] | {"resource.instanceType": "Standard_NC24ads_A100_v4"})
    on_gpu = {
        template["name"]
        for template in document["spec"]["templates"]
        if "nvidia.com/gpu" in template.get("container", {}).get("resources", {}).get("limits", {})
    }
    assert on_gpu == {"tune", "evaluate"}


def test_compiling_twice_gives_the_same_document():
    assert compiled(PLANS["everything"]) == compiled(PLANS["everything"])


def template(document: dict, name: str) -> dict:
    return next(item for item in document["spec"]["templates"] if item["name"] == name)


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_the_local_runner_accepts_every_document(values):
    runner.check(compiled(values))


def test_retraining_checks_for_changes_before_it_provisions():
    dag = tasks(compiled(PLANS["retraining"]))
    order = {name: (task.get("depends"), task.get("when")) for name, task in dag.items()}
    assert order == {
        "download": (None, None),
        "check": ("download", None),
        "preflight": ("check", "{{tasks.check.outputs.parameters.changed}} == true"),
        "provision": ("preflight.Succeeded", None),
        "tune": ("provision.Succeeded", None),
        "evaluate": ("tune", None),
        "package": ("evaluate", "{{tasks.evaluate.outputs.parameters.verdict}} == pass"),
        "rollout": ("package.Succeeded", None),
    }


def test_retraining_pushes_a_new_tag_and_moves_the_workspace_s_tag():
    dag = tasks(compiled(PLANS["retraining"]))
    inputs = {item["name"]: item["value"] for item in dag["package"]["arguments"]["parameters"]}
    assert inputs["image"] == "{{tasks.check.outputs.parameters.image}}"
    assert inputs["moving-image"] == "{{workflow.parameters.image}}"
    assert inputs["settings-digest"] == "{{tasks.check.outputs.parameters.settings-digest}}"


def test_check_gets_all_settings_of_the_adapter():
    """A setting that only tune gets would change the adapter unnoticed."""
    document = compiled(PLANS["retraining"])
    flags = {
        name: dict(zip(*[iter(template(document, name)["container"]["args"])] * 2, strict=True))
        for name in ("check", "tune")
    }
    assert flags["tune"].pop("--budget-hours")
    assert flags["check"].items() >= flags["tune"].items()


def test_steps_that_access_the_registry_have_its_secret():
    document = compiled(PLANS["retraining"])
    with_secret = {
        item["name"]
        for item in document["spec"]["templates"]
        for variable in item.get("container", {}).get("env", [])
        if variable == {"name": "DOCKER_CONFIG", "value": "/mnt/push-secret"}
    }
    assert with_secret == {"check", "preflight", "evaluate", "package"}


def flags(document: dict, name: str) -> dict[str, str]:
    return dict(zip(*[iter(template(document, name)["container"]["args"])] * 2, strict=True))


def test_preflight_gets_everything_that_can_be_checked_before_the_run():
    values = PLANS["everything"] | {"output.pushSecret": "push", "model.accessSecret": "hub", "output.immutable": True}
    values |= {"data.urls": [], "data.image": "reg.io/rows:1", "data.imagePullSecrets": ["pull"]}
    document = compiled(values | {"rollout.pullSecrets": ["adapters"], "storage.storageClass": "fast"})
    preflight = flags(document, "preflight")
    assert preflight["--data-image"] == "reg.io/rows:1"
    assert json.loads(preflight["--adapter-images"]) == ["reg.io/b:1"]
    assert json.loads(preflight["--registry-secrets"]) == ["pull", "adapters", "push"]
    assert json.loads(preflight["--claims"]) == ["argotune-models"]
    assert (preflight["--access-secret"], preflight["--storage-class"], preflight["--immutable"]) == (
        "hub",
        "fast",
        "true",
    )
    assert flags(document, "package")["--immutable"] == "true"
    [token] = [item for item in template(document, "preflight")["container"]["env"] if item["name"] == "HF_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "HF_TOKEN", "optional": True}
    mounted = {item["name"] for item in template(document, "preflight")["container"]["volumeMounts"]}
    assert mounted == {"pull-secret", "adapter-secret", "push-secret", "scratch", "tmp"}, "no volume of the run"


def test_preflight_of_a_retraining_omits_the_downloaded_data():
    preflight = flags(compiled(PLANS["retraining"] | {"output.immutable": True}), "preflight")
    assert not {"--urls", "--immutable"} & set(preflight)
    assert preflight["--image"] == "{{inputs.parameters.image}}"


def test_approval_has_no_duration_and_defaults_to_no():
    document = compiled(PLANS["approval"])
    assert template(document, "approval")["suspend"] == {}
    [approve] = template(document, "approval")["inputs"]["parameters"]
    assert (approve["enum"], approve["default"]) == (["YES", "NO"], "NO")
    dag = tasks(document)
    assert dag["approval"]["when"] == "{{tasks.evaluate.outputs.parameters.verdict}} == pass"
    assert dag["package"]["depends"] == "approval.Succeeded"
    assert dag["package"]["when"] == "{{tasks.approval.outputs.parameters.approve}} == YES"


def attempts(*ends: tuple[int | None, str]) -> list[Attempt]:
    """Return attempts of two hours each; one without an exit code is an Error, as for a pod on a lost node."""
    return [
        Attempt(
            number=number,
            phase=Phase.FAILED if code is not None else Phase.ERROR,
            exit_code=code,
            message=message,
            started_at=number * 7200.0,
            finished_at=(number + 1) * 7200.0,
        )
        for number, (code, message) in enumerate(ends)
    ]


POD_LOST = [(None, "pod deleted"), (137, ""), (143, "")]
FAILED = [(1, "exit code 1"), (137, "OOMKilled (exit code 137)")]
FAILED += [(143, "Pod was active on the node longer than the specified deadline")]
NOT_RETRYABLE = [(code, "") for code in range(2, 7)]


def is_retried(step: str, *ends: tuple[int | None, str]) -> bool:
    document = compiled(BASE | TUNING | EVALUATION | {"tuning.retries": 2, "tuning.preemptions": 4})
    strategy = Retry.model_validate(template(document, step)["retryStrategy"])
    return isinstance(retries.decide(strategy, attempts(*ends)), retries.RetryAfter)


@pytest.mark.parametrize("end", POD_LOST)
def test_a_lost_pod_is_retried_after_hours_and_often(end):
    assert [is_retried("tune", *[end] * count) for count in (1, 6, 7)] == [True, True, False]


@pytest.mark.parametrize("end", FAILED)
def test_failures_have_a_separate_limit(end):
    assert [is_retried("tune", *[end] * count) for count in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize("end", NOT_RETRYABLE)
def test_permanent_failures_are_not_retried(end):
    assert not is_retried("tune", end)
    assert not is_retried("download", end)


def test_gpu_pods_are_not_evicted_take_a_semaphore_and_have_shared_memory():
    document = compiled(PLANS["everything"])
    tune = template(document, "tune")
    assert tune["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "workflows.argoproj.io/progress": "0/100",
    }
    lock = {"configMapKeyRef": {"name": "argotune-semaphores", "key": "gpu"}}
    assert tune["synchronization"] == {"semaphores": [lock]}
    assert tune["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}]
    assert {"name": "shm", "mountPath": "/dev/shm"} in tune["container"]["volumeMounts"]
    locked = [item["name"] for item in document["spec"]["templates"] if "synchronization" in item]
    assert locked == ["tune", "evaluate"]


def test_a_site_can_have_another_semaphore_or_none():
    other = compiled(PLANS["everything"] | {"semaphore.key": "a100"})
    key = template(other, "tune")["synchronization"]["semaphores"][0]["configMapKeyRef"]
    assert key == {"name": "argotune-semaphores", "key": "a100"}
    assert "synchronization" not in template(compiled(PLANS["everything"] | {"semaphore.key": ""}), "tune")


def test_runs_of_one_workspace_never_overlap():
    assert compiled(PLANS["everything"])["spec"]["synchronization"] == {"mutexes": [{"name": "argotune-phi"}]}


def test_every_pod_has_resource_requests():
    for item in compiled(PLANS["retraining"])["spec"]["templates"]:
        if "container" in item:
            assert {"cpu", "memory"} <= set(item["container"]["resources"]["requests"]), item["name"]


def test_service_accounts_workload_identity_and_time_limit():
    values = {"serviceAccounts": {"package": "pusher"}, "azureWorkloadIdentity": True, "timeLimit": "1h30m"}
    document = compiled(PLANS["everything"] | values)
    accounts = {item["name"]: item.get("serviceAccountName") for item in document["spec"]["templates"]}
    assert {name for name, account in accounts.items() if account} == {"package"}
    assert accounts["package"] == "pusher"
    labels = {"argotune.dev/workspace": "phi", "azure.workload.identity/use": "true"}
    assert document["spec"]["podMetadata"] == {"labels": labels}
    assert document["spec"]["activeDeadlineSeconds"] == 5400
    plain = compiled(PLANS["everything"])["spec"]
    assert plain["podMetadata"] == {"labels": {"argotune.dev/workspace": "phi"}}
    assert plain["activeDeadlineSeconds"] == 7 * 86400
    assert compiled(PLANS["approval"])["spec"]["activeDeadlineSeconds"] == 30 * 86400
    assert compiled(PLANS["everything"] | {"tuning.timeout": "240h"})["spec"]["activeDeadlineSeconds"] == 20 * 86400


def test_tune_has_time_to_save_a_checkpoint_when_evicted():
    patched = {item["name"]: item.get("podSpecPatch") for item in compiled(PLANS["retraining"])["spec"]["templates"]}
    assert json.loads(patched.pop("tune")) == {"terminationGracePeriodSeconds": 120}
    assert not any(patched.values())


def test_kubernetes_expands_no_argument():
    """The kubelet replaces $(NAME) in args by the container's environment, in which HF_TOKEN is."""
    document = compiled(PLANS["secrets"] | ROLLOUT | {"rollout.question": "a $(HF_TOKEN) $$(HF_TOKEN) $$ $x"})
    args = template(document, "rollout")["container"]["args"]
    question = next(word for word in args if "HF_TOKEN" in word and word.startswith("a "))
    assert "$(HF_TOKEN)" in launch._expand(question, {"HF_TOKEN": "hush"})
    for item in document["spec"]["templates"]:
        for word in (item.get("container") or {}).get("args") or []:
            assert "hush" not in launch._expand(word, {"HF_TOKEN": "hush"})


def test_kubernetes_expands_no_data_url():
    document = compiled(BASE | TUNING | {"data.urls": ["https://example.com/$(HF_TOKEN)"]})
    value = next(p["value"] for p in document["spec"]["arguments"]["parameters"] if p["name"] == "data-urls")
    assert launch._expand(value, {"HF_TOKEN": "hush"}) == value
    assert parse_urls(value) == ["https://example.com/$(HF_TOKEN)"]


@given(st.text("$()AB x", max_size=20))
def test_escaped_text_expands_to_itself(text):
    assert launch._expand(pod_policy.escape_references(text), {"A": "1", "B": "2", "": "3"}) == text


# Cases of third_party/forked/golang/expansion/expand_test.go.
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)-$(VAR_MISSING)", "A-$(VAR_MISSING)"),
        ("$$(VAR_A)_$(VAR_A)", "$(VAR_A)_A"),
        ("$$$$$$(BIG_MONEY)", "$$$(BIG_MONEY)"),
        ("$$$$$$$(VAR_A)", "$$$A"),
        ("$VAR_A)", "$VAR_A)"),
        ("${VAR_A}", "${VAR_A}"),
        ("$(VAR_B)_______$(A", "B_______$(A"),
        ("$?_boo_$!", "$?_boo_$!"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("\n", "\n"),
        ("$()", "$()"),
        ("foo$", "foo$"),
        ("$((VAR_A)", "$((VAR_A)"),
    ],
)
def test_the_local_runner_expands_as_kubernetes(text, expanded):
    assert launch._expand(text, {"VAR_A": "A", "VAR_B": "B"}) == expanded


def test_api_keys_are_mounted_where_requests_are_sent():
    document = compiled(PLANS["everything"] | {"rollout.apiKeysSecret": "clients", "rollout.requestsPerMinute": 60})
    templates = {template["name"]: template for template in document["spec"]["templates"]}
    mount = {"name": "api-keys", "mountPath": "/mnt/api-keys", "readOnly": True}
    having = [name for name, one in templates.items() if mount in one.get("container", {}).get("volumeMounts", [])]
    assert sorted(having) == ["preflight", "rollout"]
    for name in having:
        assert {"name": "ARGOTUNE_API_KEYS", "value": "/mnt/api-keys"} in templates[name]["container"]["env"]
        args = templates[name]["container"]["args"]
        assert args[args.index("--api-keys-secret") + 1] == "clients"
    volume = next(volume for volume in document["spec"]["volumes"] if volume["name"] == "api-keys")
    assert volume["secret"] == {"secretName": "clients", "optional": True}
