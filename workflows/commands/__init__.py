"""The subcommands of ``argotune``, one module each: ``add_arguments(parser)`` and ``run(args) -> exit code``."""
