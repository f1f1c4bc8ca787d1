"""`kubectl lakeloop completion`: for the shell, and for kubectl's own completion of its plugins."""

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

from lakeloop.cli.errors import CliError
from lakeloop.cli.training.output import in_one_sentence

PROGRAM = "kubectl-lakeloop"
VARIABLE = "_KUBECTL_LAKELOOP_COMPLETE"
KUBECTL_SCRIPT = f"""#!/bin/sh
# Put this as kubectl_complete-lakeloop, executable, into a folder of PATH: kubectl's completion calls it.
exec {PROGRAM} __complete "$@"
"""
_NO_FILES = 4
"""kubectl's (cobra's) directive: complete no file names."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
@click.pass_context
@in_one_sentence
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and the names of jobs.

    bash: source <(kubectl lakeloop completion bash) completes `kubectl-lakeloop`. kubectl: the script to put as
    kubectl_complete-lakeloop into PATH, by which `kubectl lakeloop` is completed in any shell.
    """
    if shell == "kubectl":
        click.echo(KUBECTL_SCRIPT, nl=False)
        return
    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"no completion for {shell}")
    click.echo(found(context.find_root().command, {}, PROGRAM, VARIABLE).source())


@click.command("__complete", hidden=True, context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def complete(context: click.Context, words: tuple[str, ...]) -> None:
    """What kubectl asks: the words so far, of which the last is not finished; answers one candidate per line."""
    *before, incomplete = words or ("",)
    command = context.find_root().command
    for item in ShellComplete(command, {}, PROGRAM, VARIABLE).get_completions(list(before), incomplete):
        if item.type == "plain":
            sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write(f":{_NO_FILES}\n")
