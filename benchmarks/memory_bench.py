"""The operator's memory at rest: nothing to reconcile, for a while.

    make up && uv run --project operator python benchmarks/memory_bench.py [--quiet 20]

Resident memory of its process, and the working set of its container as `kubectl top` counts it, both read in the
container. Run it last: what the operator did before is in it.
"""

import time
from contextlib import suppress

from cluster import Cluster, OperatorUse, operator_use, run
from report import Report, Row, arguments, finish, number

from lakeloop.cli.demo import DemoError

NAMESPACE = "lakeloop-bench-memory"
CGROUP_2 = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file")
CGROUP_1 = (
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/memory.stat",
    "total_inactive_file",
)


def working_set_mib(cluster: Cluster) -> float | None:
    """The container's memory without what the kernel may drop at once; None where the container does not see it."""
    for current, stat, idle in (CGROUP_2, CGROUP_1):
        with suppress(DemoError):
            used, *lines = cluster.operator("cat", current, stat).splitlines()
            inactive = dict(line.split() for line in lines)[idle]
            return (int(used) - int(inactive)) / 2**20
    return None


def report(use: OperatorUse, working_set: float | None, cpu_percent: float, quiet: float) -> Report:
    """What was found."""
    found = Report("memory")
    found.rows = [Row("operator at rest, resident", "MiB", use.resident_mib, at_most=150.0)]
    if working_set is not None:
        found.rows.append(Row("operator at rest, container's working set", "MiB", working_set, at_most=150.0))
    found.notes = [
        f"The operator at rest used {number(cpu_percent)} % of one core over {quiet:.0f} s; its peak resident memory "
        f"since its start was {number(use.peak_mib)} MiB."
    ]
    return found


def main() -> None:
    """Waits, then looks."""
    parser = arguments(__doc__)
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds of rest before the look")
    options = parser.parse_args()
    cluster = Cluster(NAMESPACE)
    before = operator_use(cluster)
    time.sleep(options.quiet)
    after = operator_use(cluster)
    cpu = 100 * (after.cpu_seconds - before.cpu_seconds) / options.quiet
    finish(report(after, working_set_mib(cluster), cpu, options.quiet), options.json)


if __name__ == "__main__":
    run(main)
