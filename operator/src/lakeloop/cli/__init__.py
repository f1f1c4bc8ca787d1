"""The kubectl plugin, `kubectl lakeloop`."""


def main() -> None:
    """The console script `kubectl-lakeloop`."""
    from lakeloop.cli.commands import cli

    cli()
