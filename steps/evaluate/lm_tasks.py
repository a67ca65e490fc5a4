"""Tasks of EleutherAI's lm-evaluation-harness in the evaluation: what the base can do, and the adapter may have lost.

The harness asks the model that is loaded already, and computes its own metrics. It is imported where it is used, since
it is installed where somebody wants it (``argotune[lm-eval]``).
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.models.model import prepare_libraries
from steps.runtime.errors import BadInput, StepError

PACKAGE = "lm_eval"
INSTALL = "pip install 'argotune[lm-eval]' where tune and evaluate run"
BATCH_SIZE = 4
"""Rows asked together; the harness keeps the logits of all their tokens."""
RESAMPLED = 1000
"""Bootstrap samples for the standard error of metrics that are no means."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    filter: str
    """What was taken out of the answers before they were judged (``strict-match``, say); ``none`` for nothing."""
    value: float
    stderr: float | None
    samples: int
    higher_is_better: bool | None

    @property
    def name(self) -> str:
        """For people: task, metric and filter."""
        return f"{self.task}, {self.metric}" + (f" ({self.filter})" if self.filter != "none" else "")


@dataclass(frozen=True)
class Tasks:
    """Tasks with their data, ready to be asked."""

    loaded: Any
    limit: int
    """Samples of each task; 0: all."""
    chat: bool
    """Whether they are asked in the chat template."""

    def ask(self, model: Any, tokenizer: Any, seed: int) -> list[TaskScore]:
        """The metrics of all tasks. A group with a metric of its own stands for its tasks."""
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        for task in self.loaded["tasks"].values():
            task.set_fewshot_seed(seed)  # so that each model sees the same examples
        found = evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE),
            self.loaded,
            limit=self.limit or None,
            bootstrap_iters=RESAMPLED,
            log_samples=False,
            apply_chat_template=self.chat,
            fewshot_as_multiturn=self.chat,
        )
        results, groups = found["results"], found["group_subtasks"]
        within = {
            task for group, tasks in groups.items() if any(map(_is_metric, results.get(group, ()))) for task in tasks
        }
        return [
            score
            for task, told in results.items()
            if task not in within
            for score in _scores(task, told, found["higher_is_better"].get(task, {}))
        ]


def faults(tasks: Sequence[str]) -> str:
    """What a process lacks to ask the tasks; empty when nothing. Imports nothing."""
    if not tasks or importlib.util.find_spec(PACKAGE) is not None:
        return ""
    return f"tasks of lm-eval are asked, and the package {PACKAGE} is not installed"


def check(tasks: Sequence[str]) -> None:
    """Look, before anything is trained, whether the tasks can be asked afterwards.

    Raises:
        BadInput: the package is not installed, or it has no such task.
    """
    if tasks:
        _manager(tasks)


def load(tasks: Sequence[str], rules: Mapping[str, float], limit: int, chat: bool) -> Tasks | None:
    """Get the tasks and their data; None where there are none.

    Raises:
        BadInput: as ``check``; a task that can't be asked here, or a rule for what is not measured.
        StepError: the data of a task can't be had.
    """
    if not tasks:
        return None
    manager = _manager(tasks)
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        loaded = manager.load(list(tasks))
    except ModuleNotFoundError as error:
        what = f"a task of {', '.join(tasks)} needs {error.name}, which is not installed"
        raise BadInput(what, f"pip install {error.name} where evaluate runs, or leave the task out") from None
    except (ConnectionError, HfHubHTTPError, DatasetsError, OSError) as error:
        what = f"the data of {', '.join(tasks)} can't be had: {_first_line(error)}"
        raise StepError(what, "see that the model hub can be reached from here; HF_ENDPOINT names a mirror") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{', '.join(tasks)}: {_first_line(error)}", "leave the task out, or mend its YAML") from None
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        if getattr(task, "UNSAFE_CODE", False):
            raise BadInput(f"{task.task_name} runs what the model writes", "leave it out")
    _check_rules(rules, loaded)
    return Tasks(loaded, limit, chat)


def of_rule(name: str, scores: Sequence[TaskScore]) -> float | None:
    """What a rule for ``TASK`` (its first metric) or ``TASK/METRIC`` goes by; None where it was not measured."""
    return next((score.value for score in scores if name in (score.task, f"{score.task}/{score.metric}")), None)


def _manager(tasks: Sequence[str]) -> Any:
    """The harness's manager of tasks, which knows all of these; one of the user's own is a path to its YAML."""
    if what := faults(tasks):
        raise BadInput(what, INSTALL)
    prepare_libraries()
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    there = set(manager.all_tasks)
    if missing := [name for name in tasks if name not in there and not os.path.isfile(name)]:
        what = f"lm-eval has no task {', '.join(missing)}, and there is no such file"
        raise BadInput(what, "lm-eval ls tasks lists them; a task of your own is the path of its YAML")
    return manager


def _check_rules(rules: Mapping[str, float], loaded: Any) -> None:
    wrong = []
    for name in rules:
        task, _, metric = name.partition("/")
        known = loaded["tasks"].get(task)
        if known is None and task not in loaded.get("groups", {}):
            wrong.append(f"{name}: {task} is not among the tasks")
        elif known is not None:
            better = dict(known.higher_is_better())
            metric = metric or next(iter(better), "")
            if metric not in better:
                wrong.append(f"{name}: {task} measures {', '.join(better)}")
            elif better[metric] is False:
                wrong.append(f"{name}: of {metric}, lower is better")
    if wrong:
        raise BadInput("min_task_scores can't be held: " + "; ".join(wrong), "write TASK or TASK/METRIC of the tasks")


def _scores(task: str, told: Mapping[str, Any], better: Mapping[str, bool | None]) -> list[TaskScore]:
    found = []
    for key, value in told.items():
        if not _is_metric(key) or isinstance(value, str):
            continue
        metric, _, taken = key.partition(",")
        stderr = told.get(f"{metric}_stderr,{taken}")
        found.append(
            TaskScore(
                task,
                metric,
                taken,
                float(value),
                None if isinstance(stderr, str | None) else float(stderr),
                int(told.get("sample_len") or 0),
                better.get(metric),
            )
        )
    return found


def _is_metric(key: str) -> bool:
    """Whether a key of the harness's results is ``METRIC,FILTER``, and no standard error."""
    return "," in key and not key.partition(",")[0].endswith("_stderr")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
