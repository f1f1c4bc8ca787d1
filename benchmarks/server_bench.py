"""The model server beside `mlflow models serve`: the same machine, the same model, the same requests, one run.

    uv run --project images/model-server python benchmarks/server_bench.py [--seconds 2] [--rounds 8]

Rounds alternate between the two servers, so that what else the machine does hits both. Printed are medians over the
rounds, and ratios in which more than 1 means that Lakeloop is better. One worker process each. Needs no cluster.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from report import Report, Row, arguments, finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from server.saved_models import save_classifier
from server.server_processes import Process, mlflow_serving, serving

ROW = {"tenure": 1.0, "spend": 5.0}
CALLERS = (1, 16)
ROWS = (1, 1000)


@dataclass(frozen=True)
class Measured:
    """Requests per second; latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


async def _call(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    # Bare sockets: an HTTP library in Python would be slower than the servers, and measured with them
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        latencies.append(time.perf_counter() - started)
    writer.close()


async def _measure(port: int, request: bytes, callers: int, seconds: float) -> Measured:
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_call(port, request, until, latencies) for _ in range(callers)))
    ordered = sorted(latencies)
    return Measured(len(ordered) / seconds, 1000 * ordered[len(ordered) // 2], 1000 * ordered[int(len(ordered) * 0.99)])


def _request(rows: int) -> bytes:
    body = json.dumps({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())] * rows}}).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _median(measured: list[Measured]) -> Measured:
    return Measured(*(statistics.median(getattr(m, field) for m in measured) for field in ("rate", "p50", "p99")))


def _memory_mib(process: Process) -> float:
    """Proportional set size of a server's processes, in MiB: shared pages count once."""
    pids, total = [process.popen.pid], 0
    while pids:
        pid = pids.pop()
        try:
            pids += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _server(name: str, root: Path) -> AbstractContextManager[Process]:
    if name == "lakeloop":
        return serving(f"file://{root / 'model'}", root / name)
    return mlflow_serving(root / "model", root / name)


def main() -> None:
    """Runs the comparison and prints a table."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    report = Report("server", notes=[f"Model server: {options.rounds} rounds of {options.seconds:g} s each."])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        save_classifier(root / "model")
        # The first start of each finds nothing in memory yet, and is not counted
        starts: dict[str, list[float]] = {"lakeloop": [], "mlflow": []}
        processes: dict[str, Process] = {}
        for last in [False] * options.rounds + [True]:
            for name, found in starts.items():
                started = time.perf_counter()
                context = _server(name, root)
                processes[name] = context.__enter__()
                found.append(time.perf_counter() - started)
                if last:
                    stack.push(context)
                else:
                    context.__exit__(None, None, None)
        ours, theirs = (statistics.median(found[1:]) for found in starts.values())
        report.rows.append(_row("start to first 200", "s", ours, theirs))
        for rows in ROWS:
            for callers in CALLERS:
                report.rows += _compare(processes, rows, callers, options.rounds, options.seconds)
        ours, theirs = _memory_mib(processes["lakeloop"]), _memory_mib(processes["mlflow"])
        report.rows.append(_row("memory (PSS)", "MiB", ours, theirs))
    finish(report, options.json)


def _compare(processes: dict[str, Process], rows: int, callers: int, rounds: int, seconds: float) -> list[Row]:
    request = _request(rows)
    found: dict[str, list[Measured]] = {name: [] for name in processes}
    for process in processes.values():
        asyncio.run(_measure(process.port, request, callers, 0.5))
    for _ in range(rounds):
        for name, process in processes.items():
            found[name].append(asyncio.run(_measure(process.port, request, callers, seconds)))
    ours, theirs = _median(found["lakeloop"]), _median(found["mlflow"])
    what = f"{rows} row{'s' if rows > 1 else ''}, {callers} caller{'s' if callers > 1 else ''}"
    return [
        _row(what, "requests/s", ours.rate, theirs.rate, more_is_better=True),
        _row(f"{what}, p50", "ms", ours.p50, theirs.p50),
        _row(f"{what}, p99", "ms", ours.p99, theirs.p99),
    ]


def _row(what: str, unit: str, ours: float, theirs: float, *, more_is_better: bool = False) -> Row:
    return Row(f"model server, {what}", unit, ours, theirs, "mlflow models serve", more_is_better=more_is_better)


if __name__ == "__main__":
    main()
