"""The one error of this tool: a message for the user that says what is wrong and what to do about it."""


class LocalClusterError(Exception):
    """Something the user can act on. The command line prints the message without a traceback and exits with 1."""
