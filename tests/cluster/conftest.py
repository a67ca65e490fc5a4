"""A real cluster with Argo Workflows, named by KUBECONFIG, and argotune's installation in a new namespace.

The images are those of ``build_images``. Every wait has a limit and ends by an event of the cluster.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from installation import install, uninstall
from real_cluster import Cluster
from registry_fixture import serve_registry
from workspaces import write_workspace

HERE = Path(__file__).parent
LONGEST = [
    HERE.parent / "lint_differential" / "test_lint_differential.py",  # needs no cluster: fills the waits of the others
    *(
        HERE / f"test_{name}.py"
        for name in ("cluster_page", "serving", "recovery", "several_nodes", "failures", "tuned_service")
    ),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and start the longest files first."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cluster")
    items.sort(key=lambda item: LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The kubeconfig of the cluster; without one, the test is skipped."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip('KUBECONFIG names no cluster (CONTRIBUTING.md, "Cluster tests")')
    for program in ("kubectl", "argo"):
        assert shutil.which(program), f"{program} is not on the PATH"
    return os.environ["KUBECONFIG"]


@pytest.fixture(scope="session")
def registry(kubeconfig: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry on this machine, as pods reach it."""
    assert shutil.which("docker-registry"), "docker-registry is not installed"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(("192.0.2.1", 9))  # sends nothing; selects the address of the default route
        host = route.getsockname()[0]
    with (
        serve_registry(tmp_path_factory.mktemp("registry"), host=host) as running,
        pytest.MonkeyPatch.context() as env,
    ):
        env.setenv("ARGOTUNE_INSECURE_REGISTRIES", running.address)
        yield running.address


@pytest.fixture(scope="session")
def cluster(kubeconfig: str, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """argotune's installation in a new namespace, which is deleted at the end."""
    installed = install(tmp_path_factory.mktemp("cluster"), kubeconfig, registry)
    yield installed
    uninstall(installed)


@pytest.fixture(scope="session")
def unlimited(cluster: Cluster) -> Cluster:
    """The installation with a site profile without a semaphore: several GPU pods run at the same time."""
    return cluster.with_site("unlimited", lambda profile: profile.update(semaphore={"key": ""}))


Workspace = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Return a function that writes a Workspace which tunes the small model for a few steps; fields can be changed."""
    return partial(write_workspace, tmp_path)


@pytest.fixture(scope="module")
def module_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """``workspace`` for a fixture that several tests share."""
    return partial(write_workspace, tmp_path_factory.mktemp("workspaces"))
