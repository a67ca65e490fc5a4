"""Argo's retry strategy of a step: number of retries, and failures that are retried."""

from __future__ import annotations

from dataclasses import dataclass

from hera.workflows import RetryStrategy
from hera.workflows import models as m

from workflows.argo import exit_codes

# Argo passes these values as strings, and -1 for an exit code that it could not read.
POD_LOST = "lastRetry.status == 'Error'"
PREEMPTED = "asInt(lastRetry.exitCode) in [-1, 137, 143]"
# Also killed, but for exceeding the pod's memory limit or the step's timeout.
OWN_FAULT = "lastRetry.message matches 'OOMKilled|longer than'"
NOT_RETRYABLE = f"asInt(lastRetry.exitCode) in {list(exit_codes.NOT_RETRYABLE)}"


@dataclass(frozen=True)
class Retries:
    """Number of retries after failures of the step, and after lost or preempted pods.

    Argo counts all attempts alike: failures are retried among the first attempts only, preemptions up to the sum.
    """

    failures: int
    preemptions: int = 5

    @property
    def expression(self) -> str:
        """Argo's ``retryStrategy.expression``: true if another attempt can help."""
        return (
            f"{POD_LOST} || !({NOT_RETRYABLE}) && ({PREEMPTED} && !({OWN_FAULT}) || asInt(retries) < {self.failures})"
        )

    def strategy(self, *, on_gpu: bool) -> RetryStrategy:
        """Return Argo's retry strategy.

        It has no ``maxDuration``: that counts from the first attempt's start, so a long training would get no retries.
        """
        # A pod that waits for a GPU node needs no growing delay.
        backoff = m.Backoff(duration="10s", factor=None if on_gpu else m.IntOrString(root="2"))
        limit = str(self.failures + self.preemptions)
        return RetryStrategy(limit=limit, retry_policy="Always", expression=self.expression, backoff=backoff)
