"""Check the settings of a training with the libraries that it uses, on a machine without a GPU.

It runs in tune's image, because the libraries are only there, and before nodes are created. A rejected setting ends
the run with exit code 2, which is never retried.
"""

from __future__ import annotations

from steps.dryrun.settings import Result, Settings
from steps.models import locations
from steps.models.model import choose_device, fetch_tokenizer, lora_targets, prepare_libraries
from steps.runtime.errors import BadInput, StepError
from steps.runtime.pod import is_pod
from steps.tune import rehearsal


def dryrun(settings: Settings) -> Result:
    """Train a small random model with the settings, for two steps.

    Raises:
        BadInput: A library rejects settings; the message lists all of them.
    """
    prepare_libraries()
    device = _device(settings)
    errors = [*rehearsal.find_errors(settings, device, lora_targets(settings.preset, settings.model))]
    if rehearsal.names_tokens(settings):
        errors += _check_tokens(settings)
    if errors:
        raise rehearsal.as_bad_input(errors)
    return Result(f"the libraries accept the settings of the training, for device {device}")


def _device(settings: Settings) -> str:
    """Return the device of the training: in a pod that of the plan, because this pod has no GPU."""
    return "cuda" if is_pod() and settings.gpus else choose_device()


def _check_tokens(settings: Settings) -> list[rehearsal.SettingError]:
    if locations.is_image(settings.model):
        print(f"the tokens of the training were not checked: tune copies {settings.model}", flush=True)
        return []
    try:
        tokenizer = fetch_tokenizer(settings.preset, settings.model, settings.revision)
    except BadInput:
        raise
    except StepError as error:
        print(f"the tokens of the training were not checked: {error.message}", flush=True)
        return []
    return rehearsal.find_unknown_tokens(settings, tokenizer)
