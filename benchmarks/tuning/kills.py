"""Kill a training at random moments, again and again, and compare what it becomes with one that was left alone.

    python benchmarks/tuning/kills.py [KILLS] [SEED] [DTYPE]     # 20 kills in float32: about 5 minutes

A small random model on the processor. Every kill is SIGKILL, at a random time after a step was logged.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "steps")]

import trainable_model  # noqa: E402
from trainable_model import curve  # noqa: E402
from tuning import losses, start, with_rows  # noqa: E402


def main() -> None:
    """Run both, and print how far apart they are."""
    kills, seed, dtype = sys.argv[1:] + ["20", "1", "float32"][len(sys.argv) - 1 :]
    bf16 = str(dtype == "bfloat16").lower()
    flags = {"model_config": f'{{"dtype": "{dtype}"}}', "training_arguments": f'{{"bf16": {bf16}}}', "epochs": "9"}
    with tempfile.TemporaryDirectory() as folder:
        model = trainable_model.make_model(Path(folder) / "model")
        undisturbed = with_rows(Path(folder) / "undisturbed")
        start(undisturbed, model, **flags).communicate()
        work = with_rows(Path(folder) / "killed")
        died = _kill_again_and_again(work, model, flags, int(kills), random.Random(int(seed)))
        out, err = start(work, model, **flags).communicate()
        assert "tokens-per-second" in out, err
        gap = max(abs(a - b) for a, b in zip(losses(undisturbed), losses(work), strict=True))
        print(f"killed {died} times in {len(losses(work))} steps")
        print(f"loss curves differ by at most {gap:.1e}")
        print(f"weights differ by at most {_weights_apart(undisturbed, work):.1e}")
        if died < int(kills):
            raise SystemExit(f"it came to its end after {died} kills, not {kills}")


def _kill_again_and_again(work: Path, model: Path, flags: dict[str, str], kills: int, draw: random.Random) -> int:
    died = 0
    while died < kills:
        process = start(work, model, **flags)
        before = len(curve(work))
        # A step further each time, or two, so that there is something left to kill.
        while process.poll() is None and len(curve(work)) <= before + draw.choice([0, 0, 1]):
            time.sleep(0.005)
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break  # it came to its end first
        died += 1
    return died


def _weights_apart(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    first, second = (load_file(work / "adapter" / "adapter_model.safetensors") for work in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    main()
