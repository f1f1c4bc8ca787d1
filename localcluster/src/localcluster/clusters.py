"""One cluster by name, whichever way it runs: as a node of this machine, or by kind."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from localcluster import kind, processes
from localcluster.layout import Layout, layout
from localcluster.node import lifecycle


def use_kind(asked: bool | None, *, node_exists: bool, docker: bool) -> bool:
    """Which way ``up`` goes: as asked; else as the cluster already is; else by kind if a Docker engine answers."""
    if asked is not None:
        return asked
    return docker and not node_exists


def up(name: str, asked: bool | None = None) -> Layout:
    """Bring a cluster up; ``asked`` is True for kind, False for a node, None for what this machine offers."""
    place = layout(name)
    return kind.up(place) if chosen(place, asked) else lifecycle.up(name)


def chosen(place: Layout, asked: bool | None = None) -> bool:
    """Whether ``up`` of this cluster goes by kind; see `use_kind`."""
    return use_kind(asked, node_exists=place.cluster_file.exists(), docker=asked is None and kind.docker_answers())


def runs_by_kind(place: Layout) -> bool:
    """Whether the cluster is kind's: it has a kubeconfig and no node's state."""
    return place.kubeconfig.exists() and not place.cluster_file.exists() and kind.docker_answers()


def down(name: str) -> None:
    """Take a cluster away, whichever way it runs."""
    place = layout(name)
    if runs_by_kind(place) and kind.exists(name):
        kind.down(place)
    lifecycle.down(name)


def load_image(name: str, image: str) -> None:
    """Put an image (a reference, or an archive's path) into a cluster's node."""
    if runs_by_kind(layout(name)):
        kind.load_image(name, image)
    else:
        lifecycle.load_image(name, image)


@dataclass(frozen=True)
class Status:
    """What `status` shows: the node's first process, or None, and its programs' pids by name."""

    name: str
    pid: int | None
    address: str | None
    kubeconfig: str
    logs: str
    programs: dict[str, int | None]

    @property
    def healthy(self) -> bool:
        """Whether the node and every program of it run."""
        return self.pid is not None and None not in self.programs.values()

    def lines(self) -> list[str]:
        """For people."""
        if self.pid is None:
            return [f"cluster {self.name}: down", f"start it: localcluster up --name {self.name}"]
        return [
            f"cluster {self.name}: {'up' if self.healthy else 'not whole'}, first process {self.pid}",
            f"kubeconfig   {self.kubeconfig}",
            f"NodePorts    {self.address}",
            f"logs         {self.logs}",
            *(f"  {name:<26}{pid or 'does not run: see its log'}" for name, pid in self.programs.items()),
            f"look inside  nsenter --target {self.pid} --mount --net --pid --uts",
        ]


def status(name: str) -> Status:
    """The state of a node, from its pid file and /proc; asks no one."""
    place = layout(name)
    process = processes.load(place.pid_file)
    if process is None:
        return Status(name, None, None, str(place.kubeconfig), str(place.logs), {})
    spec = json.loads((place.state / "node.json").read_text())
    running = {processes.argument_zero(child): child for child in processes.children(process.pid)}
    programs = {program["name"]: running.get(program["argv"][0]) for program in spec["programs"]}
    address = str(spec["address"]).partition("/")[0]
    return Status(name, process.pid, address, os.fspath(place.kubeconfig), str(place.logs), programs)
