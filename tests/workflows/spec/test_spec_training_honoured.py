"""Training configurations that ``validate`` accepts are accepted by the tune step and its libraries."""

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from steps.tune import training_config
from steps.tune.settings import Settings
from workflows.spec import training
from workflows.spec.findings import Findings
from workflows.spec.source import Source
from workflows.spec.training_keys import SECTIONS, FixedValue, Ignored, IgnoredWithWarning, Unsupported

# Values to try; each key accepts those of its type.
SAMPLES: list[Any] = [True, False, 0, 1, 2, 100, 0.05, 0.5, 1.5, -1, "a", ["q_proj"], {"q_proj": 4}]
# Keys that a key requires, and the valid values where its type allows more.
REQUIRED_KEYS = {
    "LoraConfig": {"layers_pattern": {"layers_to_transform": [0]}},
    "TrainingArguments": {
        "dataloader_prefetch_factor": {"dataloader_num_workers": 1},
        "dataloader_persistent_workers": {"dataloader_num_workers": 1},
    },
}
VALUES = {
    "optim_args": [""],
    "chat_template": ["{% for m in messages %}{{ m.content }}{% endfor %}"],
    "lr_scheduler_kwargs": [{}],
    "gradient_checkpointing_kwargs": [{"use_reentrant": False}],
    "init_lora_weights": [True, False, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora"],
    # Half precision and TF32 require a GPU: transformers checks the device.
    "fp16": [False],
    "tf32": [False],
}


def values(section: str, key: str, rule: Any) -> list[Any]:
    if key in VALUES:
        return VALUES[key]
    literals = [
        value
        for part in (rule, *get_args(rule))
        if str(get_origin(part)) == "typing.Literal"
        for value in get_args(part)
    ]
    return literals or [value for value in SAMPLES if is_accepted(section, key, value)]


def is_accepted(section: str, key: str, value: Any) -> bool:
    """Return True if validate accepts the value."""
    return not read(section, {**REQUIRED_KEYS.get(section, {}).get(key, {}), key: value})[1]


def read(section: str, given: dict[str, Any]) -> tuple[training.TrainingConfig, list[str]]:
    found = Findings(Source("file"))
    config = training.parse({"training_config": {section: given}}, "settings", found)
    return config, [str(problem) for problem in found.errors]


SUPPORTED = [
    (section, key)
    for section, keys in SECTIONS.items()
    for key, rule in keys.items()
    if section not in ("DataCollator", "DatasetConfig")
    and not isinstance(rule, Ignored | IgnoredWithWarning | FixedValue | Unsupported)
]


def test_supported_keys_are_accepted_by_the_step_and_its_libraries(tmp_path: Path):
    pytest.importorskip("trl")
    rejected = []
    for section, key in SUPPORTED:
        tried = values(section, key, SECTIONS[section][key])
        assert tried, f"no sample of {key}"
        for value in tried:
            config, wrong = read(section, {**REQUIRED_KEYS.get(section, {}).get(key, {}), key: value})
            assert wrong == []
            try:
                check_in_step(config, tmp_path)
            except Exception as error:
                rejected.append(f"{section}.{key}: {value!r}: {type(error).__name__} {error}"[:200])
    assert not rejected, "\n".join(rejected)


def check_in_step(config: training.TrainingConfig, folder: Path) -> None:
    """Check a configuration as the tune step does before it loads a model."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    arguments = dict(config.arguments)
    given = Settings(
        work=folder,
        model="some/model",
        report_to=arguments.pop("report_to", "none"),  # a separate flag
        training_arguments=arguments,
        lora_config=dict(config.lora),
        quantization_config=dict(config.quantization),
        model_config=dict(config.model),
    )
    checked = training_config.check(given, ["q_proj"])
    training_config.trainer_config(checked, folder, "cpu", rows=10)
    LoraConfig(**checked.lora, task_type="CAUSAL_LM")
    BitsAndBytesConfig(**config.quantization)
