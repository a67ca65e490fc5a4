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
    assert pod.server.azure.made == [], "an unavailable option is not requested"
    assert caught.value.exit_code == 4
    return caught.value.message


def test_quota_of_the_family(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 40, 48)]
    assert refusal(pod) == (
        f"1 x {A100} is not available:\n  {A100} (on demand): 24 vCPUs are required, and the quota "
        f"{FAMILY} of eastus has 8 left (40 of 48 in use)"
    )


def test_quota_counts_all_nodes(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 0, 24)]
    assert "48 vCPUs are required" in refusal(pod, count=2)


def test_quota_of_the_region_and_of_spot(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 490, 500), usage("lowPriorityCores", 0, 3), usage(FAMILY, 0, 48)]
    message = refusal(pod, spot=True)
    assert f"{A100} (spot): 24 vCPUs are required, and the quota lowPriorityCores of eastus has 3 left" in message
    assert f"{A100} (on demand): 24 vCPUs are required, and the quota cores of eastus has 10 left" in message


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"name": "Standard_Other"}, {}, "not offered in eastus"),
        ({"resourceType": "disks"}, {}, "not offered in eastus"),
        (
            {"restrictions": [{"type": "Location", "reasonCode": "NotAvailableForSubscription"}]},
            {},
            "not offered in eastus to this subscription (NotAvailableForSubscription)",
        ),
        (
            {"restrictions": [{"type": "Location", "reasonCode": "QuotaId"}]},
            {},
            "not offered in eastus to subscriptions of this type",
        ),
        ({}, {"zones": ["3"]}, "not offered in zone 3 of eastus (available: 1, 2)"),
        (
            {"restrictions": [{"type": "Zone", "reasonCode": "X", "restrictionInfo": {"zones": ["1"]}}]},
            {"zones": ["1"]},
            "not offered in zone 1 of eastus (available: 2)",
        ),
        ({}, {"gpus": 2}, "1 GPUs; the pods request 2"),
    ],
)
def test_option_that_is_not_offered(pod: Pod, changes: dict[str, object], more: dict[str, object], words: str) -> None:
    pod.server.azure.skus = [{**sku(A100, FAMILY, 24), **changes}]
    assert words in refusal(pod, **more)


def test_other_zones_of_a_restricted_zone_are_tried(pod: Pod) -> None:
    restricted = [{"type": "Zone", "reasonCode": "X", "restrictionInfo": {"zones": ["1"]}}]
    pod.server.azure.skus = [sku(A100, FAMILY, 24, restrictions=restricted)]
    pod.provision(zones=["1", "2"])
    assert pod.server.azure.made == [f"{A100} zone 2"]


def test_instance_type_without_spot_is_created_on_demand(pod: Pod) -> None:
    capabilities = [{"name": "vCPUs", "value": "24"}, {"name": "GPUs", "value": "1"}]
    capabilities += [{"name": "LowPriorityCapable", "value": "False"}]
    pod.server.azure.skus = [sku(A100, FAMILY, 24, capabilities=capabilities)]
    pod.provision(spot=True)
    assert pod.server.azure.made == [A100]


def test_instance_type_over_quota_is_skipped(pod: Pod) -> None:
    pod.server.azure.usages = [usage("cores", 0, 500), usage("standardNCADSA100v4Family", 48, 48)]
    assert A10 in pod.provision(fallback_instance_types=[A10]).summary
    assert pod.server.azure.made == [A10]


def test_quota_is_not_checked_without_permission(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.forbidden = "Microsoft.Compute"
    pod.provision()
    assert "quota not checked: no permission" in capsys.readouterr().out


def test_existing_pool_needs_no_quota(pod: Pod) -> None:
    pod.provision()
    pod.server.azure.usages = [usage("standardNCADSA100v4Family", 48, 48)]
    pod.server.faults.calls.clear()
    pod.provision()
    assert "GET usages" not in pod.server.faults.calls
