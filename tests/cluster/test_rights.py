"""Permissions of the accounts of argo/install, checked by a real API server."""

import itertools

import pytest
from real_cluster import Cluster

VERBS = ("get", "list", "watch", "create", "patch", "update", "delete")
ALLOWED = {
    "argotune": {("workflowtaskresults", "create"), ("workflowtaskresults", "patch")},
    "argotune-submitter": {
        *itertools.product(("workflows", "workflowtemplates", "cronworkflows"), ("create", "get", "list", "watch")),
        ("configmaps", "get"),  # tuning.config and inference.config, before a run is submitted
    },
}
RESOURCES = ("workflows", "workflowtemplates", "cronworkflows", "workflowtaskresults", "pods", "secrets", "configmaps")


@pytest.mark.parametrize("account", ALLOWED)
def test_an_account_may_do_no_more_than_its_work(cluster: Cluster, account: str):
    subject = f"system:serviceaccount:{cluster.namespace}:{account}"
    allowed = {
        (resource, verb)
        for resource, verb in itertools.product(RESOURCES, VERBS)
        if cluster.may(subject, verb, resource)
    }
    assert allowed == ALLOWED[account]


def test_a_submitter_cannot_stop_a_run(cluster: Cluster):
    waiting = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "waiting", "labels": {"app.kubernetes.io/managed-by": "argotune"}},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "suspend": {}}]},
    }
    cluster.apply(waiting)
    refused = cluster.as_account("argotune-submitter").argotune("stop", "--cluster", "waiting", exit_code=1)
    assert "is not allowed to change workflow waiting" in refused
    assert "Role argotune-operator" in refused
    cluster.kubectl("delete", "workflow", "waiting")
