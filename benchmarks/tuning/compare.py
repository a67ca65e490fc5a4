"""Compare the tuning speed of a KAITO-like script, a plain trl script and argotune: same machine, model, data, seed.

    python benchmarks/tuning/compare.py                # all, twice; "same settings" three times (15 minutes)
    python benchmarks/tuning/compare.py argotune DIR   # one, on the data in DIR

Each training runs in a separate process. Useful tokens exclude padding. Time is that of the training loop, checkpoints
included; the fastest of several rounds counts, since it was disturbed least.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PRESET = "smollm2-135m-instruct"
ROUNDS, ROWS, SEED, RANK, BATCH, LENGTH = 2, 40, 42, 8, 8, 1024
SAVES = 0.5  # fraction of all steps; more checkpoints would dominate such a short training
COMMON: dict[str, Any] = {
    "num_train_epochs": 1,
    "use_cpu": True,
    "report_to": "none",
    "seed": SEED,
    "logging_steps": 1,
    "disable_tqdm": True,
}
"""Arguments of both trl scripts."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# SmolLM2's template with the generation tags that trl needs for assistant_only_loss.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant named "
    "SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)


def main() -> None:
    """Train one contender in this process, or print all as a table."""
    if len(sys.argv) > 1:
        name, work = sys.argv[1], Path(sys.argv[2])
        print(json.dumps(CONTENDERS[name](work)))
        return
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for number, name in [*itertools.product(range(ROUNDS), CONTENDERS), *itertools.product([ROUNDS], SAME_SETTINGS)]:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            write_rows(work / "dataset" / "train.parquet")
            rounds[name].append(_run_separately(name, str(work)))
        print(f"{number + 1}. {name}: {rounds[name][-1]['speed']:.1f} useful tokens/s", file=sys.stderr, flush=True)
    _print_table({name: max(results, key=lambda result: float(result["speed"])) for name, results in rounds.items()})


def write_rows(file: Path) -> None:
    """Write conversations of 1 to 6 turns from rows.parquet, about 100 to 600 tokens each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    examples = pq.read_table(Path(__file__).parent / "rows.parquet").column("messages").to_pylist()
    rng = random.Random(SEED)
    rows = []
    for _ in range(ROWS):
        turns = [rng.choice(examples) for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 3, 4, 6]))]
        rows.append([message for turn in turns for message in turn if message["role"] != "system"])
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"messages": rows}), file)


def kaito_like(work: Path) -> dict[str, Any]:
    """Train as KAITO's fine_tuning.py and template: batch size 1, loss on all tokens, activation checkpointing.

    bfloat16 of its template is used only if the CPU supports it: emulation would improve argotune's ratio.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import DataCollatorForLanguageModeling
    from trl import SFTConfig, SFTTrainer

    tokenizer, model = _model()
    model = prepare_model_for_kbit_training(model)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS))
    arguments = SFTConfig(
        output_dir=str(work / "out"),
        per_device_train_batch_size=1,
        save_strategy="no",
        bf16=_has_bfloat16(),
        **COMMON,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return _train(SFTTrainer(model, arguments, collator, train_dataset=_rows(work), processing_class=tokenizer))


def plain_trl(work: Path) -> dict[str, Any]:
    """Train with a typical trl script: no activation checkpointing, loss on answers only."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    tokenizer, model = _model()
    tokenizer.chat_template = TEMPLATE
    arguments = SFTConfig(
        output_dir=str(work / "out"),
        per_device_train_batch_size=BATCH,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        gradient_checkpointing=False,
        assistant_only_loss=True,
        max_length=LENGTH,
        save_steps=SAVES,
        save_total_limit=2,
        bf16=_has_bfloat16(),
        **COMMON,
    )
    lora = LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, arguments, train_dataset=_rows(work), processing_class=tokenizer, peft_config=lora)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return _train(trainer)


def plain_trl_same_process(work: Path) -> dict[str, Any]:
    """Train with plain trl and the process settings of the tune step."""
    from steps.runtime.machine import disable_malloc_trim
    from steps.tune import ignored_logits

    disable_malloc_trim()
    ignored_logits.skip_ignored_logits()
    return plain_trl(work)


def argotune(work: Path, **training_arguments: Any) -> dict[str, Any]:
    """Train with the tune step; only the call of the trainer is timed, as in the scripts."""
    from trl import SFTTrainer

    from steps.tune.settings import Settings
    from steps.tune.step import tune

    seconds = 0.0
    train: Any = SFTTrainer.train

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal seconds
        started = time.monotonic()
        result = train(*args, **kwargs)
        seconds = time.monotonic() - started
        return result

    SFTTrainer.train = timed
    tune(
        Settings(
            work=work,
            preset=PRESET,
            epochs=1,
            batch_size=BATCH,
            rank=RANK,
            alpha=16,
            max_length=LENGTH,
            seed=SEED,
            training_arguments={"save_steps": SAVES} | training_arguments,
        )
    )
    curve = [json.loads(line) for line in (work / "report" / "train.jsonl").read_text().splitlines()]
    tokens = sum(entry["tokens"] for entry in curve)
    return _result(tokens, seconds, [entry["loss"] for entry in curve])


def argotune_same_settings(work: Path) -> dict[str, Any]:
    """Train with the tune step and the rows in trl's order."""
    return argotune(work, train_sampling_strategy="random")


CONTENDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "KAITO-like": kaito_like,
    "plain trl": plain_trl,
    "plain trl, same settings": plain_trl_same_process,
    "argotune, same settings": argotune_same_settings,
    "argotune": argotune,
}
SAME_SETTINGS = ("plain trl, same settings", "argotune, same settings")
"""Their difference is smaller than the variation between runs, so they run once more."""


def _has_bfloat16() -> bool:
    from steps.models.model import compute_dtype

    return compute_dtype("cpu") == "bfloat16"


def _model() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from steps.models.model import compute_dtype, fetch_model, prepare_libraries

    prepare_libraries()
    folder = fetch_model(PRESET, "", "").folder
    dtype = getattr(torch, compute_dtype("cpu"))
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantization, device_map={"": "cpu"}
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer, model


def _rows(work: Path) -> Any:
    from datasets import load_dataset

    file = str(work / "dataset" / "train.parquet")
    return load_dataset("parquet", data_files=file, split="train", cache_dir=str(work / "cache"))


def _train(trainer: Any) -> dict[str, Any]:
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return _result(int(entries[-1]["num_tokens"]), seconds, [entry["loss"] for entry in entries])


def _result(tokens: int, seconds: float, losses: list[float]) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"tokens": tokens, "seconds": seconds, "speed": tokens / seconds, "losses": losses, "peak_gib": peak}


def _run_separately(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    stdout = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout
    return dict(json.loads(stdout.strip().splitlines()[-1]))


def _print_table(results: dict[str, dict[str, Any]]) -> None:
    slowest = results["KAITO-like"]["speed"]
    print("| | useful tokens/s | relative to KAITO-like | tokens | seconds | steps | peak memory, GiB |")
    print("|---" * 7 + "|")
    for name, result in results.items():
        ratio = result["speed"] / slowest
        print(
            f"| {name} | {result['speed']:.1f} | {ratio:.2f}x | {result['tokens']} | {result['seconds']:.0f} "
            f"| {len(result['losses'])} | {result['peak_gib']:.2f} |"
        )
    plain, ours = (results[name] for name in SAME_SETTINGS)
    gap = max(abs(a - b) for a, b in zip(plain["losses"], ours["losses"], strict=True))
    slower = plain["speed"] / ours["speed"] - 1
    print(f"\nargotune against plain trl with the same settings: {slower:+.1%} time per token,")
    print(f"largest difference of the loss curves {gap:.1e}")


if __name__ == "__main__":
    main()
