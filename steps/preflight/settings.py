"""Settings and result of the preflight step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from steps.data.locations.url_list import Urls
from steps.download.settings import NamedInput
from steps.provision import settings as provision_settings
from steps.runtime.gpu_time import PARAMETER, BudgetOptions
from steps.runtime.options import OptionalFolder
from steps.tune.settings import NodeJobOptions, SubmittedOptions, TrackingOptions, TrackingUri


class Settings(provision_settings.Settings, TrackingOptions, SubmittedOptions, NodeJobOptions, BudgetOptions):
    """Check that everything a run needs is available, before anything is created."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {
        **SubmittedOptions.PARAMETERS,
        "urls": "data-urls",
        "image": "image",
        "push": "push",
        "budget_hours": PARAMETER,
    }

    urls: Urls = []
    """Locations of data files: https, hf, s3, gs, abfss or az."""
    allow_private_hosts: bool = False
    """Allow addresses of this machine and of private networks."""
    pattern: str = ""
    """Glob pattern of the files in folders."""
    source: OptionalFolder = None
    """Folder with data files (a mounted volume), instead of urls."""
    inputs: list[NamedInput] = []
    """JSON list of further inputs (`pipeline.data.inputs`)."""
    data_image: str = ""
    """OCI image with data files, instead of urls."""
    pull_config: OptionalFolder = None
    """Folder with docker's config.json for it; empty: ``DOCKER_CONFIG``."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Base model: id on the hub, or a folder; by default the preset's."""
    revision: str = ""
    """Revision of the base model."""
    model_access: bool = True
    """This step has the credentials of the base model; false: a Secret of the data takes their place."""
    image: str = ""
    """Image reference to push to."""
    push: bool = True
    """Push the image."""
    immutable: bool = False
    """Require a new tag."""
    output: OptionalFolder = None
    """Folder for the adapter (a mounted volume)."""
    adapter_images: list[str] = []
    """Images of adapters to serve."""
    adapter_config: OptionalFolder = None
    """Folder with docker's config.json for them; empty: ``DOCKER_CONFIG``."""
    access_secret: str = ""
    """Secret with the key ``HF_TOKEN``."""
    api_keys_secret: str = ""
    """Secret with the API keys of the served model."""
    registry_secrets: list[str | list[str]] = []
    """Names of the Secrets that the folders above are mounted from, and ``DOCKER_CONFIG``'s; a list for several in
    one folder."""
    storage_class: str = ""
    """Class of the work volume; empty: the cluster's default."""
    claims: list[str] = []
    """Required PersistentVolumeClaims."""
    tracking_uri: TrackingUri = ""
    """URL of the tracking server; empty: from the environment."""
    tracking_secret: str = ""
    """Secret with the variables of the tracking tool."""
    in_cluster: bool | None = None
    """Check the cluster and its cloud too; default: only in a pod."""

    @classmethod
    def check_texts(cls, texts: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return an error if an image without a name would be pushed."""
        if texts.get("push", "").lower() == "true" and not texts.get("image", "").strip():
            return [("image", "is required to push the adapter: set an image reference, or push=false")]
        return []


@dataclass(frozen=True)
class Result:
    """Result of the checks."""

    summary: str
    """One-sentence summary."""
    checked: list[str]
    """Passed checks, and those that could not run."""
