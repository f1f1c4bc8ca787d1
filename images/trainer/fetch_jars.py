"""Fetches the jars of jars.lock into a folder, checked: `fetch_jars.py LOCK FOLDER [REPOSITORY]`."""

import hashlib
import sys
import urllib.request
from pathlib import Path


def main(lock: Path, folder: Path, repository: str) -> None:
    """Raises SystemExit when a jar is not the locked one."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in lock.read_text().splitlines():
        if line.startswith("#"):
            continue
        coordinates, digest = line.split()
        group, artifact, version = coordinates.split(":")
        url = f"{repository}/{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar"
        with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != digest:
            raise SystemExit(f"{url} is not the locked {coordinates}")
        (folder / f"{artifact}-{version}.jar").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "https://repo1.maven.org/maven2")
