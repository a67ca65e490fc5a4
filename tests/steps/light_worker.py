"""A rank that trains nothing, and acts as its settings say."""

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
    actions: list[str]
    """Action of each rank."""


@dataclass(frozen=True)
class Result:
    oom_retries: int
    from_rank: int


def work(settings: Settings, group: DistributedContext) -> Result:
    from_rank = group.on_rank_zero("rank", lambda: group.rank)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (settings.work / f"{group.oom_retries}-{group.rank}.pid").write_text(str(os.getpid()))
    match settings.actions[group.rank]:
        case "bad input":
            raise BadInput("the loss is not finite", "lower the learning rate")
        case "lose connection":
            raise RuntimeError("Connection closed by peer")
        case "exit":
            os._exit(7)
        case "be killed":
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            print("watchdog: a collective took too long", file=sys.stderr, flush=True)
            os.abort()
        case "run out of memory" if group.oom_retries < 2:
            raise OutOfMemory
        case "wait":
            time.sleep(3600)
    return Result(group.oom_retries, from_rank)


if __name__ == "__main__":
    process_group.main(Settings, work, "light")
