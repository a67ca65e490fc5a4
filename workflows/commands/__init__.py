"""The verbs of the command line, one module a verb: ``add_arguments(parser)`` and ``run(args) -> exit code``."""
