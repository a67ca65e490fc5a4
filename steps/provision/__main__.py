"""Run the provision step: ``python -m steps.provision --help``."""

from steps.provision.settings import Settings
from steps.provision.step import provision
from steps.runtime import entrypoint

entrypoint.main(Settings, provision)
