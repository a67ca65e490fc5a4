"""argo/install, the compiled files of argo/, and the rights of each account, on a real API server."""

from pathlib import Path

import pytest
from real_cluster import ROOT, Cluster

GOLDENS = sorted(file for file in (ROOT / "argo").glob("*.yaml"))


def test_the_installation_has_what_pods_need(cluster: Cluster):
    accounts = {account["metadata"]["name"] for account in cluster.get("serviceaccounts")["items"]}
    assert {"argotune", "argotune-provision", "argotune-rollout", "argotune-submitter"} <= accounts
    namespace = cluster.get("namespace", cluster.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("file", GOLDENS, ids=lambda file: file.stem)
def test_compiled_files_pass_argo_and_the_api_server(cluster: Cluster, file: Path):
    cluster.argo("lint", "--offline", str(file))
    cluster.kubectl("create", "--dry-run=server", "--filename", str(file))
