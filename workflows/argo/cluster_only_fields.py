"""Fields that only a cluster uses: the local runner accepts and ignores them.

A field that is neither here nor in ``workflow.py`` is an error, so that no field is ignored silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCHEDULING = {"affinity", "nodeSelector", "tolerations", "schedulerName", "hostAliases", "podResources"}
_IDENTITY = {"automountServiceAccountToken", "executor", "securityContext", "serviceAccountName"}

CLUSTER_ONLY: dict[str, set[str]] = {
    "Metadata": {"creationTimestamp", "finalizers", "generation", "managedFields", "ownerReferences"}
    | {"resourceVersion", "selfLink", "uid"},
    "Spec": _SCHEDULING
    | _IDENTITY
    | {"archiveLogs", "artifactGC", "artifactRepositoryRef", "dnsConfig", "dnsPolicy", "executorPlugins"}
    | {"hostNetwork", "imagePullSecrets", "metrics", "podDisruptionBudget", "podGC", "podMetadata"}
    | {"podPriorityClassName", "priority", "resourceClaims", "synchronization", "ttlStrategy", "volumeClaimGC"}
    | {"workflowMetadata"},
    "Template": _SCHEDULING
    | _IDENTITY
    | {"annotations", "archiveLocation", "metadata", "metrics", "pendingTimeout", "priorityClassName"}
    | {"resourceClaims", "synchronization"},
    "Container": {"image", "imagePullPolicy", "name", "ports", "resizePolicy", "resources", "securityContext"}
    | {"terminationMessagePath", "terminationMessagePolicy"},
    "Retry": {"affinity"},
    "InputArtifact": {"archive", "mode"},
    "OutputArtifact": {"archive", "artifactGC", "artifactory", "azure", "gcs", "hdfs", "http", "mode", "oss", "s3"},
    "Mount": {"mountPropagation", "recursiveReadOnly"},
    "ClaimTemplate": {"apiVersion", "kind", "spec", "status"},
    "Claim": {"readOnly"},
    "Files": {"defaultMode"},
    "KeyToPath": {"mode"},
    "EmptyDir": {"medium", "sizeLimit"},
    "HostPath": {"type"},
}
"""The fields to ignore, by class of ``workflow.py``."""

CLUSTER_VOLUMES = {"awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc"} | {
    "flexVolume", "gcePersistentDisk", "glusterfs", "image", "iscsi", "nfs", "projected", "rbd"
}  # fmt: skip
"""Volume types that only a cluster can mount: the local runner requires a directory for each."""


def drop_cluster_types(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Return a volume with the name of its type, as ``(cluster type)``, if only a cluster can mount that.

    A projected volume of Secrets and ConfigMaps is no such volume.
    """
    projected = volume.get("projected")
    sources = projected.get("sources") if isinstance(projected, dict) else None
    is_local = isinstance(sources, list) and all(
        isinstance(source, dict) and set(source) <= {"secret", "configMap"} for source in sources
    )
    types = CLUSTER_VOLUMES - ({"projected"} if is_local else set())
    return {"(cluster type)" if key in types else key: key if key in types else item for key, item in volume.items()}
