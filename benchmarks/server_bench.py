"""The model server beside `mlflow models serve` and MLServer: one machine, one model, the same requests, one run.

    uv run --project images/model-server python benchmarks/server_bench.py [--seconds 2] [--rounds 5]

A scaler and a logistic regression of one column; POST /invocations, which all three have, of one row and of a hundred.
One worker each: MLServer predicts in the process that answers (`parallel_workers: 0`), since handing over to another
only costs it time here. It is installed at the first run, into an environment of its own below `.lakeloop`, with our
versions of MLflow, numpy, pandas and scikit-learn.

Rounds go from one server to the next, so that what else the machine does hits all. Printed are medians over the rounds
beside the better of the two peers, and ratios in which more than 1 means that Lakeloop is better. The last peer is no
model server: our HTTP framework, Starlette on uvicorn, which answers a constant. Needs no cluster.
"""

import asyncio
import importlib.metadata
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from report import Report, Row, arguments, finish, number

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from server.saved_models import save_one_column
from server.server_processes import BIN, HTTP, Process, mlflow_serving, poll, serving

ROOT = Path(__file__).parents[1]
COLUMN = "spend"
CALLERS = (1, 16, 64)
ROWS = (1, 100)
MLSERVER = "1.7.1"
SERVERS = ("lakeloop", "mlflow models serve", "MLServer")
CONSTANT = "a constant"
# What was promised of one row: times the better peer's requests per second, and its p99 over ours
LEAST_RATE, LEAST_P99 = 5.0, 2.0
# Answers as much as a prediction of one row, without looking at what was sent
FRAMEWORK = """
import asyncio, sys
from lakeloop_server.serving import listen, make_server
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def answer(request):
    await request.body()
    return Response(b'{"predictions": [0]}', media_type="application/json")

async def ping(request):
    return Response(b"")

app = Starlette(routes=[Route("/invocations", answer, methods=["POST"]), Route("/ping", ping)])
server = make_server(app, "constant/1")
with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
    runner.run(server.serve(sockets=[listen("127.0.0.1", int(sys.argv[1]))]))
"""


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
    body = json.dumps({"dataframe_split": {"columns": [COLUMN], "data": [[1.5 + row] for row in range(rows)]}}).encode()
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _command(command: list[str], folder: Path, port: int, **environment: str) -> Iterator[Process]:
    """What a command starts, until it is not needed any more."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
        )
    process = Process(popen, folder, port)
    try:
        yield process
    finally:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def _mlserver_python() -> Path:
    """MLServer's own environment, made when it is not there."""
    folder = ROOT / ".lakeloop" / f"mlserver-{MLSERVER}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        ours = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "scipy", "skops")
        pins = [f"{name}=={importlib.metadata.version(name)}" for name in ours]
        mlflow = f"mlflow=={importlib.metadata.version('mlflow-skinny')}"
        uv = os.environ.get("UV", "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        wanted = [f"mlserver=={MLSERVER}", f"mlserver-mlflow=={MLSERVER}", mlflow, *pins]
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *wanted], check=True)
        (folder / "complete").touch()
    return python


@contextmanager
def _mlserver(model: Path, folder: Path) -> Iterator[Process]:
    python = _mlserver_python()
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port()}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    runtime = {"name": "churn", "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(runtime))
    command = [str(python.parent / "mlserver"), "start", "."]
    with _command(command, folder, port, MLFLOW_DISABLE_TELEMETRY="true") as process:
        poll(lambda: _answers(process, "/v2/health/ready"), what="MLServer")
        yield process


def _answers(process: Process, path: str) -> bool:
    assert process.popen.poll() is None, process.log
    with suppress(httpx.TransportError):
        return HTTP.get(process.url + path).status_code == 200
    return False


@contextmanager
def _framework(folder: Path) -> Iterator[Process]:
    port = _free_port()
    with _command([str(BIN / "python"), "-c", FRAMEWORK, str(port)], folder, port) as process:
        poll(lambda: _answers(process, "/ping"), what="the framework")
        yield process


def _server(name: str, root: Path) -> AbstractContextManager[Process]:
    if name == "lakeloop":
        return serving(f"file://{root / 'model'}", root / name)
    if name == "MLServer":
        return _mlserver(root / "model", root / name)
    if name == CONSTANT:
        return _framework(root / "framework")
    return mlflow_serving(root / "model", root / "mlflow")


def main() -> None:
    """Runs the comparison and prints a table."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = Report("server", notes=[f"Model server: {options.rounds} rounds of {options.seconds:g} s each."])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        save_one_column(root / "model")
        _mlserver_python()
        # The first start of each finds nothing in memory yet, and is not counted
        starts: dict[str, list[float]] = {name: [] for name in SERVERS}
        processes: dict[str, Process] = {}
        for last in [False] * min(3, options.rounds) + [True]:
            for name, found in starts.items():
                started = time.perf_counter()
                context = _server(name, root)
                processes[name] = context.__enter__()
                found.append(time.perf_counter() - started)
                if last:
                    stack.push(context)
                else:
                    context.__exit__(None, None, None)
        processes[CONSTANT] = stack.enter_context(_server(CONSTANT, root))
        medians = {name: statistics.median(found[1:]) for name, found in starts.items()}
        report.rows.append(_row("start to first 200", "s", medians))
        for rows in ROWS:
            for callers in CALLERS:
                report.rows += _compare(processes, rows, callers, options.rounds, options.seconds)
        memory = {name: _memory_mib(processes[name]) for name in SERVERS}
        report.rows.append(_row("memory of one worker (PSS)", "MiB", memory))
        report.notes.append("Model server, memory of one worker (PSS), MiB: " + _list(memory) + ".")
    finish(report, options.json)


def _compare(processes: dict[str, Process], rows: int, callers: int, rounds: int, seconds: float) -> list[Row]:
    request = _request(rows)
    found: dict[str, list[Measured]] = {name: [] for name in processes}
    for process in processes.values():
        asyncio.run(_measure(process.port, request, callers, 0.5))
    for _ in range(rounds):
        for name, process in processes.items():
            found[name].append(asyncio.run(_measure(process.port, request, callers, seconds)))
    medians = {name: _median(found[name]) for name in processes}
    what = f"{rows} row{'s' if rows > 1 else ''}, {callers} caller{'s' if callers > 1 else ''}"
    rates = {name: measured.rate for name, measured in medians.items()}
    p99 = {name: measured.p99 for name, measured in medians.items()}
    print(f"{what}: requests/s {_list(rates)}; p99, ms {_list(p99)}", flush=True)
    promised = rows == 1
    limit = _row(what, "requests/s", rates, more_is_better=True, peers=(CONSTANT,))
    return [
        _row(what, "requests/s", rates, more_is_better=True, at_least=LEAST_RATE if promised else None),
        *([limit] if promised else []),
        _row(f"{what}, p50", "ms", {name: measured.p50 for name, measured in medians.items()}),
        _row(f"{what}, p99", "ms", p99, at_least=LEAST_P99 if promised else None),
    ]


def _list(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def _row(
    what: str,
    unit: str,
    values: dict[str, float],
    *,
    more_is_better: bool = False,
    at_least: float | None = None,
    peers: tuple[str, ...] = SERVERS[1:],
) -> Row:
    """Ours beside the better of the peers."""
    better = max if more_is_better else min
    peer = better(peers, key=lambda name: values[name])
    return Row(
        f"model server, {what}",
        unit,
        values["lakeloop"],
        values[peer],
        peer,
        more_is_better=more_is_better,
        ratio_at_least=at_least,
    )


if __name__ == "__main__":
    main()
