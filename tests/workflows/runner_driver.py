"""Start or resume a run in a separate process, for tests that kill it: ``VERB FOLDER [DOCUMENT [GRACE]]``."""

import json
import sys
from pathlib import Path

from workflows import runner
from workflows.runner.control import Timing

if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2])
    timing = Timing(grace=float(sys.argv[4]) if len(sys.argv) > 4 else 5.0, poll=0.01)
    if verb == "start":
        outcome = runner.start(json.loads(Path(sys.argv[3]).read_text()), folder, name="killed", timing=timing)
    else:
        outcome = runner.resume(folder, timing=timing)
    print(outcome.phase, outcome.message)
    sys.exit(outcome.command_exit_code)
