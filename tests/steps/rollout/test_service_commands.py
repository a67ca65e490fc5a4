"""``argotune promote`` and ``argotune rollback`` against a cluster's API over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_server import KubernetesServer
from serving_cluster import NAMESPACE, Servers, serve_with_canary, served_images

from workflows.cli import main


@pytest.fixture
def served(cluster: KubernetesServer, tmp_path: Path) -> Iterator[Servers]:
    """A service ``helper`` with the image ``one``, and ``two`` in its canary."""
    servers = serve_with_canary(cluster, "helper", tmp_path / "pods")
    yield servers
    servers.close()


def test_promote_then_rollback_then_rollback(
    cluster: KubernetesServer, served: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served_images(cluster) == {"helper": "one", "helper-canary": "two"}
    assert main(["promote", "helper"]) == 0
    assert served_images(cluster) == {"helper": "two"}
    assert main(["rollback", "helper", "--namespace", NAMESPACE]) == 0
    assert served_images(cluster) == {"helper": "one"}
    assert main(["rollback", "helper"]) == 0
    assert served_images(cluster) == {"helper": "two"}
    assert "helper serves revision" in capsys.readouterr().out


def test_rollback_removes_a_canary(
    cluster: KubernetesServer, served: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "helper"]) == 0
    assert served_images(cluster) == {"helper": "one"}
    assert "the canary" in capsys.readouterr().out
    assert main(["rollback", "helper"]) == 2
    assert "has no previous release to roll back to" in capsys.readouterr().err


def test_errors(cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "missing"]) == 2
    err = capsys.readouterr().err
    assert "no argotune service missing in namespace argotune" in err
    assert "fix: run kubectl get services --selector argotune.dev/service --namespace argotune" in err
    assert main(["promote", "missing", "--deadline", "soon"]) == 2
    assert "--deadline" in capsys.readouterr().err


def test_the_namespace_is_that_of_the_site_profile(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.yaml").write_text("namespace: ml-team\n")
    monkeypatch.setenv("ARGOTUNE_SITE", str(tmp_path / "site.yaml"))
    monkeypatch.delenv("ARGO_NAMESPACE", raising=False)
    for command in ("promote", "rollback"):
        assert main([command, "missing"]) == 2
        assert "in namespace ml-team" in capsys.readouterr().err
