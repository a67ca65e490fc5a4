"""Run the package step: ``python -m steps.package --help``."""

from steps.package.settings import Result, Settings
from steps.package.step import package, still_there
from steps.runtime import entrypoint

entrypoint.main(Settings, package, still_there=still_there, result_type=Result)
