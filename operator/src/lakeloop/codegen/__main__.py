"""`python -m lakeloop.codegen [--check]`: writes the generated files, or says which are out of date."""

import sys
from pathlib import Path

import click

from lakeloop.codegen.outputs import outputs, stale, write

ROOT = Path(__file__).parents[4]


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a file is out of date.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default=ROOT, help="The repository's root.")
def main(check: bool, root: Path) -> None:
    """Writes CRDs, RBAC rules and the API reference from the types."""
    files = outputs()
    if not check:
        for path in write(root, files):
            click.echo(f"wrote {path}")
        return
    if out_of_date := stale(root, files):
        for path in out_of_date:
            click.echo(f"{path} is not what the types say", err=True)
        click.echo("run `make generate` and commit what it writes", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
