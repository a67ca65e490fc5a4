"""Fields that a platform team can set in a site profile, and their way into the plan."""

import pytest
from plan_samples import planned

from workflows.errors import InvalidInput


def test_accounts_identity_and_pool_come_from_the_site(tmp_path):
    profile = """\
serviceAccount: tuner
serviceAccounts: {package: pusher, rollout: deployer}
azureWorkloadIdentity: true
semaphore: {configMap: pools, key: a100}
"""
    plan = planned(tmp_path, profile)
    assert plan.service_account == "tuner"
    assert plan.service_accounts == {"package": "pusher", "rollout": "deployer"}
    assert plan.azure_workload_identity
    assert (plan.semaphore.config_map, plan.semaphore.key) == ("pools", "a100")
    assert plan.origin("serviceAccounts") == "site profile"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("serviceAccounts: {tun: x}\n", "serviceAccounts"),
        ("serviceAccounts: pusher\n", "serviceAccounts"),
        ("azureWorkloadIdentity: perhaps\n", "azureWorkloadIdentity"),
        ("semaphore: {pool: a100}\n", "semaphore.pool: unknown field"),
        ("tuning: {rank: 8}\n", "tuning.rank: unknown field"),
    ],
)
def test_invalid_site_profile_is_rejected(tmp_path, profile, words):
    with pytest.raises(InvalidInput, match=words):
        planned(tmp_path, profile)
