"""`make bench`: every benchmark once, one table, and what was promised beside it. Exit code 1 where one failed.

    make up && uv run --project operator python benchmarks/run_all.py [NAME…] [--write docs/benchmarks.md]

A benchmark that takes longer than its limit is ended; the others go on. A promise that is not kept is in the table and
fails nothing: machines differ.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from report import Report, say, split_table, table

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- end of what was measured -->"
STOP_SECONDS = 240.0
"""For a benchmark that is told to end to take its namespace away."""


@dataclass(frozen=True)
class Benchmark:
    """A program beside this one, the project that it needs, and how long it may take."""

    name: str
    project: str
    limit_seconds: float


# Memory comes after the operator has done something; the server's needs the processors for itself.
ALL = (
    Benchmark("submit", "operator", 900),
    Benchmark("quickstart", "operator", 900),
    Benchmark("alias", "operator", 900),
    Benchmark("search", "operator", 1500),
    Benchmark("rows", "operator", 2100),
    Benchmark("memory", "operator", 120),
    Benchmark("trigger", "operator", 900),
    Benchmark("throughput", "operator", 2700),
    Benchmark("server", "images/model-server", 900),
)


def run(benchmark: Benchmark, folder: Path) -> Report | None:
    """The benchmark's report; None where it failed or took too long."""
    path = folder / f"{benchmark.name}.json"
    program = [f"benchmarks/{benchmark.name}_bench.py", "--json", str(path)]
    uv = os.environ.get("UV", "uv")
    command = [uv, "run", "--quiet", "--frozen", "--project", benchmark.project, "python", *program]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(benchmark.limit_seconds)
    except subprocess.TimeoutExpired:
        say(f"{benchmark.name} is ended: it took longer than {benchmark.limit_seconds:.0f} s")
        code = end(process)
    except KeyboardInterrupt:
        end(process)
        raise
    return Report.load(path) if code == 0 and path.is_file() else None


def end(process: subprocess.Popen[bytes]) -> int:
    """As Ctrl-C would, so that it cleans up; then for good."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS) or 1
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def busy_share(seconds: float = 5.0) -> float:
    """How much of this machine's processors is in use while nothing is measured: by others, and by an idle cluster."""

    def ticks() -> tuple[int, int]:
        values = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    all_before, idle_before = ticks()
    time.sleep(seconds)
    all_after, idle_after = ticks()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def machine() -> str:
    """What it was measured on, without a name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    size = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    memory = int(size.split()[1]) / 2**20
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, Linux {kernel}"


def document(reports: Sequence[Report], busy: Mapping[str, float]) -> str:
    """What goes to the terminal, and into the docs. `busy`: how much of the machine others used before each."""
    today = datetime.now(UTC).date().isoformat()
    noise = ", ".join(f"{name} {100 * share:.0f} %" for name, share in busy.items())
    head = (
        f"{today}, {machine()}; cluster, benchmark and peers on it together. "
        f"The processors were in use already, just before: {noise}."
    )
    notes = [note for report in reports for note in report.notes]
    splits = [split_table(split) for report in reports for split in report.splits]
    return "\n\n".join([head, table(reports), *notes, *splits])


def write(path: Path, text: str) -> None:
    """Puts the text between the two marks. Raises ValueError where the file lacks them."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end_mark, after = rest.partition(END)
    if not begin or not end_mark:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    """Runs them in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [each.name for each in ALL]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument("--write", type=Path, help="put the result into this document, between its marks")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    wanted = [each for each in ALL if not options.names or each.name in options.names]
    busy: dict[str, float] = {}
    reports, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for benchmark in wanted:
            say(f"\n── {benchmark.name}")
            busy[benchmark.name] = busy_share()
            found = run(benchmark, Path(folder))
            if found is None:
                failed.append(benchmark.name)
            else:
                reports.append(found)
    if reports:
        text = document(reports, busy)
        say(f"\n{text}")
        if options.write and not failed:
            write(options.write, text)
    if failed:
        say(f"\nfailed: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
