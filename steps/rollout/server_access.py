"""Access to a server, the API keys and rate limits of its clients, and its own access to the base model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from steps.data.locations import azure, s3
from steps.models import locations
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


def model_environment(settings: Settings, folder: str) -> list[dict[str, Any]]:
    """Return the variables by which a server's container reads an image or objects with the base model.

    Args:
        settings: Settings of the rollout.
        folder: Folder of the Secret for the image as the server sees it.
    """
    image = [{"name": locations.CONFIG_VARIABLE, "value": folder}] if settings.model_pull_secret else []
    keys = (*s3.ENVIRONMENT, *azure.ENVIRONMENT) if settings.model_secret else ()
    references = ({"name": settings.model_secret, "key": key, "optional": True} for key in keys)
    return [*image, *({"name": ref["key"], "valueFrom": {"secretKeyRef": ref}} for ref in references)]
