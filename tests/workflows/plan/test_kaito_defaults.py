"""``argotune plan`` shows where argotune's defaults differ from KAITO's, and never a false origin."""

import json
from pathlib import Path

import pytest
import yaml
from workspace_sample import GOOD, PIPELINE, write

from steps.tune import training_config
from steps.tune.settings import TrainingOptions
from workflows import cli
from workflows.load_plans import load_with_manifests
from workflows.plan import kaito_defaults

TEMPLATES = Path(__file__).parents[2] / "data" / "kaito" / "templates"
PATHS = {
    "tuning.epochs": "num_train_epochs",
    "tuning.maxSteps": "max_steps",
    "tuning.learningRate": "learning_rate",
    "tuning.batchSize": "per_device_train_batch_size",
    "tuning.maxLength": "max_length",
    "tuning.seed": "seed",
    "tuning.rank": "r",
    "tuning.alpha": "lora_alpha",
    "tuning.dropout": "lora_dropout",
}
CONFIG = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mine}
data:
  training_config.yaml: |
    training_config:
      %s
"""


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def found(file, *overrides):
    [loaded] = load_with_manifests(str(file), overrides)
    return {row.field: (row.argotune, row.kaito) for row in kaito_defaults.differences(loaded.plan, loaded.manifest)}


def with_config(folder, sections):
    text = GOOD.replace("  method: qlora\n", "  method: qlora\n  config: mine\n").replace(PIPELINE, "")
    return write(folder, text + CONFIG % sections)


def test_the_table_names_each_default_that_differs(tmp_path):
    rows = found(write(tmp_path, GOOD.replace(PIPELINE, "")))
    assert rows["tuning.rank"] == ("16", "8")
    assert rows["tuning.batchSize"] == ("4", "1")
    assert rows["data.evalSplit"] == ("0.1", "0")
    assert rows["save_strategy"] == ("steps", "no")
    assert rows["loss"] == ("answers", "all tokens")
    assert rows["tuning.targetModules"][1].startswith("k_proj, q_proj")
    assert "tuning.epochs" not in rows and "tuning.dropout" not in rows, "they are equal"


def test_what_the_user_sets_is_no_default(tmp_path):
    sections = "LoraConfig: {r: 4, target_modules: [o_proj]}\n      TrainingArguments: {lr_scheduler_type: constant}"
    rows = found(with_config(tmp_path, sections), "tuning.learningRate=0.01", "data.evalSplit=0.2")
    assert not rows.keys() & {
        *("tuning.rank", "tuning.targetModules", "lr_scheduler_type", "tuning.learningRate", "data.evalSplit")
    }
    assert rows["tuning.alpha"] == ("32", "8")


def test_keys_that_a_config_map_lacks_have_the_defaults_of_the_libraries(tmp_path):
    rows = found(with_config(tmp_path, "QuantizationConfig: {load_in_4bit: true, bnb_4bit_quant_type: nf4}"))
    assert rows["tuning.batchSize"] == ("4", "8")
    assert rows["data.evalSplit"] == ("0.1", "0.2")
    assert rows["bnb_4bit_use_double_quant"] == ("true", "false")
    assert "bnb_4bit_quant_type" not in rows and "save_strategy" not in rows


def test_searched_parameters_and_dpo_have_no_default(tmp_path):
    search = PIPELINE + "  search: {parameters: {rank: [8, 16]}}\n"
    assert "tuning.rank" not in found(write(tmp_path, GOOD.replace(PIPELINE, search)))
    dpo = PIPELINE + "  tune: {objective: dpo}\n"
    assert found(write(tmp_path, GOOD.replace(PIPELINE, dpo))) == {}


def test_kaito_s_values_are_those_of_its_libraries_and_templates():
    import dataclasses

    from peft import LoraConfig
    from trl import SFTConfig

    fields = {field.name: field.default for kind in (SFTConfig, LoraConfig) for field in dataclasses.fields(kind)}
    assert {path: kaito_defaults.CLASS_DEFAULTS[path] for path in PATHS} == {
        path: fields[key] for path, key in PATHS.items()
    }
    assert fields["lr_scheduler_type"] == "linear" and fields["warmup_steps"] == 0
    for method in ("lora", "qlora"):
        lines = (TEMPLATES / f"{method}-params.yaml").read_text().splitlines()
        content = yaml.safe_load("\n".join(line for line in lines if "{{" not in line))["data"]["training_config.yaml"]
        sections = yaml.safe_load(content)["training_config"]
        written = sections["LoraConfig"] | sections["TrainingArguments"]
        for path, key in PATHS.items():
            assert kaito_defaults.TEMPLATE[path] == written.get(key, fields[key]), path
        assert written["save_strategy"] == "no"
        assert sections["DatasetConfig"] == {"shuffle_dataset": True, "train_test_split": 1}


def test_argotune_s_values_are_those_of_the_tune_step(tmp_path):
    config = training_config.check(TrainingOptions(), ["q_proj"])
    arguments = training_config.trainer_config(config, tmp_path, "cpu", rows=8)
    for key, argotune, _ in kaito_defaults.SCHEDULE:
        assert str(arguments.to_dict()[key]) == argotune
    assert arguments.save_strategy == "steps"


def test_the_plan_prints_the_table_and_the_hint(tmp_path, capsys):
    text = GOOD[: GOOD.index("inference:")]
    file = str(write(tmp_path, text))
    assert cli.main(["plan", file]) == 0
    shown = capsys.readouterr()
    assert "\nARGOTUNE'S DEFAULTS, AND KAITO's qlora-params-template\nFIELD " in shown.out
    assert f"hint: {file}:10: tuning: the adapter is packaged, but not served" in shown.err
    assert cli.main(["plan", file, "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["kaitoDefaults"]
    assert {"field": "tuning.rank", "argotune": "16", "kaito": "8"} in rows


def test_each_origin_is_the_line_that_sets_the_value(tmp_path):
    text = GOOD.replace("v1beta1", "v1alpha1").replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    file = write(tmp_path, text)
    [loaded] = load_with_manifests(str(file))
    origins = {path: origin for path, _, origin in loaded.plan.values()}
    assert origins["resource.instanceType"] == "default of kaito.sh/v1alpha1"
    assert origins["evaluation.samples"] == "built-in"
    lines = dict(enumerate(text.splitlines(), 1))
    for path, word in {
        "resource.labels": "labelSelector:",
        "tuning.method": "method: qlora",
        "output.image": "image: registry.example.com/team/adapter:1.0",
        "rollout.adapters": "adapters:",
        "data.evalSplit": "evalSplit: 0.1",
    }.items():
        assert word in lines[int(origins[path].rstrip(")").rpartition(":")[2])], path
    assert "Workspace" not in origins.values(), "each has its line"


def test_a_value_that_nobody_sets_is_built_in(tmp_path):
    volume = "    volumeSource: {persistentVolumeClaim: {claimName: adapters}}\n"
    text = GOOD.replace("    image: registry.example.com/team/adapter:1.0\n", volume)
    text = text[: text.index("  adapters:")] + PIPELINE
    [loaded] = load_with_manifests(str(write(tmp_path, text)))
    for path in ("output.image", "rollout.adapters", "resource.preferredNodes"):
        assert loaded.plan.origin(path) == "built-in"
