"""Run the package step: ``python -m steps.package --help``."""

from steps.package.settings import Result, Settings
from steps.package.step import outputs_intact, package
from steps.runtime import entrypoint

entrypoint.main(Settings, package, outputs_intact=outputs_intact, result_type=Result)
