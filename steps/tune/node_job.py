"""The Job with the pods of the other nodes: copies of the step's own pod, without what Argo adds to it.

A copy has what the compiler, the site profile and admission controllers set: image, GPUs, placement, credentials,
security. It mounts no claim that only one node can mount: other nodes get rows and checkpoints from rank 0, and fetch
the base model onto their own disk.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from steps.kubernetes import pod_policy
from steps.runtime import entrypoint
from steps.runtime.errors import BadInput
from steps.runtime.options import Options
from steps.tune import layout as layouts
from steps.tune.layout import Layout

Document = dict[str, Any]
CONTAINER = "main"
"""Argo's name of the container of a step."""
GROUP_LABEL = "argotune.dev/tune"
"""Label of the Jobs of a training, and of the pods of all its nodes but the first; the same for all attempts."""
FIRST = "first"
"""Value of this label for the pod of the first node."""
JOB_LABEL = "batch.kubernetes.io/job-name"
"""Set by Kubernetes."""
FINAL_CODES = [2, 3, 4, 5, 6]
"""Exit codes of errors that another attempt would repeat (docs/CLI.md)."""
TTL_SECONDS = 600
MAX_ARGUMENT_BYTES = 120 * 1024
"""Linux passes at most 128 KiB in one argument."""
POD_FIELDS = (
    *("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "securityContext", "imagePullSecrets"),
    *("runtimeClassName", "priorityClassName", "schedulerName", "serviceAccountName", "hostNetwork", "dnsPolicy"),
    *("dnsConfig", "hostAliases", "terminationGracePeriodSeconds"),
)
CONTAINER_FIELDS = ("image", "imagePullPolicy", "resources", "securityContext", "envFrom")
ARGO_PREFIXES = ("workflows.argoproj.io/",)
RUNTIME_PREFIXES = (
    *ARGO_PREFIXES,
    *("cni.projectcalico.org/", "k8s.v1.cni.cncf.io/network-status", "k8s.ovn.org/", "kubernetes.io/config."),
)
"""Annotations that describe one pod."""
ARGO_MOUNTS = ("/var/run/argo", "/argo")
SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def build_job(
    own: Document, name: str, group: str, settings: Options, layout: Layout, oom_retries: int, shared: Collection[str]
) -> Document:
    """Return the Job of an attempt, with one pod per node.

    Args:
        own: The pod of this step.
        name: Name of the Job.
        group: Value of ``GROUP_LABEL``.
        settings: Settings of the step.
        layout: Distribution of the ranks.
        oom_retries: Number of restarts due to lack of memory.
        shared: Claims that several nodes can mount.
    """
    metadata = own["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if not key.startswith(ARGO_PREFIXES)}
    labels[GROUP_LABEL] = group
    final = {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": FINAL_CODES}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "completionMode": "Indexed",
            "completions": layout.nodes - 1,
            "parallelism": layout.nodes - 1,
            # A single new pod cannot join the others, which have lost a rank: the step restarts all.
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [final]},
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {
                "metadata": {"labels": labels, "annotations": _annotations(metadata)},
                "spec": _pod_spec(own["spec"], settings, layout, oom_retries, shared),
            },
        },
    }


def claims(pod: Document) -> list[str]:
    """Return the names of the claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def arguments(settings: Options) -> list[str]:
    """Return the flags of settings that differ from their defaults.

    Raises:
        BadInput: A text is too long for an argument.
    """
    flags = entrypoint.flags(settings)
    for field, flag in flags.items():
        if len(flag.encode(errors="surrogatepass")) > MAX_ARGUMENT_BYTES:
            limit = f"{MAX_ARGUMENT_BYTES // 1024} KiB"
            raise BadInput(
                f"{field} is too long for the pods of several nodes ({limit})", "shorten it, or use one node"
            )
    return list(flags.values())


def _annotations(metadata: Document) -> Document:
    annotations = metadata.get("annotations") or {}
    return {key: value for key, value in annotations.items() if not key.startswith(RUNTIME_PREFIXES)}


def _pod_spec(
    spec: Document, settings: Options, layout: Layout, oom_retries: int, shared: Collection[str]
) -> Document:
    own = next(container for container in spec["containers"] if container["name"] == CONTAINER)
    mounts = [mount for mount in own.get("volumeMounts") or [] if not _is_of_argo(mount["mountPath"])]
    names = {mount["name"] for mount in mounts}
    parents = _parents(settings)
    work = {mount["name"] for mount in mounts if Path(mount["mountPath"]) in parents}
    volumes = [
        _volume(volume, keep=volume["name"] not in work, shared=shared)
        for volume in spec.get("volumes") or []
        if volume["name"] in names
    ]
    variables = [
        {"name": layouts.RENDEZVOUS, "value": f"{layout.host}:{layout.port}"},
        {"name": layouts.OOM_RETRIES, "value": str(oom_retries)},
    ]
    env = [variable for variable in own.get("env") or [] if not _is_env_of_step(variable["name"])]
    container = {
        "name": CONTAINER,
        **{field: own[field] for field in CONTAINER_FIELDS if field in own},
        "command": ["python", "-m", "steps.tune"],
        "args": [pod_policy.escape_references(word) for word in arguments(settings)],
        "env": [*env, *variables],
        "volumeMounts": mounts,
    }
    return {
        **{field: spec[field] for field in POD_FIELDS if field in spec},
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": volumes,
    }


def _parents(settings: Any) -> set[Path]:
    """Return the work directory and its parents, one of which is the mount path of the work volume."""
    return {settings.work, *settings.work.parents}


def _volume(volume: Document, *, keep: bool, shared: Collection[str]) -> Document:
    """Return a volume for another node: a directory on its disk, instead of a claim that it cannot mount."""
    claim = volume.get("persistentVolumeClaim")
    if claim is None or (keep and claim["claimName"] in shared):
        return volume
    return {"name": volume["name"], "emptyDir": {}}


def _is_of_argo(path: str) -> bool:
    return path == SERVICE_ACCOUNT_MOUNT or any(path == one or path.startswith(f"{one}/") for one in ARGO_MOUNTS)


def _is_env_of_step(name: str) -> bool:
    return name.startswith("ARGO_") or name == "ARGOTUNE_OUTPUTS"
