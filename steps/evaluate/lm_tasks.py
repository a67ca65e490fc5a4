"""Tasks of EleutherAI's lm-evaluation-harness: show whether the adapter lost abilities of the base model.

The harness evaluates the already loaded model with its own metrics. It is an optional dependency
(``argotune[lm-eval]``) and imported only inside functions.
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
"""Requests per batch; the harness keeps the logits of all their tokens."""
BOOTSTRAP_SAMPLES = 1000
"""Bootstrap samples for the standard error of metrics that are not means."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    filter: str
    """Filter applied to the answers before scoring, for example ``strict-match``; ``none`` if there is none."""
    value: float
    stderr: float | None
    samples: int
    higher_is_better: bool | None

    @property
    def name(self) -> str:
        """Task, metric and filter, for logs and reports."""
        return f"{self.task}, {self.metric}" + (f" ({self.filter})" if self.filter != "none" else "")


@dataclass(frozen=True)
class Tasks:
    """Loaded tasks and their data."""

    loaded: Any
    limit: int
    """Samples of each task; 0: all."""
    chat: bool
    """Apply the chat template to the requests."""

    def evaluate(self, model: Any, tokenizer: Any, seed: int) -> list[TaskScore]:
        """Return the metrics of all tasks. A group that has a metric replaces its tasks."""
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        for task in self.loaded["tasks"].values():
            task.set_fewshot_seed(seed)  # all models get the same examples
        output = evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE),
            self.loaded,
            limit=self.limit or None,
            bootstrap_iters=BOOTSTRAP_SAMPLES,
            log_samples=False,
            apply_chat_template=self.chat,
            fewshot_as_multiturn=self.chat,
        )
        results, groups = output["results"], output["group_subtasks"]
        grouped = {
            task for group, tasks in groups.items() if any(map(_is_metric, results.get(group, ()))) for task in tasks
        }
        return [
            score
            for task, metrics in results.items()
            if task not in grouped
            for score in _scores(task, metrics, output["higher_is_better"].get(task, {}))
        ]


def missing_package(tasks: Sequence[str]) -> str:
    """Return an error message if the tasks need a package that is not installed, else an empty string."""
    if not tasks or importlib.util.find_spec(PACKAGE) is not None:
        return ""
    return f"evaluation.tasks: the package {PACKAGE} is not installed"


def check(tasks: Sequence[str]) -> None:
    """Check, before training, that the evaluation will be able to run the tasks.

    Raises:
        BadInput: lm-eval is not installed, or a task is unknown.
    """
    if tasks:
        _manager(tasks)


def load(tasks: Sequence[str], rules: Mapping[str, float], limit: int, chat: bool) -> Tasks | None:
    """Return the tasks with their data; None if there are no tasks.

    Args:
        tasks: Names of tasks, or paths of their YAML files.
        rules: Minimum scores by ``TASK`` or ``TASK/METRIC``.
        limit: Samples of each task; 0: all.
        chat: Apply the chat template to the requests.

    Raises:
        BadInput: As ``check``; a task cannot run here, or a rule names an unknown metric.
        StepError: The data of a task cannot be downloaded.
    """
    if not tasks:
        return None
    manager = _manager(tasks)
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        loaded = manager.load(list(tasks))
    except ModuleNotFoundError as error:
        message = f"evaluation.tasks {', '.join(tasks)}: the package {error.name} is not installed"
        raise BadInput(message, f"pip install {error.name} where evaluate runs, or remove the task") from None
    except (ConnectionError, HfHubHTTPError, DatasetsError, OSError) as error:
        message = f"cannot download the data of {', '.join(tasks)}: {_first_line(error)}"
        raise StepError(message, "check that the model hub is reachable; HF_ENDPOINT sets a mirror") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{', '.join(tasks)}: {_first_line(error)}", "fix the task's YAML, or remove the task"
        ) from None
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        if getattr(task, "UNSAFE_CODE", False):
            raise BadInput(f"{task.task_name} executes code written by the model", "remove the task")
    _check_rules(rules, loaded)
    return Tasks(loaded, limit, chat)


def score_for_rule(name: str, scores: Sequence[TaskScore]) -> float | None:
    """Return the score of ``TASK`` (its first metric) or ``TASK/METRIC``; None if it was not measured."""
    return next((score.value for score in scores if name in (score.task, f"{score.task}/{score.metric}")), None)


def _manager(tasks: Sequence[str]) -> Any:
    """Return the harness's task manager after checking that it knows all tasks; a custom task is a YAML path."""
    if message := missing_package(tasks):
        raise BadInput(message, INSTALL)
    prepare_libraries()
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    available = set(manager.all_tasks)
    if unknown := [name for name in tasks if name not in available and not os.path.isfile(name)]:
        message = f"lm-eval has no task {', '.join(unknown)}, and no such file exists"
        raise BadInput(message, "list tasks with `lm-eval ls tasks`, or use the path of a custom task's YAML")
    return manager


def _check_rules(rules: Mapping[str, float], loaded: Any) -> None:
    errors = []
    for name in rules:
        task, _, metric = name.partition("/")
        known = loaded["tasks"].get(task)
        if known is None and task not in loaded.get("groups", {}):
            errors.append(f"{name}: {task} is not in tasks")
        elif known is not None:
            better = dict(known.higher_is_better())
            metric = metric or next(iter(better), "")
            if metric not in better:
                errors.append(f"{name}: metric must be one of {', '.join(better)}")
            elif better[metric] is False:
                errors.append(f"{name}: lower {metric} is better, so it cannot have a minimum")
    if errors:
        raise BadInput("min_task_scores: " + "; ".join(errors), "use TASK or TASK/METRIC of the tasks")


def _scores(task: str, metrics: Mapping[str, Any], better: Mapping[str, bool | None]) -> list[TaskScore]:
    scores = []
    for key, value in metrics.items():
        if not _is_metric(key) or isinstance(value, str):
            continue
        metric, _, filter_name = key.partition(",")
        stderr = metrics.get(f"{metric}_stderr,{filter_name}")
        scores.append(
            TaskScore(
                task,
                metric,
                filter_name,
                float(value),
                None if isinstance(stderr, str | None) else float(stderr),
                int(metrics.get("sample_len") or 0),
                better.get(metric),
            )
        )
    return scores


def _is_metric(key: str) -> bool:
    """Return True if a key of the harness's results is ``METRIC,FILTER``, and not a standard error."""
    return "," in key and not key.partition(",")[0].endswith("_stderr")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
