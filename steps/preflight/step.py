"""Check everything that a run needs, before anything that costs is created.

Each check yields sentences for what passed or could not be checked, and errors; no error hides another.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from steps.models import locations
from steps.oci import reference
from steps.oci.secret_volume import secret_file
from steps.preflight.settings import Result, Settings
from steps.runtime import outcomes
from steps.runtime.errors import BadInput, StepError, combine_errors
from steps.runtime.imports import import_modules
from steps.runtime.outcomes import NotChecked, Outcomes
from steps.runtime.pod import is_pod, namespace_flag, pod_namespace
from steps.runtime.retry import RetryPolicy
from steps.serving import api_keys

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
    errors: list[StepError] = []
    import_modules(MODULES)
    with concurrent.futures.ThreadPoolExecutor(len(CHECKS)) as pool:
        for found in pool.map(lambda check: list(_run_check(check, settings)), CHECKS):
            for outcome in found:
                (errors if isinstance(outcome, StepError) else checked).append(outcome)  # type: ignore[arg-type]
    for line in checked:
        print(outcomes.format_line(line), flush=True)
    if errors:
        raise combine_errors(errors)
    return Result(outcomes.summarize(checked), [str(line) for line in checked])


def _run_check(check: Callable[[Settings], Outcomes], settings: Settings) -> Outcomes:
    try:
        yield from check(settings)
    except StepError as error:
        yield error


def _secrets(settings: Settings) -> Outcomes:
    """Check Secrets, which are mounted as optional: a pod that requires a missing one is pending without an error."""
    if _is_command(settings):
        for name in _secret_names(settings):
            yield NotChecked(f"Secret {name}", "argotune validate --cluster reads it")
        return
    if settings.access_secret:
        if os.environ.get("HF_TOKEN"):
            yield f"Secret {settings.access_secret} has HF_TOKEN"
        else:
            yield BadInput(
                f"Secret {settings.access_secret} not found, or it has no key HF_TOKEN",
                f"kubectl create secret generic {settings.access_secret}{namespace_flag()} --from-literal=HF_TOKEN=..."
                " (outside a cluster: export HF_TOKEN)",
            )
    keys = os.environ.get(api_keys.FOLDER_VARIABLE, "")
    if settings.api_keys_secret and keys:  # only the step has them mounted
        if api_keys.read_client_key(keys):
            yield f"Secret {settings.api_keys_secret} has API keys"
        else:
            yield BadInput(
                f"Secret {settings.api_keys_secret} not found, or it has no valid API key",
                api_keys.creation_fix(settings.api_keys_secret, pod_namespace()),
            )
    if not is_pod():
        return  # a local run can also use docker's configuration, which the registry checks
    model_config = os.environ.get(locations.CONFIG_VARIABLE)
    folders = [settings.pull_config, settings.adapter_config, model_config, os.environ.get("DOCKER_CONFIG")]
    mounted = [Path(folder) for folder in folders if folder]
    for names, folder in zip(_folder_secrets(settings), mounted, strict=False):
        for index, name in enumerate(names):
            if secret_file(folder, index):
                yield f"Secret {name} has credentials for a registry"
            else:
                yield BadInput(
                    f"Secret {name} not found, or it has no key .dockerconfigjson",
                    f"kubectl create secret docker-registry {name}{namespace_flag()} --docker-server=..."
                    " --docker-username=...",
                )


def _is_command(settings: Settings) -> bool:
    """Return True for the command, not the step: it has the user's environment, and no Secret."""
    return settings.in_cluster is not None and not is_pod()


def _folder_secrets(settings: Settings) -> list[list[str]]:
    """Return the names of the registry Secrets of each folder."""
    return [[names] if isinstance(names, str) else names for names in settings.registry_secrets]


def _secret_names(settings: Settings) -> list[str]:
    """Return the names of the Secrets that the run needs."""
    registry_secrets = [name for names in _folder_secrets(settings) for name in names]
    tracking = settings.tracking_secret if settings.report_to != "none" else ""
    names = (settings.access_secret, settings.api_keys_secret, tracking, *registry_secrets)
    return [name for name in dict.fromkeys(names) if name]


def _data(settings: Settings) -> Outcomes:
    from steps.preflight import data_checks

    yield from data_checks.check_urls(settings.urls, settings.pattern, allow_private=settings.allow_private_hosts)
    if settings.source:
        yield from data_checks.check_folder(settings.source, settings.pattern)
    if settings.data_image:
        yield from _check_pull(settings.data_image, settings.pull_config)
    for data in settings.inputs:
        yield from data_checks.check_urls(data.urls, data.pattern, allow_private=settings.allow_private_hosts)
        if data.source:
            yield from data_checks.check_folder(data.source, data.pattern)
        if data.image:
            yield from _check_pull(data.image, settings.pull_config)


def _model(settings: Settings) -> Outcomes:
    from steps.preflight import model_checks

    if locations.has_own_weights(settings.model):
        yield model_checks.check_own_weights(settings.model, settings.revision, has_access=settings.model_access)
        return
    yield from model_checks.check(settings.preset, settings.model, settings.revision)


def _adapters(settings: Settings) -> Outcomes:
    for image in settings.adapter_images:
        yield from _check_pull(image, settings.adapter_config)


def _check_pull(image: str, docker_config: Path | None) -> Outcomes:
    from steps.oci.registry_client import RegistryClient

    try:
        requested = reference.parse(image)
        if RegistryClient(requested, docker_config=docker_config, retry=RETRY).manifest_digest(
            requested.tag_or_digest
        ):
            yield f"{image} can be pulled"
        else:
            yield BadInput(f"{requested.registry} has no {image}", "check the name and the tag, or push it first")
    except StepError as error:
        yield error


def _output(settings: Settings) -> Outcomes:
    if settings.output:
        yield _check_writable(settings.output)
    if not settings.image or not settings.push:
        return
    from steps.oci.registry_client import RegistryClient

    target = reference.parse(settings.image)
    registry = RegistryClient(target, push=True, retry=RETRY)
    registry.try_upload()
    tag = target.tag or "latest"
    exists = registry.manifest_digest(tag)
    if exists and settings.immutable:
        yield BadInput(
            f"{target.name}:{tag} exists, and output.immutable is true",
            "use a new tag, or set output.immutable to false",
        )
    else:
        yield f"{target.name} accepts pushes" + (f"; the existing tag {tag} will be replaced" if exists else "")


def _check_writable(folder: Path) -> str | StepError:
    probe = folder / f".argotune-{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
    except OSError as error:
        return BadInput(
            f"the output volume is not writable: {error.strerror}", "check its access mode and the owner of its folder"
        )
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return "the output volume is writable"


def _tracking(settings: Settings) -> Outcomes:
    if settings.report_to != "none":
        from steps.preflight import tracking_checks

        yield from tracking_checks.check(
            settings.report_to, settings.tracking_uri, settings.tracking_secret, has_secret=not _is_command(settings)
        )


def _cluster(settings: Settings) -> Outcomes:
    in_cluster = is_pod() if settings.in_cluster is None else settings.in_cluster
    if in_cluster:
        from steps.preflight import cluster_checks

        yield from cluster_checks.check(settings)
    elif settings.in_cluster is False and not is_pod():
        yield NotChecked("quotas and volume claims of the cluster", "pass --cluster")


CHECKS: tuple[Callable[[Settings], Outcomes], ...] = (_secrets, _data, _model, _adapters, _output, _tracking, _cluster)
