"""The node's first process: sets up its namespaces, starts the node's programs, restarts those that end, bounds logs.

Run by ``unshare --pid --mount --net --uts --fork --kill-child``, it is process 1 of the node. When it ends, the kernel
ends every process of the node, containers included, and its mounts and network go with it: that is what makes ``down``
thorough. It needs nothing but the standard library, as the virtual environment may change under it.

Usage: ``python supervisor.py SPEC``; SPEC is JSON as ``spec.py`` renders it. SIGTERM ends the node.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_LIMIT = 20 * 1024 * 1024  # bytes per log file; as much again in <name>.log.1
BACKOFF = (0.5, 15.0)  # seconds before a program is started again: at first, at most
SETTLED = 60.0  # seconds after which a program counts as running well
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


@dataclass
class Program:
    """A program to keep running, and how it goes."""

    name: str
    argv: list[str]
    wants: str | None
    pid: int = 0
    started: float = 0.0
    backoff: float = BACKOFF[0]
    due: float = field(default=0.0)  # monotonic time before which it is not started


def log(message: str) -> None:
    """One line in the supervisor's own log, which is its stdout."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, flush=True)


def answers(address: str | None) -> bool:
    """Whether ``tcp:host:port`` or ``unix:/path`` takes connections; None always does."""
    if address is None:
        return True
    kind, _, rest = address.partition(":")
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    host, _, port = rest.rpartition(":")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(rest if kind == "unix" else (host, int(port)))
        except OSError:
            return False
    return True


def run(*argv: str) -> None:
    """Run a command to its end; its words are in the log."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, env=ENVIRONMENT)


def join_cgroup(cgroup: str) -> None:
    """Move this process to ``<cgroup>/system`` of every hierarchy, so that all of the node is below ``cgroup``."""
    for procs in Path("/sys/fs/cgroup").glob(f"*{cgroup}/system/cgroup.procs"):
        procs.write_text("0")
    unified = Path(f"/sys/fs/cgroup{cgroup}/system/cgroup.procs")
    if unified.exists():
        unified.write_text("0")


def mount_all(state: str, binaries: str, runtime: str) -> None:
    """Give the node a /run, /var/lib and /var/log of its own: many programs have fixed paths there."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "lakeloop", runtime)
    for source, name in ((state, "lakeloop"), (binaries, "bin")):
        (Path(runtime) / name).mkdir()
        run("mount", "--bind", source, f"{runtime}/{name}")
    run("mount", "--rbind", runtime, "/run")
    for target, binds in (
        ("/var/lib", {"kubelet": "kubelet", "containerd": "containerd"}),
        ("/var/log", {"pods": "pod-logs"}),
    ):
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "lakeloop", target)
        for name, source in binds.items():
            Path(target, name).mkdir()
            run("mount", "--bind", f"/run/lakeloop/{source}", f"{target}/{name}")
    # Shared within the node: what the kubelet mounts must be seen by containerd's children, and nowhere else.
    run("mount", "--make-rshared", "/")


def configure_network(address: str, gateway: str) -> None:
    """Wait for the link that the host hands over, and set it up.

    The kubelet and the Service addresses need a default route. It leads nowhere: the host forwards nothing from here.
    """
    while "eth0" not in {name for _, name in socket.if_nameindex()}:
        time.sleep(0.02)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", address, "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", gateway)
    for key, value in {
        "net/ipv4/ip_forward": "1",
        "net/bridge/bridge-nf-call-iptables": "1",  # replies to a Service within the bridge must pass conntrack
        "net/ipv6/conf/all/disable_ipv6": "1",
    }.items():
        setting = Path("/proc/sys") / key
        if setting.exists():
            setting.write_text(value)


def refuse_unknown_services(services: str) -> None:
    """Refuse at once what is sent to a Service address that kube-proxy has not translated.

    Without this, a pod that starts before kube-proxy knows the API server's address waits half a minute for an answer.
    """
    for protocol, answer in (("tcp", "tcp-reset"), ("udp", "icmp-port-unreachable")):
        rule = ["-A", "FORWARD", "-d", services, "-p", protocol, "-j", "REJECT", "--reject-with", answer]
        run("iptables", "-w", *rule)


def read_programs(spec: dict[str, Any]) -> list[Program]:
    """The programs of a spec, in the order of starting."""
    return [Program(p["name"], p["argv"], p["wants"]) for p in spec["programs"]]


class Supervisor:
    """Keeps programs running."""

    def __init__(self, programs: list[Program], logs: Path) -> None:
        self.programs = programs
        self.logs = logs

    def start_due(self) -> None:
        """Start what does not run, is due, and has what it wants."""
        now = time.monotonic()
        for program in self.programs:
            if program.pid or now < program.due or not answers(program.wants):
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.logs / f"{program.name}.log"), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            program.pid = os.posix_spawn(
                program.argv[0], program.argv, ENVIRONMENT, file_actions=actions, setpgroup=0, setsigmask=[]
            )
            program.started = now
            log(f"{program.name}: started as {program.pid}")

    def reap(self) -> None:
        """Collect the dead: programs, and the orphans that process 1 inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for program in self.programs:
                if program.pid == pid:
                    self.ended(program, status)

    def ended(self, program: Program, status: int) -> None:
        """Note the end of a program and when it is due again."""
        now = time.monotonic()
        settled = now - program.started > SETTLED
        program.backoff = BACKOFF[0] if settled else min(program.backoff * 2, BACKOFF[1])
        program.pid, program.due = 0, now + program.backoff
        log(f"{program.name}: ended with {os.waitstatus_to_exitcode(status)}, again in {program.backoff:.1f} s")

    def bound_logs(self) -> None:
        """Copy a log that has grown too long aside and empty it; the programs append, so they go on at its start."""
        for path in self.logs.glob("*.log"):
            if path.stat().st_size > LOG_LIMIT:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def stop(self) -> None:
        """Ask the programs to end, last started first, and wait a little."""
        for program in reversed(self.programs):
            if program.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while any(p.pid for p in self.programs) and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.05)

    def serve(self) -> None:
        """Run until SIGTERM."""
        watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        next_bound = 0.0
        while True:
            self.reap()
            self.start_due()
            if time.monotonic() >= next_bound:
                self.bound_logs()
                next_bound = time.monotonic() + 10
            waiting = any(not p.pid for p in self.programs)
            got = signal.sigtimedwait(watched, 0.2 if waiting else 5.0)
            if got is not None and got.si_signo != signal.SIGCHLD:
                log("stopping")
                self.stop()
                return


def main() -> None:
    """Set up the namespaces and serve."""
    spec_file = Path(sys.argv[1])
    spec = json.loads(spec_file.read_text())
    socket.sethostname(spec["hostname"])
    join_cgroup(spec["cgroup"])
    mount_all(spec["state"], spec["binaries"], spec["runtime"])
    configure_network(spec["address"], spec["gateway"])
    refuse_unknown_services(spec["services"])
    log("namespaces are set up")
    Supervisor(read_programs(spec), Path("/run/lakeloop/logs")).serve()


if __name__ == "__main__":
    main()
