"""`lakeloop-server`: the program of a server pod.

Order of a start: socket and starting process (alive, not ready) → files from the store while MLflow is imported →
digest, signature and environment → load → fork, warm-up in each worker → ready.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from lakeloop_server import logs, serving, starting
from lakeloop_server.errors import LoadError, Reason
from lakeloop_server.settings import Settings, SettingsError, cpu_limit, process_environment
from lakeloop_server.supervisor import Child, Supervisor, exit_now, fork, stop_child

logger = logging.getLogger(__name__)
EXIT_LOAD_FAILED = 3


def main() -> None:
    """Runs the server; exits 0 after a drain, 3 when the model must not or cannot serve, 1 when it breaks later."""
    children: list[Child] = []
    # Before anybody can know that this process is there
    _stop_at_once_on_signals(children)
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        logs.configure("", "")
        path = Path(os.environ.get("LAKELOOP_TERMINATION_LOG") or "/dev/termination-log")
        _give_up(LoadError(Reason.LOAD_FAILED, str(error)), path)
    logs.configure(settings.model_name, settings.model_version)
    os.environ.update(process_environment(settings, os.environ, cpu_limit()))
    # Read by prometheus_client at its import
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="lakeloop-metrics-")

    sock = serving.listen(settings.host, settings.port)
    logger.info("listening on port %s", sock.getsockname()[1])
    children.append(fork(lambda parent: starting.serve(sock, parent, settings.model), []))
    try:
        code = _serve(settings, sock, children[0])
    except LoadError as error:
        _give_up(error, settings.termination_log)
    exit_now(code)


def _serve(settings: Settings, sock: socket.socket, starting_process: Child) -> int:
    phases: dict[str, float] = {}
    gc.disable()  # what is loaded stays: to look for garbage again and again takes a tenth of a start
    try:
        model = _load(settings, phases)
    except LoadError:
        raise
    except Exception as error:
        # A mistake of ours, or of a library: still a reason that the operator can tell
        raise LoadError(Reason.LOAD_FAILED, f"{type(error).__name__}: {str(error)[:1000]}") from error
    # MLflow is imported only by now
    from prometheus_client.multiprocess import mark_process_dead

    from lakeloop_server import worker

    def run_worker(parent: socket.socket) -> None:
        worker.serve(model, settings, sock, parent, phases)

    supervisor = Supervisor(settings.workers, settings.drain_seconds, run_worker, on_death=mark_process_dead)
    return supervisor.start(lambda: stop_child(starting_process), sock)


def _load(settings: Settings, phases: dict[str, float]) -> Any:
    """The model in memory; `phases` receives the seconds that each part took."""
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(_fetch, settings, phases)
        # Most of a start is this import: the files come meanwhile
        import mlflow.pyfunc
        import mlflow.pyfunc.scoring_server  # noqa: F401

        from lakeloop_server import model

        phases["import"] = time.monotonic() - started
        folder, digest = fetching.result()
    warnings = model.check(folder, model.read_mlmodel(folder), settings)
    for warning in warnings:
        logger.warning("%s", warning)
    loading = time.monotonic()
    loaded = model.load(folder, digest, warnings, settings)
    phases["load"] = time.monotonic() - loading
    phases["total"] = time.monotonic() - started
    logger.info("loaded %s in %.1f s (%s)", digest, phases["total"], {k: round(v, 2) for k, v in phases.items()})
    return loaded


def _fetch(settings: Settings, phases: dict[str, float]) -> tuple[Path, str]:
    from lakeloop_server.fetch import fetch

    started = time.monotonic()
    result = fetch(settings)
    phases["fetch"] = time.monotonic() - started
    return result


def _stop_at_once_on_signals(children: list[Child]) -> None:
    """While the model is on its way there is nothing to drain."""

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _give_up(error: LoadError, termination_log: Path) -> NoReturn:
    logger.error("%s", error)
    try:
        termination_log.write_text(error.termination_message())
    except OSError as problem:
        print(f"cannot write {termination_log}: {problem.strerror}", file=sys.stderr)
    exit_now(EXIT_LOAD_FAILED)


if __name__ == "__main__":
    main()
