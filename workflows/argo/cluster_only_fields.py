"""The fields of a document that concern only a cluster: accepted, and without effect on one machine.

What stands neither here nor in ``document.py`` is refused by name, so nothing in a document is ignored silently.
"""

from __future__ import annotations

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
    "CronSpec": {"concurrencyPolicy", "failedJobsHistoryLimit", "schedule", "schedules", "startingDeadlineSeconds"}
    | {"stopStrategy", "successfulJobsHistoryLimit", "suspend", "timezone", "when", "workflowMetadata"},
    "Template": _SCHEDULING
    | _IDENTITY
    | {"annotations", "archiveLocation", "metadata", "metrics", "pendingTimeout", "priorityClassName"}
    | {"resourceClaims", "synchronization"},
    "Container": {"image", "imagePullPolicy", "name", "ports", "resizePolicy", "resources", "securityContext"}
    | {"terminationMessagePath", "terminationMessagePolicy"},
    "Retry": {"affinity"},
    "OutputArtifact": {"archive", "artifactGC", "artifactory", "azure", "gcs", "hdfs", "http", "mode", "oss", "s3"},
    # A folder can't be made read-only for one process; the mount is taken as it is.
    "Mount": {"mountPropagation", "readOnly", "recursiveReadOnly"},
    "ClaimTemplate": {"apiVersion", "kind", "spec", "status"},
    "Claim": {"readOnly"},
    "Files": {"defaultMode"},
    "KeyToPath": {"mode"},
    "EmptyDir": {"medium", "sizeLimit"},
    "HostPath": {"type"},
}
"""For each class of ``document.py``, the fields that concern only a cluster."""

CLUSTER_VOLUMES = {"awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc"} | {
    "flexVolume", "gcePersistentDisk", "glusterfs", "image", "iscsi", "nfs", "projected", "rbd"
}  # fmt: skip
"""Kinds of volumes that only a cluster can mount; this machine needs to be given a folder for each."""
