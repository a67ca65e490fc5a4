"""The rollout on a cluster: a Deployment of servers behind a Service, in the namespace of the run.

The service outlives the run, and the next run finds it by its name. Running servers hot-load other adapters of the
same base model; any other change is a rolling update. The current release stays live until the new one has answered,
and is restored if it does not. With ``canary``, both releases are live and split the requests until
``argotune promote`` or ``argotune rollback``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import KubernetesClient
from steps.models import adapter_compat
from steps.models.adapter import adapter_digest
from steps.oci import reference
from steps.rollout import (
    adapter_sources,
    answer_check,
    image_volumes,
    probability_check,
    server_access,
    service_group,
    service_manifests,
    service_release,
    service_update,
    service_workload,
)
from steps.rollout.pod_diagnosis import ImageVolumeFailed
from steps.rollout.question import ask_models
from steps.rollout.service_group import GroupKind
from steps.rollout.service_manifests import AUTOSCALERS, ROUTES, SCALED_OBJECTS, SERVICE_PORT
from steps.rollout.service_pod import VOLUMES, build_pod, user_port
from steps.rollout.service_release import CANARY, STABLE, Release, Releases
from steps.rollout.service_update import Rollout
from steps.rollout.settings import MAX_TOKENS, AdapterSource, Result, Settings
from steps.runtime import progress
from steps.runtime.errors import BadInput, StepError
from steps.runtime.pod import namespace_flag
from steps.serving import group_flags, server_command, serving_client
from steps.serving.desired_adapters import DesiredAdapter

OPTIONAL = {kind.plural: kind for kind in (AUTOSCALERS, SCALED_OBJECTS, ROUTES)}


def rollout(settings: Settings, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Deploy base model and adapters to the cluster and ask the question; for errors see ``steps.rollout.step``."""
    end = time.monotonic() + settings.deadline_seconds
    cluster = kubernetes_client.connect(sleep)
    server_access.keys_folder(settings)
    release = build_release(settings, service_group.choose_kind(cluster, settings))
    known = service_release.read_releases(cluster, settings.name)
    track = CANARY if settings.canary and known.current else STABLE
    if track == CANARY and known.current and known.current.group:
        message = f"pipeline.rollout.canary cannot be combined with live servers of {known.current.nodes} nodes"
        raise BadInput(message, "remove canary: the new servers replace the live ones")
    if settings.canary and track == STABLE:
        print("there is no release yet: the first one receives all requests", flush=True)
    scaled = settings.max_replicas > settings.replicas
    target = Rollout(cluster, settings.name, track, scaled and track == STABLE, end, sleep=sleep)
    progress.report(0, 3, f"service {settings.name}: {', '.join(release.models)}")
    optional = _apply_supporting_objects(cluster, settings, known, release)
    if track == CANARY:
        assert known.current
        replicas = canary_replicas(known.current.replicas, settings.canary, bool(settings.gateway))
        release = dataclasses.replace(release, replicas=replicas)
    current = known.canary if track == CANARY else known.current
    known = _record_attempt(target, known, release)
    served = _deploy(target, settings, release, current)
    progress.report(1, 3, f"{target.deployment} serves revision {served.revision}")
    try:
        address = _address(target, settings, served)
        question, answers = _ask(target, settings, served, address)
        agreement = _compare(target, settings, address)
        kind = _answering_server(target, settings, address, answers)
    except BaseException:
        service_update.rollback(target, current, served)
        raise
    known = dataclasses.replace(known, scaled=scaled, gateway=settings.gateway, objects=optional)
    _record(target, known, served, settings.canary)
    for model, answer in answers.items():
        print(f"--- {model}\n{answer}")
    print(f"--- compared with the evaluation\n{agreement}")
    endpoint = service_address(cluster, settings.name)
    progress.report(3, 3, f"endpoint: {endpoint}")
    names = [*(adapter.name for adapter in served.adapters), served.base_name]
    # The models of a custom pod are those that it lists.
    texts = [*answers.values()] or [""] if settings.template else [answers.get(name, "") for name in names]
    return Result(
        endpoint=endpoint,
        answer=texts[0],
        base_answer=texts[-1],
        server=kind,
        agreement=agreement,
        question=question,
    )


def build_release(settings: Settings, group: GroupKind = "") -> Release:
    """Return the release of the settings, with the digest of each adapter; report all problems together.

    Args:
        settings: Settings of the rollout.
        group: Kind of the object with the pods of several nodes.

    Raises:
        BadInput: An adapter is incompatible, or not available to the servers.
        StepError: A registry does not answer.
    """
    if settings.template:
        return Release(build_pod(settings, {}), [], "", settings.image_digest, settings.replicas).with_revision()
    user_arguments = server_command.normalize_arguments(settings.server_arguments)
    adapters, ranks, problems = [], [], []
    for source in adapter_sources.list_sources(settings):
        try:
            desired, folder = _desired_adapter(settings, source)
            adapter = adapter_compat.read(source.name, folder)
        except ValueError as error:
            problems.append(str(error))
            continue
        # This pod has no base weights; vLLM checks the shapes when it loads the adapter.
        problems += adapter_compat.problems(
            adapter, settings.model, Path("/nothing"), settings.runtime, user_arguments.get("max-lora-rank")
        )
        adapters.append(desired)
        ranks.append(adapter.rank)
    if problems:
        raise BadInput("; ".join(problems), "use adapters of this model that the servers can pull or mount")
    arguments: dict[str, Any] = server_command.lora_arguments(ranks) if settings.runtime == "vllm" else {}
    if settings.nodes > 1:
        arguments |= group_flags.parallel_arguments(user_arguments, settings.nodes, settings.gpus)
    elif settings.gpus > 1 and settings.runtime == "vllm":
        arguments["tensor-parallel-size"] = settings.gpus
    if settings.context_length:
        arguments["max-model-len"] = settings.context_length
    base_name = adapter_sources.base_name(settings)
    template = build_pod(settings, arguments | user_arguments)
    if not settings.hot_load:
        template = image_volumes.pin_adapters(template, adapters)
    release = Release(template, adapters, base_name, settings.image_digest, settings.replicas, settings.nodes, group)
    return dataclasses.replace(release, pod=service_group.join_nodes(template, settings.name, group)).with_revision()


def service_address(cluster: KubernetesClient, name: str) -> str:
    """Return the URL of the service within the cluster."""
    return f"http://{name}.{cluster.namespace}.svc:{SERVICE_PORT}"


def canary_replicas(stable: int, percent: int, weighted: bool) -> int:
    """Return the replicas for a share of the requests; without weights of a Gateway, their number makes the share."""
    needed = stable * percent / (100 - percent) if not weighted else stable * percent / 100
    return max(1, round(needed))


def _desired_adapter(settings: Settings, source: AdapterSource) -> tuple[DesiredAdapter, Path]:
    """Return an adapter as the servers get it, and a local folder with its files."""
    pushed = settings.image_reference if settings.image_reference[:4] not in ("", "oci:") else ""
    tuned = bool(source.path) and not Path(source.path).is_absolute()
    if tuned and pushed:
        # The local folder is on a volume that is deleted with the run.
        image = reference.parse(pushed)
        folder = adapter_sources.adapter_folder(settings, source)
        return DesiredAdapter(source.name, image.digest, image=image.name), folder
    if source.path and source.name not in settings.adapter_volumes:
        raise ValueError(
            f"adapter {source.name} was not pushed, so the servers cannot pull it: set output.image and push it"
        )
    if source.path:
        folder = adapter_sources.adapter_folder(settings, source)
        try:
            digest = adapter_digest(folder)
        except OSError as error:
            raise ValueError(f"adapter {source.name}: {error}") from None
        return DesiredAdapter(source.name, digest, path=f"{VOLUMES}/{source.name}"), folder
    from steps.oci.registry import read_annotations

    target = reference.parse(source.image)
    manifest = read_annotations(target)
    if manifest is None:
        raise ValueError(f"adapter {source.name}: image {source.image} not found")
    digest = manifest[0]
    folder = adapter_sources.adapter_folder(settings, AdapterSource(name=source.name, image=f"{target.name}@{digest}"))
    return DesiredAdapter(source.name, digest, image=target.name), folder


def _apply_supporting_objects(
    cluster: KubernetesClient, settings: Settings, known: Releases, release: Release
) -> list[str]:
    """Apply the objects next to the servers and delete those that are no longer needed; return the optional kinds."""
    live = known.current or release
    grouped = any(one.group for one in [*known.retained(), release])
    objects = service_manifests.supporting_objects(settings, live.group, grouped=grouped)
    for kind, body in objects:
        cluster.apply(kind, body)
    optional = [kind.plural for kind, _ in objects if kind.plural in OPTIONAL]
    if settings.gateway:
        optional.append(ROUTES.plural)
        percent = known.percent if known.canary else 0
        cluster.apply(ROUTES, service_manifests.route(settings.name, settings.gateway, percent))
    for plural in set(known.objects) - set(optional):
        service_workload.delete_if_present(cluster, OPTIONAL[plural], settings.name)
    return optional


def _record_attempt(target: Rollout, known: Releases, release: Release) -> Releases:
    """Record that a run creates objects of another kind, so that a later run deletes them if this one is killed."""
    live = known.current.group if known.current else ""
    if release.group == live or release.group in known.attempted:
        return known
    known = dataclasses.replace(known, attempted=[*known.attempted, release.group])
    service_release.write_releases(target.cluster, target.name, known)
    return known


def _deploy(target: Rollout, settings: Settings, release: Release, current: Release | None) -> Release:
    """Deploy a release, with image volumes if the settings allow and the cluster supports them."""
    if settings.hot_load:
        return service_update.deploy(target, release, current)
    mounted = image_volumes.mount_if_supported(
        target.cluster, settings.name, release, current, settings.registry_secrets
    )
    try:
        return service_update.deploy(target, mounted, current)
    except ImageVolumeFailed as error:
        # A node can be older than the API server, and can lack the credentials that the servers have.
        print(f"adapters: pulled by the servers, because the nodes cannot mount them: {error.message}", flush=True)
        return service_update.deploy(target, release, current)


def _address(target: Rollout, settings: Settings, served: Release) -> str:
    """Return the URL of the service, or of one pod of the canary."""
    if target.track != CANARY:
        return service_address(target.cluster, target.name)
    ready = service_update.ready_pods(target, served.revision)
    if not ready:
        raise StepError(
            f"no pod of {target.deployment} is ready any more",
            f"see kubectl get pods{namespace_flag(target.cluster.namespace)}, then run it again",
        )
    return service_update.pod_address(ready[0], user_port(settings.template) if settings.template else 5000)


def _ask(target: Rollout, settings: Settings, served: Release, address: str) -> tuple[str, dict[str, str]]:
    """Return the question and the answers of all models; nothing if a custom pod lists no models."""
    models = served.models
    if settings.template:
        try:
            models = serving_client.list_models(address, sleep=target.sleep)
        except StepError:
            print("the custom pod is ready but lists no models; skipping the question", flush=True)
            return "", {}
    question, answers = ask_models(
        settings,
        models,
        lambda model, text: serving_client.complete(
            address, model, text, MAX_TOKENS, target.remaining_seconds, target.sleep
        ),
    )
    progress.report(2, 3, f"question: {question}")
    return question, answers


def _compare(target: Rollout, settings: Settings, address: str) -> str:
    if settings.template:
        return "not compared: the pod is a custom one"
    num_top = probability_check.num_top(settings.server_arguments)
    return answer_check.compare(
        settings,
        lambda model, messages, tokens: serving_client.chat(
            address, model, messages, tokens, target.remaining_seconds, target.sleep, num_top
        ),
    )


def _answering_server(target: Rollout, settings: Settings, address: str, answers: dict[str, str]) -> str:
    """Return the server that answered, never one that was only requested."""
    if settings.template:
        return "own" if answers else ""
    return serving_client.get_server_kind(address, target.remaining_seconds, target.sleep)


def _record(target: Rollout, known: Releases, served: Release, percent: int) -> None:
    from steps.rollout import service_change

    if target.track == CANARY:
        service_change.record_releases(target, dataclasses.replace(known, canary=served, percent=percent))
    else:
        service_change.record_releases(target, service_change.replace_current(known, served))
