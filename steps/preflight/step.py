"""Checks of all that a run needs, before anything that costs is created.

Each check yields sentences for what passed or could not be checked, and errors; no error hides another.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from steps.oci import reference
from steps.oci.credentials import config_files
from steps.preflight.settings import Result, Settings
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError
from steps.runtime.retry import RetryPolicy

Found = Iterator[str | StepError]
RETRY = RetryPolicy(max_attempts=2, max_retry_after_seconds=120.0)
"""Attempts of a registry call: few, because the steps that need it retry longer."""

MODULES = (
    "urllib3.exceptions",
    "requests",
    "kubernetes.client",
    "kubernetes.config",
    "huggingface_hub.file_download",
    "huggingface_hub.utils",
    "steps.kubernetes.client",
    "steps.oci.registry_client",
    "steps.preflight.cluster_checks",
    "steps.preflight.data_checks",
    "steps.preflight.model_checks",
    "steps.preflight.tracking_checks",
    "steps.provision.aks_capacity",
)
"""Modules that several checks import, directly or through others."""


def preflight(settings: Settings) -> Result:
    """Run all checks, then report all results.

    Raises:
        BadInput: all errors, at least one of them for the user to fix.
        InsufficientCapacity: all errors are about quota or capacity.
        StepError: all errors are temporary, such as a server that does not respond.
    """
    checked: list[str] = []
    faults: list[StepError] = []
    _import_modules()
    with concurrent.futures.ThreadPoolExecutor(len(CHECKS)) as pool:
        for found in pool.map(lambda check: list(_finished(check, settings)), CHECKS):
            for item in found:
                (faults if isinstance(item, StepError) else checked).append(item)  # type: ignore[arg-type]
    for line in checked:
        print(f"ok: {line}", flush=True)
    if faults:
        raise together(faults)
    return Result(f"nothing speaks against this run ({len(checked)} checks)", checked)


def _import_modules() -> None:
    """Import what the checks use: threads that import the same packages at once can fail with ``_DeadlockError``."""
    for name in MODULES:
        # A package that is not installed is reported by the check that needs it.
        with suppress(ImportError):
            importlib.import_module(name)


def together(faults: Sequence[StepError]) -> StepError:
    """Return one error for all. One that no retry can fix sets the class, so that the run is not repeated."""
    if len(faults) == 1:
        return faults[0]
    kinds = (BadInput, InsufficientCapacity, StepError)
    kind = next(kind for kind in kinds if any(isinstance(fault, kind) for fault in faults))
    messages = [f"({number}) {fault.message}" for number, fault in enumerate(faults, 1)]
    fixes = [f"({number}) {fault.fix}" for number, fault in enumerate(faults, 1)]
    return kind(f"{len(faults)} faults, before anything was taken: {'; '.join(messages)}", "; ".join(fixes))


def _finished(check: Callable[[Settings], Found], settings: Settings) -> Found:
    try:
        yield from check(settings)
    except StepError as error:
        yield error


def _secrets(settings: Settings) -> Found:
    """Check Secrets; they are mounted as optional, since a pod without a required one hangs silently."""
    if settings.access_secret:
        if os.environ.get("HF_TOKEN"):
            yield f"Secret {settings.access_secret} has HF_TOKEN"
        else:
            yield BadInput(
                f"Secret {settings.access_secret} is not there, or has no key HF_TOKEN",
                f"kubectl create secret generic {settings.access_secret} --from-literal=HF_TOKEN=..."
                " (outside a cluster: export HF_TOKEN)",
            )
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return  # Outside, docker's own configuration will do too; the registry's answer decides.
    folders = [settings.pull_config, settings.adapter_config, os.environ.get("DOCKER_CONFIG")]
    mounted = [Path(folder) for folder in folders if folder]
    for name, folder in zip(settings.registry_secrets, mounted, strict=False):
        if any(file.is_file() for file in config_files(folder) if file.parent == folder):
            yield f"Secret {name} has credentials for a registry"
        else:
            yield BadInput(
                f"Secret {name} is not there, or has no key .dockerconfigjson",
                f"kubectl create secret docker-registry {name} --docker-server=... --docker-username=...",
            )


def _data(settings: Settings) -> Found:
    from steps.preflight import data_checks

    yield from data_checks.check_urls(settings.urls, allow_private=settings.allow_private_hosts)
    if settings.source:
        yield from data_checks.check_folder(settings.source)
    if settings.data_image:
        yield from _pulled(settings.data_image, settings.pull_config)


def _model(settings: Settings) -> Found:
    from steps.preflight import model_checks

    yield from model_checks.check(settings.preset, settings.model, settings.revision)


def _adapters(settings: Settings) -> Found:
    for image in settings.adapter_images:
        yield from _pulled(image, settings.adapter_config)


def _pulled(image: str, docker_config: Path | None) -> Found:
    from steps.oci.registry_client import RegistryClient

    try:
        requested = reference.parse(image)
        if RegistryClient(requested, docker_config=docker_config, retry=RETRY).manifest_digest(
            requested.tag_or_digest
        ):
            yield f"{image} may be pulled"
        else:
            yield BadInput(f"{requested.registry} has no {image}", "check the name and the tag, or push it first")
    except StepError as error:
        yield error


def _output(settings: Settings) -> Found:
    if settings.output:
        yield _writable(settings.output)
    if not settings.image or not settings.push:
        return
    from steps.oci.registry_client import RegistryClient

    target = reference.parse(settings.image)
    registry = RegistryClient(target, push=True, retry=RETRY)
    registry.try_upload()
    tag = target.tag or "latest"
    there = registry.manifest_digest(tag)
    if there and settings.immutable:
        yield BadInput(
            f"{target.name}:{tag} is there already, and is not to be changed",
            "give a new tag, or set output.immutable to false",
        )
    else:
        yield f"{target.name} may be pushed to" + (f"; {tag} is there and will be replaced" if there else "")


def _writable(folder: Path) -> str | StepError:
    trial = folder / f".argotune-{os.getpid()}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
    except OSError as error:
        return BadInput(
            f"the output volume can't be written: {error.strerror}", "see its access mode, and who owns its folder"
        )
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    return "the output volume can be written"


def _tracking(settings: Settings) -> Found:
    if settings.report_to != "none":
        from steps.preflight import tracking_checks

        yield from tracking_checks.check(settings.report_to, settings.tracking_uri, settings.tracking_secret)


def _cluster(settings: Settings) -> Found:
    inside = "KUBERNETES_SERVICE_HOST" in os.environ if settings.in_cluster is None else settings.in_cluster
    if inside:
        from steps.preflight import cluster_checks

        yield from cluster_checks.check(settings)


CHECKS: tuple[Callable[[Settings], Found], ...] = (_secrets, _data, _model, _adapters, _output, _tracking, _cluster)
