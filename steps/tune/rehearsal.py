"""A rehearsal of the training: two steps of the real trainer on a small random model, without the base and its data.

It turns the complaints of trl, transformers, PEFT, bitsandbytes and torch into errors of settings, before anything is
downloaded or created. Without the GPU of the training on this machine, what only a GPU computes is built, not run.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models import model
from steps.runtime.errors import BadInput
from steps.tune import batching, dpo, tiny_training, training, training_config, unsupported_arguments
from steps.tune.adapted_layers import ALL_LINEAR
from steps.tune.settings import TrainingOptions
from steps.tune.training_config import TrainingConfig

SECTIONS = ("quantization_config", "lora_config", "training_arguments")
"""Settings with arguments of libraries."""
OF_THE_MODEL = (
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
)
"""Keys of ``lora_config`` that name layers of the base model, which the small model does not have."""
OF_THE_TOKENIZER = ("eos_token", "pad_token")
FIXES = {
    "lr_scheduler_type": "set what the scheduler requires in lr_scheduler_kwargs, or use lr_scheduler_type: cosine",
    "lr_scheduler_kwargs": "set arguments of this scheduler (transformers.optimization), or remove them",
    "optim": "use an optimizer of PyTorch or bitsandbytes, such as adamw_torch, or remove optim",
}
"""Fixes by key; for others: change or remove it."""
NUM_STEPS = 1000
"""Steps of a rehearsed scheduler if epochs limit the training."""
ROWS = 8


@dataclass(frozen=True)
class SettingError:
    """A setting that a library rejects."""

    section: str
    """One of ``SECTIONS``."""
    key: str
    """Empty if the message is about the whole section."""
    message: str
    fix: str

    @property
    def field(self) -> str:
        """Path of the setting, as the flags of the tune step name it."""
        return f"{self.section}.{self.key}" if self.key else self.section


def find_errors(options: TrainingOptions, device: str, preset_targets: Sequence[str] = ()) -> list[SettingError]:
    """Return every setting that a library rejects.

    Args:
        options: The settings.
        device: Device of the training: ``cuda`` or ``cpu``; ``cuda`` also if this machine has no GPU.
        preset_targets: Target modules of the preset.

    Raises:
        BadInput: argotune does not support a key; the message lists all of them.
    """
    training_config.check(options, preset_targets)
    errors = [
        SettingError("training_arguments", key, reason, f"remove {key}, or train on a GPU")
        for key, reason in unsupported_arguments.requires_gpu(options.training_arguments, device).items()
    ]
    for error in errors:
        options = _without(options, error.section, error.key)
    for rehearse in _stages(options, device):
        while (message := _complaint(rehearse, options)) is not None:
            error = _explain(rehearse, options, message)
            errors.append(error)
            if not error.key:
                return errors
            options = _without(options, error.section, error.key)
    return errors


def names_tokens(options: TrainingOptions) -> bool:
    """Return True if the settings name tokens, which the base model's tokenizer must have."""
    return any(options.training_arguments.get(key) for key in OF_THE_TOKENIZER)


def find_unknown_tokens(options: TrainingOptions, tokenizer: Any) -> list[SettingError]:
    """Return the tokens of the settings that are not in the vocabulary."""
    named = {
        key: str(options.training_arguments[key]) for key in OF_THE_TOKENIZER if options.training_arguments.get(key)
    }
    vocabulary = tokenizer.get_vocab()
    return [
        SettingError(
            "training_arguments",
            key,
            f"the base model's tokenizer has no token {token!r}",
            f"remove {key} (the tokenizer's is {getattr(tokenizer, key)!r})",
        )
        for key, token in named.items()
        if token not in vocabulary
    ]


def as_bad_input(errors: Sequence[SettingError]) -> BadInput:
    """Return one error for all."""
    return BadInput(
        "; ".join(f"{error.field}: {error.message}" for error in errors),
        "; ".join(dict.fromkeys(error.fix for error in errors)),
    )


Rehearse = Callable[[TrainingOptions], None]


def _stages(options: TrainingOptions, device: str) -> Iterator[Rehearse]:
    if options.method == "qlora":
        yield _build_quantization
    yield _build_lora
    yield lambda changed: _build_arguments(changed, device)
    yield lambda changed: _train(changed, device)


def _build_quantization(options: TrainingOptions) -> None:
    import torch

    model.quantization(options.quantization_config, torch.float32)


def _build_lora(options: TrainingOptions) -> None:
    from peft import LoraConfig

    lora = training_config.check(options, ()).lora
    targets = ["linear"] if lora["target_modules"] == ALL_LINEAR else lora["target_modules"]
    LoraConfig(**{**lora, "target_modules": targets}, task_type="CAUSAL_LM")


def _build_arguments(options: TrainingOptions, device: str) -> None:
    """Build the trainer's configuration, the optimizer and the whole schedule of the learning rate."""
    import torch
    from transformers import Trainer, get_scheduler

    arguments = _trainer_arguments(training_config.check(options, ()), device)
    layer = torch.nn.Linear(2, 2)
    optimizer_class, values = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer_class(layer.parameters(), **values)
    if arguments.optim_args and values == Trainer.get_optimizer_cls_and_kwargs(_without_args(arguments))[1]:
        raise ValueError(f"optim_args has no effect with optim {arguments.optim.value}")
    steps = options.max_steps if options.max_steps > 0 else NUM_STEPS

    def schedule(**values: Any) -> Any:
        optimizer = torch.optim.SGD(layer.parameters(), lr=arguments.learning_rate)
        warmup = arguments.get_warmup_steps(steps)
        return get_scheduler(arguments.lr_scheduler_type, optimizer, warmup, steps, scheduler_specific_kwargs=values)

    scheduler = schedule(**(arguments.lr_scheduler_kwargs or {}))
    for _ in range(min(steps, NUM_STEPS)):
        scheduler.optimizer.step()
        scheduler.step()
    if arguments.lr_scheduler_kwargs and _accepts_anything(schedule):
        raise ValueError(
            f"lr_scheduler_kwargs has no effect with lr_scheduler_type {arguments.lr_scheduler_type.value}"
        )


def _without_args(arguments: Any) -> Any:
    return dataclasses.replace(arguments, optim_args=None)


def _accepts_anything(schedule: Callable[..., Any]) -> bool:
    """Return True if a scheduler ignores its arguments: it accepts one that no scheduler has."""
    try:
        schedule(argotune=1)
    except TypeError:
        return False
    return True


def _trainer_arguments(config: TrainingConfig, device: str) -> Any:
    """Return the trainer's configuration; transformers accepts some arguments of GPUs only on a machine with one."""
    local = model.choose_device()
    arguments = dict(config.arguments)
    if device != local:
        for key in unsupported_arguments.GPU_ONLY:
            arguments.pop(key, None)
    rehearsed = dataclasses.replace(config, arguments=arguments)
    return training_config.trainer_config(rehearsed, Path(tempfile.gettempdir()) / "rehearsal", local, ROWS)


def _train(options: TrainingOptions, device: str) -> None:
    """Train the small model for two steps, on this machine's device."""
    config = training_config.check(options, ())
    local = model.choose_device()
    changed = {
        key: value
        for key, value in config.arguments.items()
        if key not in (*OF_THE_TOKENIZER, "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps")
    }
    if device != local:
        changed = {
            key: changed[key] for key in changed if key not in (*unsupported_arguments.GPU_ONLY, "optim", "optim_args")
        }
    changed |= {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    changed |= {"max_length": min(int(config.arguments["max_length"]), tiny_training.MAX_LENGTH)}
    lora = {key: value for key, value in config.lora.items() if key not in OF_THE_MODEL}
    lora |= {"r": tiny_training.RANK, "target_modules": ALL_LINEAR}
    config = dataclasses.replace(config, arguments=changed, lora=lora, by_epoch=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_config.trainer_config(config, Path(folder), local, ROWS, padding_free=True)
        arguments.use_liger_kernel = False  # steps/tune/liger.py checks it against the base model
        arguments.save_strategy = "no"
        tokenizer, base = tiny_training.make_tokenizer(), tiny_training.make_model(local)
        data = (
            dpo.dataset(tiny_training.pairs(ROWS))
            if config.objective == "dpo"
            else batching.dataset(tiny_training.rows(ROWS), changed)
        )
        trainer = training.new_trainer(base, tokenizer, data, arguments, config)
        _silence(trainer)
        trainer.train()


def _silence(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _complaint(rehearse: Rehearse, options: TrainingOptions) -> str | None:
    """Return the message of the library that rejects the settings; None if none does."""
    try:
        rehearse(options)
    except BadInput as error:
        return _one_line(error.message)
    except ImportError as error:
        return f"a package is not installed: {_one_line(error)}"
    except Exception as error:  # libraries raise all kinds of errors for a wrong argument
        return _one_line(error) or type(error).__name__
    return None


def _explain(rehearse: Rehearse, options: TrainingOptions, message: str) -> SettingError:
    """Find the setting that causes a message: the one without which it does not occur; those it names come first."""
    settings = [(section, key, value) for section in SECTIONS for key, value in getattr(options, section).items()]
    settings.sort(key=lambda setting: _position(message, *setting[1:]))
    for section, key, _ in settings:
        if _complaint(rehearse, _without(options, section, key)) != message:
            for name in SECTIONS:
                message = message.removeprefix(f"{name}: ")
            return SettingError(section, key, message, FIXES.get(key, f"change or remove {key}"))
    section = next((name for name in SECTIONS if message.startswith(name)), SECTIONS[-1])
    return SettingError(section, "", message.removeprefix(f"{section}: "), "change this setting of the training")


def _position(message: str, key: str, value: Any) -> int:
    """Return where a message first names a setting, a mapping also by one of its keys; its end if it does not."""
    names = [key, *map(str, value)] if isinstance(value, dict) else [key]
    return min((message.index(name) for name in names if name in message), default=len(message))


def _without(options: TrainingOptions, section: str, key: str) -> TrainingOptions:
    values = {name: value for name, value in getattr(options, section).items() if name != key}
    return options.model_copy(update={section: values})


def _one_line(error: Any) -> str:
    """Return the first paragraph of a message in one line, at most 300 characters."""
    text = " ".join(str(error).strip().split("\n\n")[0].split())
    return text if len(text) <= 300 else f"{text[:297]}..."
