"""Access to a server: the API keys that its clients need, and their rate limits."""

from __future__ import annotations

import os
from pathlib import Path

from steps.rollout.settings import Settings
from steps.runtime.errors import BadInput
from steps.serving import api_keys, desired_adapters


def keys_folder(settings: Settings) -> str:
    """Return the folder with the keys in this process's environment; "" if the server requires none.

    Raises:
        BadInput: It has no valid key.
    """
    if not settings.api_keys_secret:
        return ""
    folder = os.environ.get(api_keys.FOLDER_VARIABLE, "")
    if not api_keys.read_client_key(folder):
        where = f"in {folder}" if folder else f"because {api_keys.FOLDER_VARIABLE} is not set"
        message = f"api-keys-secret: no API key of Secret {settings.api_keys_secret} found {where}"
        raise BadInput(message, api_keys.creation_fix(settings.api_keys_secret))
    return str(Path(folder).absolute())


def environment(settings: Settings, folder: str) -> dict[str, str]:
    """Return the variables of a server with its keys and limits; "" for those that are not set.

    Args:
        settings: Settings of the rollout.
        folder: Folder of the keys as the server sees it.
    """
    limits = {
        desired_adapters.REQUESTS_VARIABLE: settings.requests_per_minute,
        desired_adapters.TOKENS_VARIABLE: settings.tokens_per_minute,
    }
    keys = {api_keys.FOLDER_VARIABLE: folder if settings.api_keys_secret else ""}
    return keys | {name: str(limit or "") for name, limit in limits.items()}
