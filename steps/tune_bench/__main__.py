"""Run the tune_bench step: ``python -m steps.tune_bench --help``."""

from steps.runtime import entrypoint
from steps.tune_bench.settings import Settings
from steps.tune_bench.step import measure_tuning

entrypoint.main(Settings, measure_tuning)
