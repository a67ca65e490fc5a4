"""``training_config.yaml``: each key honoured or refused by name, and the tables complete."""

import dataclasses
import inspect
from typing import get_args

import pytest

from steps.tune import unsupported_arguments
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.spec import load
from workflows.spec.training_keys import (
    COLLATOR,
    LORA,
    QUANTIZATION,
    SECTIONS,
    TRAINING,
    FixedValue,
    Ignored,
    Unsupported,
)

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {{name: tuned}}
tuning:
  preset: {{name: {preset}}}
  method: {method}
  config: mine
  input: {{urls: ["https://data.example.com/train.parquet"]}}
  output: {{image: registry.example.com/team/adapter:1.0}}
{block}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: mine}}
data:
  training_config.yaml: |
"""


@pytest.fixture
def read(tmp_path):
    def of(config, method="qlora", preset="smollm2-135m-instruct", block="# nothing more"):
        file = tmp_path / "workspace.yaml"
        head = WORKSPACE.format(method=method, preset=preset, block=block)
        file.write_text(head + "".join(f"    {line}\n" for line in config.splitlines()))
        [manifest] = load(file)
        return manifest

    return of


def section(name, *lines):
    return f"training_config:\n  {name}:\n" + "".join(f"    {line}\n" for line in lines)


def refused(read, config, **options):
    with pytest.raises(InvalidInput) as caught:
        read(config, **options)
    return caught.value.problems


def test_values_have_their_types(read):
    manifest = read(
        section(
            "TrainingArguments",
            "learning_rate: 2e-4",
            "num_train_epochs: '3'",
            "bf16: 'true'",
            "save_strategy: steps",
            "lr_scheduler_kwargs: {min_lr: 1e-6}",
        )
        + "  LoraConfig: {r: 16, lora_alpha: '32', target_modules: [q_proj, v_proj]}\n"
        + "  DatasetConfig: {shuffle_seed: 7, train_test_split: 0.9}\n"
    )
    training = manifest.training
    assert training.config_map == "mine"
    assert training.arguments == {
        "learning_rate": 2e-4,
        "num_train_epochs": 3.0,
        "bf16": True,
        "save_strategy": "steps",
        "lr_scheduler_kwargs": {"min_lr": 1e-6},
    }
    assert training.lora == {"r": 16, "lora_alpha": 32.0, "target_modules": ["q_proj", "v_proj"]}
    assert training.dataset == {"shuffle_seed": 7, "train_test_split": 0.9}
    assert manifest.eval_split == 0.1
    assert manifest.source.line("training_config.TrainingArguments.num_train_epochs") == 20


def test_chat_template_is_accepted_unchanged(read):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    manifest = read(section("ModelConfig", f'chat_template: "{template}"'))
    assert manifest.training.model == {"chat_template": template}


def test_disabled_features_are_accepted(read):
    off = ("eval_packing: false", "eval_strategy: no", 'fsdp: ""', "push_to_hub: false", "use_cpu: false")
    manifest = read(section("TrainingArguments", *off))
    assert (manifest.warnings, manifest.training.arguments) == ((), {})


def test_keys_without_effect_are_accepted_and_ignored(read):
    manifest = read(
        section("TrainingArguments", "output_dir: /mnt/results", "do_train: true", "report_to: none")
        + "  ModelConfig: {local_files_only: true, device_map: auto, torch_dtype: bfloat16}\n"
        + "  DataCollator: {mlm: false}\n"
    )
    assert manifest.warnings == ()
    assert manifest.training.arguments == {}
    assert manifest.training.model == {"torch_dtype": "bfloat16"}


@pytest.mark.parametrize("written", ["no", '"no"'])
def test_checkpoints_are_saved_even_if_disabled(read, written):
    """YAML reads a bare ``no`` as false; KAITO's templates quote it."""
    manifest = read(section("TrainingArguments", f"save_strategy: {written}"))
    [warning] = manifest.warnings
    assert "checkpoints are written anyway" in warning.message
    assert warning.line == 19
    assert manifest.training.arguments == {}


def test_masked_objective_has_the_meaning_of_kaito(read):
    [warning] = read(section("DataCollator", "mlm: true")).warnings
    assert "read as false, as KAITO itself does" in warning.message


def test_training_on_all_rows_disables_the_evaluation(read):
    manifest = read(section("DatasetConfig", "train_test_split: 1"))
    assert manifest.eval_split == 0
    [warning] = manifest.warnings
    assert (warning.path, warning.line) == ("training_config.DatasetConfig.train_test_split", 19)


def test_renamed_columns_are_read(read, tmp_path):
    config = section(
        "DatasetConfig", "context_column: question", "response_column: answer", "messages_column: messages"
    )
    read(config)
    [plan] = load_plans(str(tmp_path / "workspace.yaml"))
    assert plan.data.columns == {"prompt": "question", "completion": "answer"}
    manifest = read(config, block="pipeline: {data: {columns: {prompt: q}}}")
    [warning] = manifest.warnings
    assert "overrides the columns of ConfigMap mine" in warning.message


def test_the_workspace_overrides_the_split_of_the_config_map(read):
    config = section("DatasetConfig", "train_test_split: 1")
    manifest = read(config, block="pipeline: {data: {evalSplit: 0.2}}")
    assert manifest.eval_split == 0.2
    [warning] = manifest.warnings
    assert "overrides train_test_split of ConfigMap mine" in warning.message


BROKEN = {
    "not a section": ("training_config:\n  LoraConfg: {r: 8}\n", "training_config.LoraConfg", "Unrecognized section"),
    "section number": ("training_config:\n  8: {r: 8}\n", "training_config.8", "Section key must be a string"),
    "no map": ("training_config: all\n", "training_config", "Expected 'training_config' key to contain a map"),
    "no root": ("LoraConfig: {r: 8}\n", "training_config", "missing key 'training_config'"),
    "text": ("just text\n", "training_config", "missing key 'training_config'"),
    "section no map": ("training_config:\n  LoraConfig: 8\n", "training_config.LoraConfig", "must be a mapping"),
    "unknown key": (section("LoraConfig", "rank: 8"), "training_config.LoraConfig.rank", "unknown key"),
    "other section's key": (section("LoraConfig", "learning_rate: 1"), "training_config.LoraConfig.learning_rate", ""),
    "type": (section("LoraConfig", "r: eight"), "training_config.LoraConfig.r", "must be an integer"),
    "bool": (section("LoraConfig", "r: true"), "training_config.LoraConfig.r", "must be a number"),
    "zero": (section("LoraConfig", "r: 0"), "training_config.LoraConfig.r", "greater than or equal to 1"),
    "nan": (
        section("TrainingArguments", "learning_rate: .nan"),
        "training_config.TrainingArguments.learning_rate",
        "",
    ),
    "no resume": (
        section("TrainingArguments", "save_only_model: true"),
        "training_config.TrainingArguments.save_only_model",
        "must resume exactly where it stopped",
    ),
    "old name": (
        section("TrainingArguments", "max_seq_length: 512"),
        "training_config.TrainingArguments.max_seq_length",
        "it was renamed",
    ),
    "secret": (section("TrainingArguments", "hub_token: x"), "training_config.TrainingArguments.hub_token", "secret"),
    "remote code": (
        section("ModelConfig", "trust_remote_code: true"),
        "training_config.ModelConfig.trust_remote_code",
        "is not executed",
    ),
    "template": (
        section("ModelConfig", "chat_template: /workspace/tfs/chat.jinja"),
        "training_config.ModelConfig.chat_template",
        "must be Jinja text",
    ),
    "packing": (
        section("TrainingArguments", "packing: true", "padding_free: false"),
        "training_config.TrainingArguments.padding_free",
        "packed rows have no padding",
    ),
    "one checkpoint": (
        section("TrainingArguments", "save_total_limit: 1"),
        "training_config.TrainingArguments.save_total_limit",
        "must be 2 or more",
    ),
    "by length": (
        section("TrainingArguments", "group_by_length: true"),
        "training_config.TrainingArguments.group_by_length",
        "it was renamed",
    ),
    "both types": (
        section("TrainingArguments", "bf16: true", "fp16: true"),
        "training_config.TrainingArguments.fp16",
        "cannot be combined with bf16",
    ),
    "workers": (
        section("TrainingArguments", "dataloader_prefetch_factor: 2"),
        "training_config.TrainingArguments.dataloader_prefetch_factor",
        "requires dataloader_num_workers above 0",
    ),
    "optimizer": (section("TrainingArguments", "optim: adam"), "training_config.TrainingArguments.optim", "'sgd'"),
    "braces": (
        section("TrainingArguments", "optim_args: 'a={{x}}'"),
        "training_config.TrainingArguments.optim_args",
        "contains '{{'",
    ),
    "both": (
        section("QuantizationConfig", "load_in_4bit: true", "load_in_8bit: true"),
        "training_config.QuantizationConfig",
        "Cannot set both 'load_in_4bit' and 'load_in_8bit' to true in ConfigMap 'mine'",
    ),
    "neither": (
        section("QuantizationConfig", "load_in_4bit: false"),
        "training_config.QuantizationConfig",
        "For method 'qlora', either 'load_in_4bit' or 'load_in_8bit' must be true in ConfigMap 'mine'",
    ),
    "twice": (
        section("LoraConfig", "r: 8", "r: 16"),
        "training_config.LoraConfig.r",
        "'r' is a duplicate, first on line 19",
    ),
    "other beginning": (
        section("LoraConfig", "init_lora_weights: loftq"),
        "training_config.LoraConfig.init_lora_weights",
        "loftq is not supported: it compensates quantization",
    ),
    "layers": (
        section("LoraConfig", "target_modules: [qkv_proj]"),
        "training_config.LoraConfig.target_modules",
        "LlamaForCausalLM has no layer qkv_proj",
    ),
    "not yaml": ("training_config: [\n", "training_config", "not YAML"),
    "empty": ("\n", "training_config", "missing key 'training_config'"),
}


@pytest.mark.parametrize(("config", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_invalid_key_is_rejected_by_name(read, config, path, words):
    [problem] = refused(read, config)
    assert problem.path == path
    assert words in problem.message
    assert problem.line >= 16


def test_key_of_another_section_is_reported_with_its_section(read):
    [problem] = refused(read, section("LoraConfig", "learning_rate: 1"))
    assert problem.fix == "move it to TrainingArguments"


def test_every_invalid_key_is_reported(read):
    config = (
        section("LoraConfig", "r: x", "lora_alpha: -1") + "  TrainingArguments: {seed: -1, deepspeed: zero.json}\n"
    )
    assert [problem.line for problem in refused(read, config)] == [19, 20, 21, 21]


def test_quantization_contradicts_lora(read):
    config = section("QuantizationConfig", "load_in_4bit: true")
    [problem] = refused(read, config, method="LoRA")
    assert problem.message.startswith("For method 'lora', 'load_in_4bit' or 'load_in_8bit'")
    [warning] = read(section("QuantizationConfig", "bnb_4bit_quant_type: nf4"), method="lora").warnings
    assert "no effect with method lora" in warning.message


def test_unknown_layers_are_reported(read):
    """PEFT itself adapts only o_proj here, and is silent about it."""
    config = section("LoraConfig", "target_modules: [q_proj, k_proj, v_proj, o_proj]")
    [warning] = read(config, preset="phi-4").warnings
    assert "Phi3ForCausalLM has no layer q_proj, k_proj, v_proj" in warning.message
    assert "qkv_proj" in warning.fix


def test_all_linear_layers_are_the_default(read):
    assert read(section("LoraConfig", "target_modules: all-linear")).training.lora == {}


def test_lines_are_correct_without_a_literal_block(tmp_path):
    file = tmp_path / "workspace.yaml"
    head = WORKSPACE.format(method="qlora", preset="phi-4", block="# nothing more").replace(
        "  training_config.yaml: |\n", ""
    )
    file.write_text(head + '  training_config.yaml: "training_config:\\n  LoraConfig:\\n    r: x\\n"\n')
    with pytest.raises(InvalidInput) as caught:
        load(file)
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [
        ("training_config.LoraConfig.r", 16)
    ]


def test_a_config_map_without_the_key(tmp_path):
    file = tmp_path / "workspace.yaml"
    file.write_text(
        WORKSPACE.format(method="qlora", preset="phi-4", block="# nothing more").replace(
            "training_config.yaml: |", "other: x"
        )
    )
    with pytest.raises(InvalidInput, match=r"missing key training_config\.yaml in ConfigMap mine"):
        load(file)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_unsupported_key_has_a_reason_and_every_key_a_rule(name):
    for key, rule in SECTIONS[name].items():
        if isinstance(rule, Unsupported):
            assert rule.why and rule.fix, key
        elif isinstance(rule, FixedValue | Ignored):
            assert rule.why, key


def test_the_tables_know_every_key_of_the_libraries():
    trl = pytest.importorskip("trl")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")

    def fields(of):
        return {field.name for field in dataclasses.fields(of)}

    assert fields(trl.SFTConfig) <= set(TRAINING)
    assert fields(peft.LoraConfig) <= set(LORA)
    assert fields(transformers.DataCollatorForLanguageModeling) <= set(COLLATOR)
    quantization = set(inspect.signature(transformers.BitsAndBytesConfig).parameters) - {"kwargs"}
    assert quantization <= set(QUANTIZATION)


def test_no_accepted_key_is_rejected_or_ignored_by_the_tune_step():
    for key in {**unsupported_arguments.UNSUPPORTED, **unsupported_arguments.WITHOUT_EFFECT}:
        assert isinstance(TRAINING[key], Unsupported | Ignored), key


def test_the_optimizers_are_those_of_the_library():
    names = pytest.importorskip("transformers.training_args").OptimizerNames
    assert set(get_args(TRAINING["optim"])) <= {name.value for name in names}


def test_supported_keys_exist_in_the_libraries():
    """A key that is passed on must exist there, or training fails on it."""
    trl = pytest.importorskip("trl")
    peft = pytest.importorskip("peft")
    for table, of in ((TRAINING, trl.SFTConfig), (LORA, peft.LoraConfig)):
        honoured = {key for key, rule in table.items() if not isinstance(rule, Unsupported | FixedValue | Ignored)}
        assert honoured <= {field.name for field in dataclasses.fields(of)}


def test_the_extension_of_the_data(read):
    assert read(section("DatasetConfig", "dataset_extension: parquet")).training.dataset == {
        "dataset_extension": "parquet"
    }
    [problem] = refused(read, section("DatasetConfig", "dataset_extension: csv"))
    assert problem.path == "training_config.DatasetConfig.dataset_extension"
    assert "must be the format of the data" in problem.message
