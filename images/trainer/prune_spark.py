"""Takes out of pyspark what no driver or executor of this image runs: `prune_spark.py <pyspark's folder>`.

Native libraries of other platforms (90 MB) and the examples. Java code stays: user scripts may call any of it.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import zipfile
from pathlib import Path

FOLDERS = ("examples", "data", "python/test_support")
# uname -m → netty's word for it, and what names its library in the jars that carry one for every platform.
MACHINES = {
    "x86_64": ("x86_64", ("librocksdbjni-linux64.so", "linux/amd64/", "Linux/x86_64/")),
    "aarch64": ("aarch_64", ("librocksdbjni-linux-aarch64.so", "linux/aarch64/", "Linux/aarch64/")),
}
MANY_PLATFORMS = ("rocksdbjni-*.jar", "zstd-jni-*.jar", "snappy-java-*.jar")
LIBRARY = re.compile(r"\.(so|dll|dylib|jnilib|a)$")
NETTY_NATIVE = re.compile(r"^netty-.*\.Final-(?P<platform>[a-z]+-[a-z0-9_]+)\.jar$")


def is_foreign(jar: str, netty_machine: str) -> bool:
    """Whether a jar holds netty's native code for another platform."""
    match = NETTY_NATIVE.match(jar)
    return match is not None and match["platform"] != f"linux-{netty_machine}"


def keeps(member: str, own: tuple[str, ...]) -> bool:
    """Whether a member of a jar stays: all but libraries that are not ``own``."""
    return not LIBRARY.search(member) or any(word in member for word in own)


def strip(jar: Path, own: tuple[str, ...]) -> None:
    """Rewrites a jar without foreign libraries. Raises SystemExit when it would be left with none."""
    slim = jar.with_suffix(".slim")
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(slim, "w", zipfile.ZIP_DEFLATED) as target:
        kept = [info for info in source.infolist() if keeps(info.filename, own)]
        if not any(LIBRARY.search(info.filename) for info in kept):
            raise SystemExit(f"{jar.name} has no library for {platform.machine()}")
        for info in kept:
            target.writestr(info, source.read(info))
    slim.replace(jar)


def main(home: Path) -> None:
    """Raises SystemExit on a machine that the table does not know."""
    if platform.machine() not in MACHINES:
        raise SystemExit(f"unknown machine {platform.machine()}: add it to MACHINES")
    netty_machine, own = MACHINES[platform.machine()]
    for folder in FOLDERS:
        shutil.rmtree(home / folder, ignore_errors=True)
    for jar in (home / "jars").glob("netty-*.jar"):
        if is_foreign(jar.name, netty_machine):
            jar.unlink()
    for pattern in MANY_PLATFORMS:
        for jar in (home / "jars").glob(pattern):
            strip(jar, own)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
