"""What the command line tells its user instead of a traceback."""


class CliError(Exception):
    """The command cannot go on. The message says what was found and what to do."""
