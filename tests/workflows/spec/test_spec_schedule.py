"""``pipeline.schedule``, ``approval`` and ``timeLimit``: what is taken, and what each broken rule says at its line."""

import pytest
from workspace_sample import GOOD, INFERENCE, PIPELINE, TUNING, check_broken, write

from workflows.load_plans import load_plans

SCHEDULE = '  schedule: {schedules: ["0 3 * * 0"]'


def scheduled(rest: str) -> str:
    return f"{PIPELINE}{SCHEDULE}{rest}}}  # <--\n"


BROKEN = {
    "four fields": (scheduled("").replace("0 3 * * 0", "0 3 * *"), "schedules[0]", "4 fields instead of 5"),
    "no such hour": (
        scheduled("").replace("0 3 * * 0", "0 24 * * 0"),
        "schedules[0]",
        "hour 24 is not in 0 to 23",
    ),
    "zone inside": (scheduled("").replace("0 3", "CRON_TZ=UTC 0 3"), "schedules[0]", "pipeline.schedule.timezone"),
    "no times": (scheduled("").replace('["0 3 * * 0"]', "[]"), "schedules", "at least one schedule"),
    "times missing": (f"{PIPELINE}  schedule: {{suspend: true}}  # <--\n", "schedules", "missing field"),
    "zone": (scheduled(", timezone: Europe/Amsterdm"), "timezone", "'Europe/Amsterdm' is not a time zone"),
    "concurrency": (scheduled(", concurrencyPolicy: Never"), "concurrencyPolicy", "must be 'Allow', 'Forbid' or"),
    "deadline": (scheduled(", startingDeadlineSeconds: -1"), "startingDeadlineSeconds", "greater than or equal to 0"),
    "history": (scheduled(", failedJobsHistoryLimit: many"), "failedJobsHistoryLimit", "must be an integer"),
    "stop": (
        scheduled(", stopStrategy: {expression: cronworkflow.failures > 3}"),
        "stopStrategy.expression",
        "unknown variable cronworkflow.failures; write an expression such as cronworkflow.failed >= 3",
    ),
    "stop syntax": (
        scheduled(', stopStrategy: {expression: "cronworkflow.failed >"}'),
        "stopStrategy.expression",
        "does not parse",
    ),
    "stop never": (scheduled(', stopStrategy: {expression: "1 > 2"}'), "stopStrategy.expression", "has no variable"),
    "old field": (scheduled(', schedule: "0 3 * * 0"'), "schedule", "unknown field"),
}


@pytest.mark.parametrize(("pipeline", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_invalid_schedule_is_the_only_problem_at_its_line(tmp_path, pipeline, path, words):
    check_broken(tmp_path, PIPELINE, pipeline, f"pipeline.schedule.{path}", words)


def test_name_too_long_for_a_cron_workflow_is_rejected_only_with_a_schedule(tmp_path):
    long = GOOD.replace("name: tuned\n", f"name: {'n' * 53}\n", 1)
    [plan] = load_plans(str(write(tmp_path, long)))
    assert len(plan.name) == 53
    broken = (GOOD[GOOD.index("  name: tuned\n") :], f"  name: {'n' * 53}  # <--\n" + rest() + SCHEDULE + "}\n")
    check_broken(
        tmp_path, *broken, "metadata.name", "has 53 characters, but a scheduled Workspace can have at most 52"
    )


def rest() -> str:
    return GOOD[GOOD.index("  name: tuned\n") + len("  name: tuned\n") :]


@pytest.mark.parametrize(("part", "value"), [("schedule", '{schedules: ["@daily"]}'), ("approval", "true")])
def test_tuning_settings_without_tuning_are_rejected(tmp_path, part, value):
    pipeline = f"pipeline:\n  {part}: {value}  # <--\n"
    check_broken(tmp_path, TUNING + INFERENCE + PIPELINE, INFERENCE + pipeline, f"pipeline.{part}", "without tuning")


def test_a_time_limit_is_a_duration(tmp_path):
    check_broken(tmp_path, PIPELINE, PIPELINE + "  timeLimit: 1 day  # <--\n", "pipeline.timeLimit", "a duration")


def test_every_value_is_in_the_plan_with_its_line(tmp_path):
    text = GOOD + (
        "  timeLimit: 6h\n  approval: true\n  tune: {preemptions: 20}\n"
        "  schedule:\n    schedules: ['0 3 * * 0', '@monthly']\n    timezone: Europe/Amsterdam\n"
        "    concurrencyPolicy: Replace\n    startingDeadlineSeconds: 60\n    successfulJobsHistoryLimit: 1\n"
        "    failedJobsHistoryLimit: 2\n    stopStrategy: {expression: cronworkflow.failed >= 3}\n    suspend: true\n"
    )
    file = write(tmp_path, text)
    [plan] = load_plans(str(file))
    assert (plan.time_limit, plan.approval, plan.tuning.preemptions) == ("6h", True, 20)
    assert plan.schedule.model_dump(by_alias=True) == {
        "schedules": ["0 3 * * 0", "@monthly"],
        "timezone": "Europe/Amsterdam",
        "concurrencyPolicy": "Replace",
        "startingDeadlineSeconds": 60,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 2,
        "stopStrategy": {"expression": "cronworkflow.failed >= 3"},
        "suspend": True,
    }
    line = text.splitlines().index("    timezone: Europe/Amsterdam") + 1
    assert plan.origin("schedule.timezone") == f"Workspace ({file}:{line})"


def test_without_a_schedule_flags_set_none(tmp_path):
    from workflows.errors import InvalidInput

    with pytest.raises(InvalidInput, match=r"schedule\.timezone is set by flag, but the Workspace has no"):
        load_plans(str(write(tmp_path, GOOD)), ["schedule.timezone=Etc/UTC"])


def test_flags_are_checked_by_the_same_rules(tmp_path):
    from workflows.errors import InvalidInput

    file = str(write(tmp_path, GOOD + SCHEDULE + "}\n"))
    with pytest.raises(InvalidInput) as caught:
        load_plans(file, ["schedule.timezone=Mars/X", 'schedule.schedules=["1 2"]', "timeLimit=soon"])
    message = str(caught.value)
    assert all(words in message for words in ("'Mars/X' is not a time zone", "2 fields instead of 5", "not 'soon'"))
    assert "Value error" not in message
