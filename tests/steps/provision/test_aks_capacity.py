"""Instance types and quotas are checked before a pool is created; each rejected option has a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arm_fixture import Pod, serve_pod
from arm_server import A10, A100, sku, usage

from steps.runtime.errors import InsufficientCapacity

FAMILY = "StandardNCADSA100v4Family"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


def refusal(pod: Pod, **more: object) -> str:
    with pytest.raises(InsufficientCapacity) as caught:
        pod.provision(**more)
    assert pod.server.azure.made == [], "nothing is asked for that is unavailable"
    assert caught.value.exit_code == 4
    return caught.value.message


def test_quota_of_the_family(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 40, 48)]
    assert refusal(pod) == (
        f"no GPU nodes can be had for 1 x {A100}:\n  {A100} (on demand): 24 vCPUs are needed, and the quota "
        f"{FAMILY} of eastus has 8 left (40 of 48 in use)"
    )


def test_quota_counts_all_nodes(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 0, 24)]
    assert "48 vCPUs are needed" in refusal(pod, count=2)


def test_quota_of_the_region_and_of_spot(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 490, 500), usage("lowPriorityCores", 0, 3), usage(FAMILY, 0, 48)]
    message = refusal(pod, spot=True)
    assert f"{A100} (spot): 24 vCPUs are needed, and the quota lowPriorityCores of eastus has 3 left" in message
    assert f"{A100} (on demand): 24 vCPUs are needed, and the quota cores of eastus has 10 left" in message


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"name": "Standard_Other"}, {}, "eastus does not offer it"),
        ({"resourceType": "disks"}, {}, "eastus does not offer it"),
        (
            {"restrictions": [{"type": "Location", "reasonCode": "NotAvailableForSubscription"}]},
            {},
            "eastus does not offer it to this subscription (NotAvailableForSubscription)",
        ),
        (
            {"restrictions": [{"type": "Location", "reasonCode": "QuotaId"}]},
            {},
            "eastus does not offer it to subscriptions of this kind",
        ),
        ({}, {"zones": ["3"]}, "eastus does not offer it in zone 3; it is in 1, 2"),
        (
            {"restrictions": [{"type": "Zone", "reasonCode": "X", "restrictionInfo": {"zones": ["1"]}}]},
            {"zones": ["1"]},
            "eastus does not offer it in zone 1; it is in 2",
        ),
        ({}, {"gpus": 2}, "it has 1 GPUs; the pods ask for 2"),
    ],
)
def test_what_is_offered(pod: Pod, changes: dict[str, object], more: dict[str, object], words: str) -> None:
    pod.server.azure.skus = [{**sku(A100, FAMILY, 24), **changes}]
    assert words in refusal(pod, **more)


def test_a_zone_that_is_restricted_does_not_bar_the_region(pod: Pod) -> None:
    restricted = [{"type": "Zone", "reasonCode": "X", "restrictionInfo": {"zones": ["1"]}}]
    pod.server.azure.skus = [sku(A100, FAMILY, 24, restrictions=restricted)]
    pod.provision(zones=["1", "2"])
    assert pod.server.azure.made == [f"{A100} zone 2"]


def test_a_size_without_spot_is_taken_on_demand(pod: Pod) -> None:
    capabilities = [{"name": "vCPUs", "value": "24"}, {"name": "GPUs", "value": "1"}]
    capabilities += [{"name": "LowPriorityCapable", "value": "False"}]
    pod.server.azure.skus = [sku(A100, FAMILY, 24, capabilities=capabilities)]
    pod.provision(spot=True)
    assert pod.server.azure.made == [A100]


def test_a_size_over_quota_is_passed_over(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 48, 48)]
    assert A10 in pod.provision(fallback_instance_types=[A10]).summary
    assert pod.server.azure.made == [A10]


def test_who_may_not_read_quotas_tries_without(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.forbidden = "Microsoft.Compute"
    pod.provision()
    assert "quota not checked: no permission" in capsys.readouterr().out


def test_a_pool_that_is_there_needs_no_quota(pod: Pod) -> None:
    pod.provision()
    pod.server.azure.usages = [usage("standardNCADSA100v4Family", 48, 48)]
    pod.server.faults.calls.clear()
    pod.provision()
    assert "GET usages" not in pod.server.faults.calls
