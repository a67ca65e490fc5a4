"""Access reviews: the API server's answer to what an account is allowed to do, without doing it."""

from __future__ import annotations

from steps.kubernetes.client import Document, Kind, KubernetesClient

OWN_REVIEWS = Kind("authorization.k8s.io/v1", "selfsubjectaccessreviews", cluster_wide=True)
"""Every account can create these by default (ClusterRole system:basic-user)."""
REVIEWS = Kind("authorization.k8s.io/v1", "subjectaccessreviews", cluster_wide=True)


def is_allowed(cluster: KubernetesClient, verb: str, kind: Kind, namespace: str = "", user: str = "") -> bool:
    """Return True if an account has a permission in a namespace.

    Args:
        cluster: the cluster.
        verb: ``create``, ``list`` and so on.
        kind: the kind of the objects.
        namespace: namespace of the objects; default: that of the client.
        user: name of the account; default: the caller.

    Raises:
        Forbidden: the caller cannot create reviews.
        BadInput, StepError: the API server does not respond, or rejects the credentials.
    """
    attributes = {"group": kind.api_version.rpartition("/")[0], "resource": kind.plural, "verb": verb}
    spec: Document = {"resourceAttributes": attributes | {"namespace": namespace or cluster.namespace}}
    review_kind, name = (REVIEWS, "SubjectAccessReview") if user else (OWN_REVIEWS, "SelfSubjectAccessReview")
    if user:
        spec["user"] = user
    review = {"apiVersion": review_kind.api_version, "kind": name, "metadata": {}, "spec": spec}
    return bool((cluster.create(review_kind, review).get("status") or {}).get("allowed"))
