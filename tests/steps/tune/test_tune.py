"""Training of an adapter: outputs and rejected settings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from trainable_model import curve
from tuning import (
    EPOCHS,
    FLAGS,
    STEPS,
    losses,
    one_thread,
    quick,
    with_rows,
)

from steps.models.adapter import adapter_digest
from steps.runtime.errors import BadInput
from steps.tune import step
from steps.tune.settings import Settings


def test_the_loss_falls_and_is_recorded(undisturbed: Path) -> None:
    lines = curve(undisturbed)
    assert len(lines) == STEPS
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds"} <= lines[0].keys()
    assert lines[-1]["epoch"] == EPOCHS
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    result = json.loads((undisturbed / "results" / "tune.json").read_text())["result"]
    assert result["steps"] == STEPS
    assert result["train_loss"] == pytest.approx(sum(losses(undisturbed)) / STEPS, abs=1e-3)
    assert result["adapter_digest"] == adapter_digest(undisturbed / "adapter")


def test_the_seed_determines_the_adapter(tiny: Path, tmp_path: Path) -> None:
    one, two, other = (
        quick(with_rows(tmp_path / name), tiny, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.adapter_digest == two.adapter_digest
    assert one.adapter_digest != other.adapter_digest


PLAIN_PEFT = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
row = [{"role": "user", "content": "What colour is number 7?"},
       {"role": "assistant", "content": "Number 7 is blue, as all numbers are."}]
inputs = tokenizer.apply_chat_template(row, return_dict=True, return_tensors="pt")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
with torch.no_grad():
    tuned = model(**inputs, labels=inputs["input_ids"]).loss.item()
    with model.disable_adapter():
        plain = model(**inputs, labels=inputs["input_ids"]).loss.item()
print(json.dumps([plain, tuned, [name for name in sys.modules if name.split(".")[0] == "steps"]]))
"""


def test_the_adapter_loads_with_plain_peft(undisturbed: Path, tiny: Path, tmp_path: Path) -> None:
    """In a separate process, without argotune."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PEFT, str(tiny), str(undisturbed / "adapter")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=one_thread(),
    )
    plain, tuned, argotune_modules = json.loads(done.stdout.splitlines()[-1])
    assert tuned < 0.8 * plain
    assert argotune_modules == []


def test_files_of_the_adapter(undisturbed: Path, tiny: Path) -> None:
    folder = undisturbed / "adapter"
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny)
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert (folder / "chat_template.jinja").read_text() == trainable_model.CHATML


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_both_methods(tiny: Path, work: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    quick(work, tiny, method=method)
    assert ("14 Linear4bit layers" in capsys.readouterr().out) == (method == "qlora")


def test_mappings_and_flags(tiny: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in KAITO's template, including numbers written as strings."""
    result = quick(
        work,
        tiny,
        max_steps=-1,
        epochs=1,
        target_modules=["q_proj", "v_proj"],
        training_arguments={
            "output_dir": "/mnt/results",
            "save_strategy": "no",
            "ddp_find_unused_parameters": False,
            "gradient_accumulation_steps": "2",
            "weight_decay": "1e-2",
            "warmup_steps": 2,
            "lr_scheduler_type": "constant_with_warmup",
            "learning_rate": "9e-9",
        },
        lora_config={"r": 64, "bias": "none", "use_rslora": True, "task_type": "CAUSAL_LM"},
        quantization_config={"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"},
        model_config={"torch_dtype": "float32", "local_files_only": True, "device_map": "auto"},
    )
    assert result.steps == 9
    assert not Path("/mnt/results").exists()
    assert curve(work)[-1]["learning_rate"] == FLAGS["learning_rate"]
    config = json.loads((work / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["use_rslora"], config["target_modules"]) == (4, True, ["q_proj", "v_proj"])
    assert "ignoring training arguments: output_dir" in capsys.readouterr().out


def test_saving_by_epoch(tiny: Path, work: Path) -> None:
    quick(work, tiny, max_steps=-1, epochs=2, training_arguments={"save_strategy": "epoch", "save_total_limit": 9})
    assert sorted(path.name for path in (work / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-18",
        "checkpoint-36",
    ]


def test_all_errors_of_the_mappings_are_reported_together(tiny: Path, work: Path) -> None:
    with pytest.raises(BadInput) as caught:
        quick(
            work,
            tiny,
            training_arguments={
                "learning_rat": 1,
                "packing": True,
                "padding_free": False,
                "weight_decay": "much",
                "push_to_hub": True,
                "save_total_limit": 1,
            },
            lora_config={"lora_drop": 0.1},
            quantization_config={"bnb_4bit_quant": "nf4"},
            model_config={"trust_remote_code": True, "atn": 1},
        )
    for part in (
        "training_arguments.learning_rat: unknown key, did you mean learning_rate?",
        "training_arguments.padding_free: packed rows have no padding",
        "training_arguments.weight_decay:",
        "training_arguments.push_to_hub",
        "training_arguments.save_total_limit",
        "lora_config.lora_drop: unknown key, did you mean lora_dropout?",
        "quantization_config.bnb_4bit_quant: unknown key, did you mean bnb_4bit_quant_type?",
        "model_config.trust_remote_code",
        "model_config.atn: unknown key",
    ):
        assert part in caught.value.message
    assert not (work / "checkpoints").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"target_modules": ["q_proj", "query"]}, "the model has no linear layer query"),
        ({"max_length": 3}, "max_length=3 truncates all assistant tokens"),
        ({"training_arguments": {"lr_scheduler_type": "wavy"}}, "wavy"),
        ({"lora_config": {"bias": "some"}}, "some"),
        ({"method": "lora", "quantization_config": {"load_in_4bit": True}}, "does not quantize"),
        ({"quantization_config": {"load_in_4bit": False}}, "turns quantization off"),
        ({"learning_rate": 1.0, "training_arguments": {"weight_decay": 1e30}}, "the loss is not finite at step"),
    ],
)
def test_bad_settings(tiny: Path, work: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        quick(work, tiny, **flags)
    assert message in caught.value.message
    assert caught.value.fix
    assert not (work / "adapter").exists()


def test_a_custom_chat_template_is_saved_with_the_adapter(tiny: Path, work: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    quick(work, tiny, model_config={"chat_template": template})
    assert (work / "adapter" / "chat_template.jinja").read_text() == template


def test_a_broken_chat_template_is_rejected(tiny: Path, work: Path) -> None:
    with pytest.raises(BadInput, match="template"):
        quick(work, tiny, model_config={"chat_template": "{% for m in messages %}{{ m.content }}"})


def test_the_fix_lists_the_linear_layers(tiny: Path, work: Path) -> None:
    with pytest.raises(BadInput) as caught:
        quick(work, tiny, target_modules=["query"])
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in caught.value.fix


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_no_rows(tiny: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "dataset" / "train.parquet"
    if content is not None:
        file.parent.mkdir()
        file.write_bytes(content)
    with pytest.raises(BadInput, match=r"train\.parquet"):
        quick(tmp_path, tiny)


def test_attempts_on_any_processes_are_one_execution_and_rungs_are_several(tmp_path: Path) -> None:
    settings = Settings(work=tmp_path)
    retried = {"processes": 2, "sharding": "full", "nodes": 2, "budget_hours": 3}
    assert step._execution(settings.model_copy(update=retried)) == step._execution(settings)
    assert step._execution(settings.model_copy(update={"stop_after": 0.5})) != step._execution(settings)
