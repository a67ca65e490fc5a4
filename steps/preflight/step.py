"""Pre-flight: all that a run will need and that can be asked for nothing, before anything is taken that costs.

Each check gives sentences about what is fine or could not be asked, and faults; no fault hides another.
"""

from __future__ import annotations

import concurrent.futures
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
"""Of calls to a registry: few, because the steps that need it retry longer."""


def preflight(given: Settings) -> Result:
    """Ask everything, then tell everything.

    Raises:
        BadInput: faults that somebody must mend, all that were found.
        InsufficientCapacity: the only faults are of quota or capacity.
        StepError: the only faults may pass: something does not answer.
    """
    checked: list[str] = []
    faults: list[StepError] = []
    with concurrent.futures.ThreadPoolExecutor(len(CHECKS)) as pool:
        for found in pool.map(lambda check: list(_finished(check, given)), CHECKS):
            for item in found:
                (faults if isinstance(item, StepError) else checked).append(item)  # type: ignore[arg-type]
    for line in checked:
        print(f"ok: {line}", flush=True)
    if faults:
        raise together(faults)
    return Result(f"nothing speaks against this run ({len(checked)} checks)", checked)


def together(faults: Sequence[StepError]) -> StepError:
    """One error that tells all; one that no retry mends decides, or the run would repeat what cannot succeed."""
    if len(faults) == 1:
        return faults[0]
    kinds = (BadInput, InsufficientCapacity, StepError)
    kind = next(kind for kind in kinds if any(isinstance(fault, kind) for fault in faults))
    told = [f"({number}) {fault.message}" for number, fault in enumerate(faults, 1)]
    fixes = [f"({number}) {fault.fix}" for number, fault in enumerate(faults, 1)]
    return kind(f"{len(faults)} faults, before anything was taken: {'; '.join(told)}", "; ".join(fixes))


def _finished(check: Callable[[Settings], Found], given: Settings) -> Found:
    try:
        yield from check(given)
    except StepError as error:
        yield error


def _secrets(given: Settings) -> Found:
    """Secrets are mounted as optional, since a pod that lacks one hangs without a word."""
    if given.access_secret:
        if os.environ.get("HF_TOKEN"):
            yield f"Secret {given.access_secret} has HF_TOKEN"
        else:
            yield BadInput(
                f"Secret {given.access_secret} is not there, or has no key HF_TOKEN",
                f"kubectl create secret generic {given.access_secret} --from-literal=HF_TOKEN=... (outside a cluster:"
                " export HF_TOKEN)",
            )
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return  # Outside, docker's own configuration will do too; the registry's answer decides.
    folders = [given.pull_config, given.adapter_config, os.environ.get("DOCKER_CONFIG")]
    mounted = [Path(folder) for folder in folders if folder]
    for name, folder in zip(given.registry_secrets, mounted, strict=False):
        if any(file.is_file() for file in config_files(folder) if file.parent == folder):
            yield f"Secret {name} has credentials for a registry"
        else:
            yield BadInput(
                f"Secret {name} is not there, or has no key .dockerconfigjson",
                f"kubectl create secret docker-registry {name} --docker-server=... --docker-username=...",
            )


def _data(given: Settings) -> Found:
    from steps.preflight import data_checks

    yield from data_checks.check_urls(given.urls, allow_private=given.allow_private_hosts)
    if given.source:
        yield from data_checks.check_folder(given.source)
    if given.data_image:
        yield from _pulled(given.data_image, given.pull_config)


def _model(given: Settings) -> Found:
    from steps.preflight import model_checks

    yield from model_checks.check(given.preset, given.model, given.revision)


def _adapters(given: Settings) -> Found:
    for image in given.adapter_images:
        yield from _pulled(image, given.adapter_config)


def _pulled(image: str, docker_config: Path | None) -> Found:
    from steps.oci.registry_client import RegistryClient

    try:
        wanted = reference.parse(image)
        if RegistryClient(wanted, docker_config=docker_config, retry=RETRY).manifest_digest(wanted.pulled):
            yield f"{image} may be pulled"
        else:
            yield BadInput(f"{wanted.registry} has no {image}", "check the name and the tag, or push it first")
    except StepError as error:
        yield error


def _output(given: Settings) -> Found:
    if given.output:
        yield _writable(given.output)
    if not given.image or not given.push:
        return
    from steps.oci.registry_client import RegistryClient

    target = reference.parse(given.image)
    registry = RegistryClient(target, push=True, retry=RETRY)
    registry.try_upload()
    tag = target.tag or "latest"
    there = registry.manifest_digest(tag)
    if there and given.immutable:
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


def _tracking(given: Settings) -> Found:
    if given.report_to != "none":
        from steps.preflight import tracking_checks

        yield from tracking_checks.check(given.report_to, given.tracking_uri, given.tracking_secret)


def _cluster(given: Settings) -> Found:
    inside = "KUBERNETES_SERVICE_HOST" in os.environ if given.in_cluster is None else given.in_cluster
    if inside:
        from steps.preflight import cluster_checks

        yield from cluster_checks.check(given)


CHECKS: tuple[Callable[[Settings], Found], ...] = (_secrets, _data, _model, _adapters, _output, _tracking, _cluster)
