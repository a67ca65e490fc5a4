"""Run the report step: ``python -m steps.report --help``."""

from steps.report.settings import Settings
from steps.report.step import report
from steps.runtime import entrypoint

entrypoint.main(Settings, report)
