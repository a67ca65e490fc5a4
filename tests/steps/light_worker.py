"""A process of a group that trains nothing, and ends as its settings say."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from steps.runtime.errors import BadInput
from steps.runtime.options import Options
from steps.tune import process_group
from steps.tune.process_group import DistributedContext, OutOfMemory


class Settings(Options):
    work: Path
    fates: list[str]
    """Of each process."""


@dataclass(frozen=True)
class Result:
    oom_retries: int
    told: str


def work(given: Settings, group: DistributedContext) -> Result:
    told = group.on_rank_zero("told", lambda: f"by {group.rank}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (given.work / f"{group.oom_retries}-{group.rank}.pid").write_text(str(os.getpid()))
    match given.fates[group.rank]:
        case "bad input":
            raise BadInput("the loss is not a number", "lower it")
        case "loses another":
            raise RuntimeError("Connection closed by peer")
        case "is killed":
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        case "aborts":
            print("watchdog: a collective took too long", file=sys.stderr, flush=True)
            os.abort()
        case "is short of memory" if group.oom_retries < 2:
            raise OutOfMemory
        case "waits":
            time.sleep(3600)
    return Result(group.oom_retries, told)


if __name__ == "__main__":
    process_group.main(Settings, work, "light")
