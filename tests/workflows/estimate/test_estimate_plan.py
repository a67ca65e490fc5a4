"""``argotune plan`` prints requirements and cost of a run, and rejects what cannot fit with settings that do."""

import json
import subprocess
import sys

import pytest
from workspace_sample import GOOD, write

import presets
from workflows import cli, estimate
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans

LARGE = GOOD.replace("phi-3-mini-128k-instruct", "qwen2.5-coder-32b-instruct")
SMALL_GPU = "Standard_NV36ads_A10_v5"


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def plan(folder, text=GOOD, *sets):
    [found] = load_plans(str(write(folder, text)), sets)
    return found


def rejected(folder, text, *sets):
    with pytest.raises(InvalidInput) as caught:
        plan(folder, text, *sets)
    return caught.value.problems


def on(sku, text=GOOD):
    return text.replace("Standard_NC24ads_A100_v4", sku)


def without_serving(text):
    return text[: text.index("inference:")] + text[text.index("pipeline:") :]


def test_plan_prints_the_estimate_below_the_values(tmp_path, capsys):
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--set", "tuning.maxSteps=100"]) == 0
    stdout = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in stdout.splitlines() if line}
    assert stdout.index("tuning.batchSize") < stdout.index("TUNING, GiB OF A GPU (qlora, batch 4, rows of 1024 tokens")
    parts = ["weights", "adapter", "gradients", "optimizer", "activations", "logits", "backward", "context", "margin"]
    assert all(part in rows for part in parts)
    assert "fits" in stdout and "does not fit" not in stdout
    assert f"smallest that fits  {SMALL_GPU}" in stdout
    assert "price per hour" in stdout and "3.67  USD, spot 0.44; eastus, read 2026-11-24" in stdout
    assert "hours at most, training and start" in stdout


def test_doubled_rank_and_answer_pairs_are_counted(tmp_path):
    usual, pissa, pairs = (
        estimate.estimate(plan(tmp_path, GOOD, *sets))
        for sets in ((), ('tuning.loraConfig={"init_lora_weights": "pissa"}',), ("tuning.objective=dpo",))
    )
    assert pissa.tuning.adapter == 2 * usual.tuning.adapter
    assert pissa.serving.adapters == 2 * usual.serving.adapters
    assert pairs.tuning.activations == 2 * usual.tuning.activations
    assert pairs.tuning.adapter == usual.tuning.adapter


def test_json_contains_the_same_estimate(tmp_path, capsys):
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "-o", "json", "--set", "tuning.maxSteps=100"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["instanceType"] == "Standard_NC24ads_A100_v4"
    tuning = dict(found["tuning"])
    assert tuning.pop("fits") is True
    assert tuning.pop("total") == pytest.approx(sum(tuning.values()), abs=0.001)
    # 100 steps of 4 rows: at most 409,600 tokens.
    hours = 409_600 / found["tokensPerSecond"] / 3600
    assert found["hours"] == pytest.approx(found["startHours"] + hours, abs=0.001)
    assert found["usd"] == pytest.approx(found["hours"] * 3.673, abs=0.001)
    assert found["serving"]["exact"] is True


def test_without_max_steps_time_is_reported_per_thousand_rows(tmp_path):
    found = estimate.as_dict(estimate.estimate(plan(tmp_path)))
    assert (found["hours"], found["usd"]) == (None, None)
    tokens = 1000 * 1024 * 3
    assert found["hoursPerThousandRows"] == pytest.approx(tokens / found["tokensPerSecond"] / 3600, abs=0.001)
    assert "1,000 rows" in estimate.as_text(estimate.estimate(plan(tmp_path)))


def test_with_the_number_of_rows_the_total_is_reported(tmp_path, capsys):
    file = str(write(tmp_path, GOOD))
    assert cli.main(["plan", file, "--rows", "5000", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["hours"] == pytest.approx(found["startHours"] + 5 * found["hoursPerThousandRows"], abs=0.001)
    assert found["usd"] == pytest.approx(found["hours"] * 3.673, abs=0.001)
    assert cli.main(["plan", file, "--rows", "5000"]) == 0
    [total] = [line for line in capsys.readouterr().out.splitlines() if "training and start" in line]
    assert total.split()[:2] == ["total", f"{found['hours']:.2f}"]
    # With maxSteps the number of rows does not matter.
    bounded = [estimate.estimate(plan(tmp_path, GOOD, "tuning.maxSteps=9"), rows=rows).time for rows in (10, 10**6)]
    assert bounded[0] == bounded[1]


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_rows_must_be_a_positive_integer(tmp_path, count):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(write(tmp_path, GOOD)), f"--rows={count}"])
    assert ended.value.code == 2


def test_spot_nodes_cost_the_spot_price(tmp_path):
    found = estimate.estimate(plan(tmp_path, GOOD, "nodes.spot=true", "tuning.maxSteps=100"))
    assert found.price and found.time
    assert found.cost(found.time.total_hours) == pytest.approx(found.time.total_hours * found.price.spot)
    assert "USD, spot; regular 3.67" in estimate.as_text(found)


def test_existing_nodes_are_not_checked(tmp_path):
    text = LARGE.replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    found = estimate.estimate(plan(tmp_path, text))
    assert (found.sku, found.tuning_fits, found.time, found.price) == (None, None, None, None)
    assert found.tuning and found.smallest
    assert "no instance type is set" in estimate.as_text(found)
    assert estimate.refusals(plan(tmp_path, text)) == []


def test_settings_that_do_not_fit_are_rejected_with_settings_that_do(tmp_path):
    text = on(SMALL_GPU, without_serving(GOOD))
    sets = ["tuning.batchSize=64", "tuning.maxLength=8192"]
    [problem] = rejected(tmp_path, text, *sets)
    assert problem.path == "resource.instanceType"
    assert problem.file.endswith("workspace.yaml") and problem.line == 6
    assert problem.message.startswith("tuning needs ") and problem.message.endswith(
        f"a GPU of {SMALL_GPU} has 22.0 GiB"
    )
    settings = [
        setting.split(" ")[0]
        for setting in problem.fix.removeprefix("any one of: ").split("; ")
        if setting.startswith("tuning.")
    ]
    assert [setting.partition("=")[0] for setting in settings] == ["tuning.batchSize", "tuning.maxLength"]
    for setting in settings:
        assert plan(tmp_path, text, *sets, setting), f"{setting} was proposed but does not fit"


def test_the_largest_batch_and_length_that_fit_are_named(tmp_path):
    text = on(SMALL_GPU, without_serving(GOOD))
    sets = ["tuning.batchSize=64", "tuning.maxLength=2048"]
    [problem] = rejected(tmp_path, text, *sets)
    size = int(problem.fix.partition("tuning.batchSize=")[2].split(" ")[0])
    assert plan(tmp_path, text, *sets, f"tuning.batchSize={size}")
    assert rejected(tmp_path, text, *sets, f"tuning.batchSize={size + 1}")


def test_checkpointing_and_quantization_are_proposed_where_they_help(tmp_path):
    config = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: own
data:
  training_config.yaml: |
    training_config:
      TrainingArguments:
        gradient_checkpointing: %s
"""
    text = on(SMALL_GPU, without_serving(GOOD)).replace("  method: qlora\n", "  method: qlora\n  config: own\n")
    [problem] = rejected(tmp_path, text + config % "false", "tuning.batchSize=16")
    assert "TrainingArguments.gradient_checkpointing: true" in problem.fix
    assert plan(tmp_path, text + config % "true", "tuning.batchSize=16")

    # 26 GiB of weights need two A10; quantized, they fit on one.
    lora = on("Standard_NV72ads_A10_v5", without_serving(GOOD)).replace("phi-3-mini-128k-instruct", "phi-4")
    [problem] = rejected(tmp_path, lora.replace("method: qlora", "method: lora"), "tuning.batchSize=20")
    assert "method: qlora" in problem.fix and "resource.instanceType: Standard_NC24ads_A100_v4" in problem.fix
    assert plan(tmp_path, lora, "tuning.batchSize=20")


def test_changes_that_only_help_together_are_proposed_together(tmp_path):
    text = without_serving(LARGE)
    sets = ["tuning.batchSize=64", "tuning.maxLength=16384"]
    [problem] = rejected(tmp_path, text.replace("method: qlora", "method: lora"), *sets)
    first, _, second = problem.fix.partition(" and ")
    assert first == "method: qlora"
    assert plan(tmp_path, text, *sets, second.split(" ")[0])


def test_kaito_bypass_annotation_skips_the_check(tmp_path):
    text = on(SMALL_GPU, without_serving(GOOD))
    sets = ["tuning.batchSize=64", "tuning.maxLength=8192"]
    assert rejected(tmp_path, text, *sets)
    text = text.replace(
        "  name: tuned\n", '  name: tuned\n  annotations:\n    kaito.sh/bypass-resource-checks: "True"\n', 1
    )
    assert plan(tmp_path, text, *sets)


def test_requested_context_that_does_not_fit_is_rejected(tmp_path):
    config = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: own
data:
  inference_config.yaml: |
    vllm:
      max-model-len: %d
"""
    text = on(SMALL_GPU).replace("inference:\n", "inference:\n  config: own\n")
    [problem] = rejected(tmp_path, text + config % 131072)
    assert problem.message.startswith("serving needs ") and "one request of 131072 tokens" in problem.message
    length = int(problem.fix.partition("max-model-len: ")[2].split(" ")[0])
    assert plan(tmp_path, text + config % length)
    assert rejected(tmp_path, text + config % (length + 1024))


def test_upper_bound_is_not_rejected(tmp_path):
    text = on(SMALL_GPU, GOOD[: GOOD.index("tuning:")] + GOOD[GOOD.index("inference:") : GOOD.index("pipeline:")])
    found = plan(tmp_path, text.replace("phi-3-mini-128k-instruct", "google/gemma-4-12B-it"))
    assert estimate.estimate(found).serving_fits is False
    assert "an upper bound for this architecture" in estimate.as_text(estimate.estimate(found))


def test_smallest_instance_type_is_available_and_fits(tmp_path):
    served = "rollout.runtime=transformers"  # vLLM serves no adapters of Falcon
    for model in presets.models():
        if model.tuning and not model.gated:
            text = GOOD.replace("phi-3-mini-128k-instruct", model.name)
            found = estimate.estimate(plan(tmp_path, on("Standard_ND96isr_H200_v5", text), served))
            assert found.smallest and not found.smallest.retired and found.smallest.compute_capability >= 7.5
            assert plan(tmp_path, on(found.smallest.name, text), served)


def test_prices_come_from_the_site_profile(tmp_path, capsys):
    site = tmp_path / "site.yaml"
    site.write_text("namespace: argo\nprices: {standard_nc24ads_a100_v4: 2, Standard_ND96isr_H200_v5: 80}\n")
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--site", str(site), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"]["usdPerHour"] == 2
    assert found["estimate"]["spotUsdPerHour"] is None
    assert found["namespace"]["value"] == "argo"


def test_all_invalid_prices_are_reported(tmp_path, capsys):
    site = tmp_path / "site.yaml"
    site.write_text(
        "prices: {Standard_NC24ads_A100_v5: 2, Standard_NC24ads_A100_v4: free, Standard_NV36ads_A10_v5: -1}\n"
    )
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--site", str(site)]) == 2
    stdout = capsys.readouterr().err
    assert "did you mean Standard_NC24ads_A100_v4?" in stdout
    assert "must be a price, not 'free'" in stdout and "must be a price, not -1" in stdout
    site.write_text("prices: 3\n")
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--site", str(site)]) == 2
    assert "prices: must be a mapping" in capsys.readouterr().err


def test_missing_price_names_the_site_profile_setting(tmp_path):
    found = estimate.estimate(plan(tmp_path, on("Standard_ND96isr_H200_v5")))
    assert found.price is None
    assert "site profile: prices: {Standard_ND96isr_H200_v5: USD}" in estimate.as_text(found)


def test_every_price_belongs_to_a_known_instance_type():
    table = presets.prices()
    assert all(presets.sku(name).name == name for name in table.usd_per_hour)
    assert all(price.spot is None or price.spot < price.regular for price in table.usd_per_hour.values())
    current = {sku.name for sku in presets.skus() if not sku.retired and (sku.compute_capability or 0) >= 7.5}
    # The source has no pay-as-you-go price for these, and none of AWS.
    azure = {name for name in current if name.startswith("Standard_")}
    assert azure - set(table.usd_per_hour) == {"Standard_ND96isr_H200_v5", "Standard_ND128isr_NDR_GB200_v6"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("resource.gpus", "0"),
        ("rollout.serverArguments", '{"max-num-seqs": "x", "tensor-parallel-size": 0}'),
        ("tuning.targetModules", '["nothing"]'),
    ],
)
def test_invalid_values_do_not_break_the_estimate(tmp_path, path, value):
    assert estimate.as_text(estimate.estimate(plan(tmp_path, GOOD, f"{path}={value}")))


def test_the_plan_imports_neither_hera_nor_torch(tmp_path):
    code = f"""
import sys
from workflows import cli
assert cli.main(["plan", {str(write(tmp_path, GOOD))!r}]) == 0
assert not {{"hera", "torch", "transformers"}} & set(sys.modules), "heavy imports"
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
