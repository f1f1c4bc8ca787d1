"""A second cluster beside whatever runs: up, all that a workload needs of it, crashes, and nothing left after down."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster import clusters, gobuild, processes
from localcluster.layout import Layout, layout
from localcluster.node import baseimages, host, lifecycle, loader

pytestmark = pytest.mark.node
NAME = "lltest"
NODE_PORT = 30080

WORKLOAD = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, runAsNonRoot: true}}
  containers:
    - name: web
      image: {image}
      imagePullPolicy: Never
      command: [sh, -c, "echo hello > /data/index.html; echo serving; exec httpd -f -p 8080 -h /data"]
      readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
      volumeMounts: [{{name: data, mountPath: /data}}]
      resources: {{limits: {{memory: 64Mi}}}}
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: site}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, nodePort: {port}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec: {{clusterIP: None, selector: {{app: web}}}}
"""


@dataclass(frozen=True)
class Cluster:
    """The cluster under test."""

    place: Layout

    @property
    def node(self) -> lifecycle.Node:
        return lifecycle.find(NAME)

    def try_kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(gobuild.binary_dir() / "kubectl"), f"--kubeconfig={self.place.kubeconfig}", *args]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        result = self.try_kubectl(*args, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def restarts(self) -> str:
        return self.kubectl("get", "pods", "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}")


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.1)


def fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def answers(cluster: Cluster) -> bool:
    """Whether the workload answers on its NodePort."""
    try:
        return fetch(f"http://{cluster.node.link.node}:{NODE_PORT}/") == "hello\n"
    except OSError:
        return False


@dataclass(frozen=True)
class Traces:
    """What a cluster could leave behind on the machine."""

    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    namespaces: frozenset[str]
    firewall: str
    rules: str
    routes: str
    cgroups: frozenset[str]
    files: frozenset[str]
    kernel: tuple[tuple[str, str], ...]


def pids_of_this_cluster(place: Layout) -> set[int]:
    """Every process that runs in a cgroup of the cluster."""
    return {
        int(pid)
        for folder in host.cgroups_left(place.identity.cgroup)
        for pid in (folder / "cgroup.procs").read_text().split()
    }


def read_quietly(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # a process that ended meanwhile
        return ""


def traces(place: Layout) -> Traces:
    """Everything on the machine that has to do with this cluster; firewall and namespaces whole."""
    marks = (place.identity.unique, str(place.state), place.identity.host_interface)
    commands = [read_quietly(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    folders = ["/run", "/var/lib", "/var/log", "/var/lib/cni", "/etc/cni", "/opt", str(place.base)]
    found = [str(path) for folder in folders if Path(folder).exists() for path in Path(folder).iterdir()]
    others = re.compile(rf"\b(?!{place.identity.host_interface})ll[0-9a-f]{{8}}\b")

    def without_other_clusters(text: str) -> str:
        return "\n".join(line for line in text.splitlines() if not others.search(line))

    return Traces(
        processes=frozenset(command for command in commands if any(mark in command for mark in marks)),
        mounts=frozenset(line for line in mounts if any(mark in line for mark in marks)),
        interfaces=frozenset(name for _, name in socket.if_nameindex() if not others.search(name)),
        namespaces=frozenset(host.run("ip", "netns", "list").split()),
        firewall=re.sub(r"\[\d+:\d+\]|#.*", "", host.run("iptables-save")),
        rules=without_other_clusters(host.run("ip", "rule")),
        routes=without_other_clusters(host.run("ip", "route")),
        cgroups=frozenset(str(path) for path in host.cgroups_left(place.identity.cgroup)),
        files=frozenset(path for path in found if "kernel-settings" not in path),
        kernel=tuple(host.kernel_settings().items()),
    )


@pytest.fixture(scope="module")
def before() -> Traces:
    clusters.down(NAME)
    return traces(layout(NAME))


@pytest.fixture(scope="module")
def cluster(before: Traces) -> Iterator[Cluster]:
    yield Cluster(clusters.up(NAME, asked=False))
    clusters.down(NAME)


@pytest.fixture(scope="module")
def workload(cluster: Cluster) -> Cluster:
    image = baseimages.busybox().reference
    until(lambda: cluster.try_kubectl("get", "serviceaccount", "default").returncode == 0)
    cluster.kubectl("apply", "--filename=-", stdin=WORKLOAD.format(image=image, port=NODE_PORT))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=90s")
    return cluster


def test_versions_and_the_kubeconfig(cluster: Cluster) -> None:
    assert cluster.kubectl("version").count(gobuild.KUBERNETES_VERSION) == 2
    assert cluster.place.kubeconfig == cluster.place.base / NAME / "kubeconfig"
    assert cluster.place.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_status_names_every_program(cluster: Cluster) -> None:
    found = clusters.status(NAME)
    assert found.healthy, found.lines()
    assert {"etcd", "kube-apiserver", "kubelet", "containerd"} <= set(found.programs)


def test_a_node_port_answers_from_the_host_without_a_port_forward(workload: Cluster) -> None:
    until(lambda: answers(workload), 20)


@pytest.mark.parametrize("name", ["site", "site.default.svc", "site.default.svc.cluster.local"])
def test_a_pod_reaches_itself_and_others_by_service_name(workload: Cluster, name: str) -> None:
    assert workload.kubectl("exec", "web", "--", "wget", "-qO-", f"http://{name}/") == "hello\n"


def test_a_headless_service_resolves_to_the_pod(workload: Cluster) -> None:
    address = workload.kubectl("get", "pod", "web", "--output=jsonpath={.status.podIP}")
    assert address in workload.kubectl("exec", "web", "--", "nslookup", "headless.default.svc.cluster.local")


def test_a_name_outside_the_cluster_is_refused_at_once(workload: Cluster) -> None:
    started = time.monotonic()
    answer = workload.try_kubectl("exec", "web", "--", "nslookup", "example.com")
    assert "NXDOMAIN" in answer.stdout + answer.stderr
    assert time.monotonic() - started < 5


def test_nothing_is_forwarded_off_the_machine(workload: Cluster) -> None:
    """Whatever the machine's own forwarding says; the address is a documentation one, behind the default route."""
    forward = Path("/proc/sys/net/ipv4/conf") / workload.place.identity.host_interface / "forwarding"
    assert forward.read_text().strip() == "0"
    looked_up = ["ip", "route", "get", "198.51.100.1", "from", str(workload.node.link.node)]
    looked_up += ["iif", workload.place.identity.host_interface]
    assert subprocess.run(looked_up, capture_output=True, check=False).returncode != 0
    answer = workload.try_kubectl("exec", "web", "--", "wget", "-T", "3", "-qO-", "http://198.51.100.1/")
    assert answer.returncode != 0


def test_a_volume_is_writable_by_the_pods_group(workload: Cluster) -> None:
    volume = workload.kubectl("get", "pvc", "data", "--output=jsonpath={.spec.storageClassName} {.status.phase}")
    assert volume == "standard Bound"
    assert workload.kubectl("exec", "web", "--", "stat", "-c", "%u:%g", "/data/index.html") == "10001:10001\n"


def test_logs_and_exec(workload: Cluster) -> None:
    assert workload.kubectl("logs", "web") == "serving\n"
    assert workload.kubectl("exec", "web", "--", "id", "-u") == "10001\n"


def test_port_forward(workload: Cluster) -> None:
    command = [str(gobuild.binary_dir() / "kubectl"), f"--kubeconfig={workload.place.kubeconfig}"]
    command += ["port-forward", "service/site", ":80", "--address=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+) ->", forward.stdout.readline())
            assert port is not None
            assert fetch(f"http://127.0.0.1:{port[1]}/") == "hello\n"
        finally:
            forward.terminate()


def test_pod_security_is_enforced(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "strict")
    cluster.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    refused = cluster.try_kubectl("run", "root", "--image=x", "--namespace=strict")
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr


def test_a_node_may_not_change_another_one(cluster: Cluster) -> None:
    """NodeRestriction, asked with the kubelet's own credentials."""
    credentials = cluster.place.config / "node.kubeconfig"
    command = [str(gobuild.binary_dir() / "kubectl"), f"--kubeconfig={credentials}"]
    command += ["label", "node", NAME, "node-restriction.kubernetes.io/x=y"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "is not allowed to modify labels" in refused.stderr


def test_an_image_is_loaded_once(cluster: Cluster, tmp_path: Path) -> None:
    image = baseimages.program(gobuild.binary_dir(), "etcd")
    archive = tmp_path / "etcd.tar"
    archive.write_bytes(image.archive)
    pid = cluster.node.process.pid
    assert loader.load_archive(pid, archive) == [image.reference]
    until(lambda: loader.load_archive(pid, archive) == [], 10)


def test_up_twice_changes_nothing(workload: Cluster) -> None:
    before, restarts = workload.node.process, workload.restarts()
    started = time.monotonic()
    clusters.up(NAME, asked=False)
    assert time.monotonic() - started < 30
    assert workload.node.process == before
    assert workload.restarts() == restarts


@pytest.mark.parametrize("program", ["kubelet", "containerd", "etcd"])
def test_a_program_that_dies_comes_back_and_pods_live_on(workload: Cluster, program: str) -> None:
    pid, restarts = clusters.status(NAME).programs[program], workload.restarts()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: clusters.status(NAME).programs[program] not in (None, pid))
    clusters.up(NAME, asked=False)
    until(lambda: answers(workload), 20)
    assert workload.restarts() == restarts


def test_a_node_that_was_killed_comes_back_with_its_data(workload: Cluster) -> None:
    old = workload.node
    os.kill(old.process.pid, signal.SIGKILL)
    until(lambda: processes.load(workload.place.pid_file) is None)
    assert clusters.status(NAME).pid is None
    clusters.up(NAME, asked=False)
    assert workload.node.link == old.link
    until(lambda: answers(workload), 120)
    workload.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=90s")


def test_down_leaves_nothing(workload: Cluster, before: Traces) -> None:
    place = workload.place
    everything = pids_of_this_cluster(place)
    assert len(everything) > 10
    during = traces(place)
    assert during.interfaces != before.interfaces  # or this test would see nothing
    assert during.processes
    assert during.cgroups
    clusters.down(NAME)
    until(lambda: not any(processes.identify(pid) for pid in everything), 10)
    assert traces(place) == before


def test_down_after_a_half_finished_up(before: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after the namespaces were made, before the pid file was written."""

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    place = layout(NAME)
    monkeypatch.setattr(host, "connect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clusters.up(NAME, asked=False)
    place.pid_file.unlink()
    monkeypatch.undo()
    assert traces(place).processes
    clusters.down(NAME)
    assert traces(place) == before


def test_down_of_what_is_not_there_is_fine(before: Traces) -> None:
    clusters.down(NAME)
    assert traces(layout(NAME)) == before
