"""Brings a node up, and takes it away again. Every step may be repeated, and begins by looking at what is there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from localcluster import gobuild, kubeconfig, manifests, pki, processes
from localcluster.errors import LocalClusterError
from localcluster.identity import API_PORT, DNS_ADDRESS, Link, allocate
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout, layout, snapshotter
from localcluster.node import baseimages, host, loader, preflight, supervisor
from localcluster.node.commands import enter
from localcluster.node.spec import NodeSpec
from localcluster.ociimage import Image
from localcluster.output import say, step
from localcluster.processes import ProcessId

_KERNEL_SETTINGS_FILE = Path("/run/lakeloop-kernel-settings.json")
_STATE_FOLDERS = ("config/cni", "logs", "etcd", "kubelet", "containerd", "pod-logs", "volumes", "tmp")
_CLIENTS = ("kube-controller-manager", "kube-scheduler", "kube-proxy", "node")


@dataclass(frozen=True)
class Node:
    """A running node."""

    layout: Layout
    process: ProcessId
    link: Link


def find(name: str) -> Node:
    """The running node of cluster ``name``. Raises LocalClusterError when there is none."""
    place = layout(name)
    process = processes.load(place.pid_file)
    if process is None:
        raise LocalClusterError(f"cluster {name!r} does not run: start it with `localcluster up --name {name}`")
    return Node(place, process, _read_link(place))


def load_image(name: str, image: str) -> None:
    """Put ``image`` (an archive's path, or a reference in buildah's storage) into the node, unless it is there."""
    node = find(name)
    with step(f"loading {image}"):
        if Path(image).is_file():
            loader.load_archive(node.process.pid, Path(image))
        else:
            loader.load_from_buildah(node.process.pid, image, node.layout.state / "tmp")


def up(name: str) -> Layout:
    """Bring cluster ``name`` up, or the rest of it, and wait until it works.

    Raises LocalClusterError that says what is missing, or where it got stuck with the end of that log.
    """
    preflight.check()
    binaries = gobuild.ensure_binaries()
    place = layout(name)
    with _locked(place):
        for folder in _STATE_FOLDERS:
            (place.state / folder).mkdir(parents=True, exist_ok=True)
        place.state.chmod(0o700)
        say(f"cluster {name}: state in {place.state}, logs in {place.logs}")
        images = _base_images(binaries)
        link = _claim_link(place)
        spec = NodeSpec(
            identity=place.identity,
            link=link,
            state=place.state,
            binaries=binaries,
            pause=images["pause"].reference,
            snapshotter=snapshotter(place.state),
            restrict_oom_score=host.lacks_sys_resource(Path("/proc/self/status").read_text()),
        )
        process = _ensure_running(place, spec)
        with step("containerd"):
            _wait(place, "containerd", 60, lambda: bool(loader.present_images(process.pid)) or True)
        with step("images of the node"):
            loader.load_images(process.pid, list(images.values()))
        kubectl = Kubectl(binaries / "kubectl", place.kubeconfig)
        with step("API server"):
            _wait(place, "kube-apiserver", 120, lambda: kubectl.run("get", "--raw=/readyz", timeout=5) == "ok")
        with step("DNS and storage class applied"):
            kubectl.apply(manifests.render({key: image.reference for key, image in images.items()}))
        with step("node is Ready"):
            _wait(place, "kubelet", 120, lambda: _node_is_ready(kubectl, name))
        with step("DNS answers"):
            _wait(place, "kubelet", 120, lambda: _dns_answers(process))
        with step("storage provisioner is available"):
            _wait(place, "kubelet", 120, lambda: _is_available(kubectl, "lakeloop-node", "local-path-provisioner"))
    say(f"cluster {name} is up: KUBECONFIG={place.kubeconfig}, NodePorts at {link.node}")
    return place


def down(name: str) -> None:
    """Take away all that ``up`` made of cluster ``name``, finished or not, but for the cache of built programs."""
    place = layout(name)
    if os.geteuid() != 0 and place.pid_file.exists():
        raise LocalClusterError("taking a node down needs root: run it with sudo")
    if place.record.exists() or place.state.exists():
        with _locked(place):
            _remove(place)
    else:
        _remove(place)
    say(f"cluster {name} is down")


def _remove(place: Layout) -> None:
    for process in _first_processes(place):
        processes.stop(process, grace=0.0)
    if os.geteuid() == 0:
        host.disconnect(place.identity)
        host.remove_cgroups(place.identity.cgroup)
        if not host.other_nodes(place.identity) and _KERNEL_SETTINGS_FILE.exists():
            host.restore_kernel_settings(json.loads(_KERNEL_SETTINGS_FILE.read_text()))
            _KERNEL_SETTINGS_FILE.unlink()
    with contextlib.suppress(FileNotFoundError):
        place.identity.runtime_dir.rmdir()
    place.kubeconfig.unlink(missing_ok=True)
    for folder in {place.state, place.record}:
        if folder.exists():
            shutil.rmtree(folder)
    for parent in (place.base, place.state.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()  # only if it is empty


def _first_processes(place: Layout) -> list[ProcessId]:
    """The node's first process by its pid file, and what else was started with its spec: a torn `up` leaves no file."""
    spec_file = os.fsencode(str(place.state / "node.json"))
    found = [process for process in [processes.load(place.pid_file)] if process]
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if spec_file in (folder / "cmdline").read_bytes().split(b"\0") and (
                process := processes.identify(int(folder.name))
            ):
                found.append(process)
    return found


@contextmanager
def _locked(place: Layout) -> Iterator[None]:
    """One `up` or `down` of a cluster at a time. The lock is on the folder itself, so no lock file is left behind."""
    while True:
        place.record.mkdir(parents=True, exist_ok=True)
        handle = os.open(place.record, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another up or down of cluster {place.identity.name} is running: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == place.record.stat().st_ino:
                break
        os.close(handle)  # a `down` removed the folder while this waited
    try:
        yield
    finally:
        os.close(handle)


def _base_images(binaries: Path) -> dict[str, Image]:
    names = ("coredns", "local-path-provisioner")
    return {"pause": baseimages.pause(), "busybox": baseimages.busybox()} | {
        n: baseimages.program(binaries, n) for n in names
    }


def _claim_link(place: Layout) -> Link:
    if place.cluster_file.exists():
        return _read_link(place)
    # Two clusters that come up at once must not choose the same network; /run itself is there for all to lock.
    handle = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        link = allocate(place.identity, host.taken_networks())
    finally:
        os.close(handle)
    place.cluster_file.write_text(json.dumps({"network": str(link.network)}) + "\n")
    return link


def _read_link(place: Layout) -> Link:
    return Link(IPv4Network(json.loads(place.cluster_file.read_text())["network"]))


def _ensure_running(place: Layout, spec: NodeSpec) -> ProcessId:
    spec_file, wanted = place.state / "node.json", spec.supervisor()
    running = processes.load(place.pid_file)
    if running and spec_file.exists() and spec_file.read_text() == wanted:
        return running
    if running:
        with step("stopping the node: its configuration has changed"):
            processes.stop(running, grace=10.0)
            host.disconnect(place.identity)
            host.remove_cgroups(place.identity.cgroup)
    with step("certificates and configuration"):
        _write_files(place, spec)
        spec_file.write_text(wanted)
    with step(f"node namespaces at {spec.link.node}"):
        return _start(place, spec, spec_file)


def _write_files(place: Layout, spec: NodeSpec) -> None:
    pki.ensure(place.pki, pki.leaves(place.identity.name, spec.link.node))
    for relative, content in spec.config_files().items():
        (place.state / relative).write_text(content)
    server = f"https://{spec.link.node}:{API_PORT}"
    targets = {client: place.config / f"{client}.kubeconfig" for client in _CLIENTS} | {"admin": place.kubeconfig}
    for client, path in targets.items():
        pair = [(place.pki / f"{client}.{kind}").read_bytes() for kind in ("crt", "key")]
        kubeconfig.write(
            path, kubeconfig.render(place.identity.name, server, (place.pki / "ca.crt").read_bytes(), *pair)
        )


def _start(place: Layout, spec: NodeSpec, spec_file: Path) -> ProcessId:
    identity = place.identity
    host.remove_cgroups(identity.cgroup)  # what a node that died left behind
    if not _KERNEL_SETTINGS_FILE.exists():
        _KERNEL_SETTINGS_FILE.write_text(json.dumps(host.kernel_settings()) + "\n")
    host.make_cgroups(identity.cgroup)
    identity.runtime_dir.mkdir(exist_ok=True)
    command = ["unshare", "--pid", "--mount", "--net", "--uts", "--fork", "--kill-child", "--mount-proc", "--"]
    command += [sys.executable, "-I", supervisor.__file__, str(spec_file)]
    with (place.logs / "supervisor.log").open("ab") as log:
        outer = subprocess.Popen(
            command,
            cwd="/",
            env=supervisor.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 10
    while not (born := processes.children(outer.pid)):
        if outer.poll() is not None or time.monotonic() > deadline:
            raise LocalClusterError(f"the node's namespaces could not be made:\n{_tail(place.logs / 'supervisor.log')}")
        time.sleep(0.02)
    process = processes.identify(born[0])
    if process is None:
        raise LocalClusterError(f"the node's first process ended at once:\n{_tail(place.logs / 'supervisor.log')}")
    process.save(place.pid_file)
    host.connect(identity, spec.link, process.pid)
    return process


def _node_is_ready(kubectl: Kubectl, name: str) -> bool:
    conditions = kubectl.get("node", name)["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_available(kubectl: Kubectl, namespace: str, deployment: str) -> bool:
    found = kubectl.get("deployment", deployment, f"--namespace={namespace}")
    return bool(found["status"].get("availableReplicas"))


def _dns_answers(process: ProcessId) -> bool:
    lookup = ["/bin/busybox", "nslookup", "kubernetes.default.svc.cluster.local", str(DNS_ADDRESS)]
    return subprocess.run(enter(process.pid, lookup), capture_output=True, timeout=20, check=False).returncode == 0


def _wait(place: Layout, program: str, seconds: float, condition: Callable[[], bool]) -> None:
    """Poll until ``condition`` holds; an error of it counts as "not yet", and the last one is told at the end."""
    deadline = time.monotonic() + seconds
    reason = "not yet"
    while True:
        try:
            if condition():
                return
        except (LocalClusterError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if processes.load(place.pid_file) is None:
            log = place.logs / "supervisor.log"
            raise LocalClusterError(f"the node has ended; {log} says:\n{_tail(log)}")
        if time.monotonic() > deadline:
            log = place.logs / f"{program}.log"
            raise LocalClusterError(f"still waiting after {seconds:.0f} s ({reason}); {log} ends with:\n{_tail(log)}")
        time.sleep(0.25)


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log yet)"
