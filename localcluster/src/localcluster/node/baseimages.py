"""The four images that a node itself needs, made from programs of this machine."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.ociimage import Image, ImageFile, build

_PREFIX = "localhost/lakeloop"
# Process 1 of every pod: waits, and reaps what its pod's containers leave behind.
PAUSE_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0); }

int main(void) {
  signal(SIGINT, stop);
  signal(SIGTERM, stop);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
"""
APPLETS = (
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "nc",
    "nslookup",
    "ping",
    "ps",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tar",
    "test",
    "touch",
    "true",
    "uname",
    "vi",
    "wc",
    "wget",
    "whoami",
)


def pause() -> Image:
    """The pause image, from the C source above."""
    with tempfile.TemporaryDirectory(prefix="lakeloop-pause-") as scratch:
        output = Path(scratch) / "pause"
        command = ["gcc", "-Os", "-static", "-s", "-Wl,--build-id=none", "-x", "c", "-o", str(output), "-"]
        result = subprocess.run(command, input=PAUSE_SOURCE, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise LocalClusterError(f"compiling the pause program failed: {result.stderr.strip()}")
        return _build("pause", {"pause": ImageFile(output.read_bytes())}, "/pause")


def busybox() -> Image:
    """A shell and its friends (Debian's busybox-static), for volume helpers and for looking around."""
    files = {f"bin/{applet}": ImageFile(link="busybox") for applet in APPLETS}
    files |= {"bin/busybox": ImageFile(Path("/bin/busybox").read_bytes()), "tmp/.keep": ImageFile()}
    return _build("busybox", files, "/bin/sh")


def program(binaries: Path, name: str) -> Image:
    """One of the Go programs, alone."""
    return _build(name, {name: ImageFile((binaries / name).read_bytes())}, f"/{name}")


def _build(name: str, files: dict[str, ImageFile], entrypoint: str) -> Image:
    return build(f"{_PREFIX}/{name}", files, [entrypoint], machine=platform.machine())
