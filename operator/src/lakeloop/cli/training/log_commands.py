"""`kubectl lakeloop logs`: from the pods while they are there, else from the object store."""

import queue
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lakeloop.cli import archived_logs
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import log_sources, options, output, runs, waiting
from lakeloop.cli.training.log_sources import Source, Wanted
from lakeloop.cli.training.platform import Platform
from lakeloop.cli.training.recall import Memory

LOOK_SECONDS = 1.0


@click.command("logs")
@options.job_argument
@options.on_the_cluster
@options.to_the_platform
@click.option("--run", "number", type=click.IntRange(min=1), help="Default: the newest run.")
@click.option("--attempt", type=click.IntRange(min=1), help="Default: the last one; with -f every one from now on.")
@click.option("--executor", type=click.IntRange(min=1), help="That executor's log in place of the driver's.")
@click.option("--all", "everything", is_flag=True, help="The driver's and all executors', each line with its pod.")
@click.option("--follow", "-f", is_flag=True, help="Goes on until the run is over, over all attempts.")
@click.option("--tail", type=click.IntRange(min=0), help="The last lines alone.")
@output.in_one_sentence
def show_logs(
    job: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    operator_namespace: str,
    storage_endpoint: str | None,
    tracking_uri: str | None,
    number: int | None,
    attempt: int | None,
    executor: int | None,
    everything: bool,
    follow: bool,
    tail: int | None,
) -> None:
    """What a run's driver, or an executor, wrote: live, or archived once its pods are gone."""
    if executor is not None and everything:
        raise CliError("--all has every executor: leave out --executor")
    target = options.connect(kubeconfig, context, namespace)
    found = target.jobs.get(target.namespace, job)
    run = runs.run_numbered(found, number) if number else next(iter(runs.runs_of(found)), None)
    reading = _Reading(target, job, number or (run or {}).get("number", 0), Wanted(attempt, executor, everything), tail)
    if run is not None and (reading.follow() if follow else reading.once()):
        return
    with Platform(target.jobs, operator_namespace, tracking_uri, storage_endpoint) as platform:
        uri = (run.get("logs") or {}).get("uri") if run else _recorded(target, platform, found, number)
        reading.archived(found, uri, platform)


def _recorded(target: options.Target, platform: Platform, job: Mapping[str, Any], number: int | None) -> str | None:
    """Where the logs of a run are that status has no more. Raises CliError where MLflow does not know it either."""
    name, known = job["metadata"]["name"], runs.runs_of(job)
    if number is None or any(each["number"] < number for each in known[:1]):
        there = ", ".join(str(each["number"]) for each in known) or "none"
        raise CliError(f"{name} has no run {number or 'yet'}; there is {there}")
    return Memory(target.jobs, platform, target.namespace).record(name, number).tags.get("logs")


class _Reading:
    """One run's logs, on their way to standard output."""

    def __init__(self, target: options.Target, job: str, number: int, wanted: Wanted, tail: int | None) -> None:
        self._jobs = target.jobs
        self._namespace = target.namespace
        self._job = job
        self._number = number
        self._wanted = wanted
        self._tail = tail

    def _pods(self) -> list[Mapping[str, Any]]:
        return list(self._jobs.pods(self._namespace, log_sources.selector(self._job, self._number)))

    def _print(self, source: str, line: str) -> None:
        sys.stdout.write(f"[{source}] {line}\n" if self._wanted.everything else f"{line}\n")
        sys.stdout.flush()

    def once(self) -> bool:
        """What is there now, from the pods; False where there are none (any more)."""
        pods = self._pods()
        found = log_sources.sources(pods, self._wanted)
        last = log_sources.newest_attempt([each.attempt for each in found], self._wanted)
        found = [each for each in found if each.attempt == last]
        printed = False
        for each in found:
            if not each.started:
                continue
            lines = self._jobs.log(self._namespace, each.pod, each.container, follow=False, tail=self._tail)
            if lines is None:
                continue  # gone between two looks
            printed = True
            for line in lines:
                self._print(each.label, line)
        if found and not printed:
            output.note(f"Pod {found[0].pod} has not started: {self._waits()}")
        return bool(found)

    def _waits(self) -> str:
        job = self._jobs.get(self._namespace, self._job)
        run = runs.run_numbered(job, self._number)
        return waiting.describe(job, run) if run else "its run is gone"

    def follow(self) -> bool:
        """Everything until the run is over; False where it is, and no pod is there any more."""
        lines: queue.Queue[tuple[Source, str | None]] = queue.Queue()
        at_work: set[str] = set()
        read: set[str] = set()
        said, first = "", True
        while True:
            # The job first: a pod that is made after this look belongs to a later one.
            run = runs.run_numbered(self._jobs.get(self._namespace, self._job), self._number)
            over = run is None or runs.is_over(run)
            pods = self._pods()
            meant = log_sources.sources(pods, self._wanted)
            if first:
                last = log_sources.newest_attempt([each.attempt for each in meant], self._wanted)
                read |= {each.pod for each in meant if each.attempt != last}
                first = False
            alive = {pod["metadata"]["name"] for pod in pods if log_sources.is_alive(pod, _container(pod))}
            for each in meant:
                if each.started and each.pod not in at_work and (each.pod not in read or each.pod in alive):
                    # A log that broke off goes on where it is now.
                    tail = 0 if each.pod in read else self._tail
                    if not self._wanted.everything and read:
                        output.note(f"--- {each.label}")
                    at_work.add(each.pod)
                    read.add(each.pod)
                    threading.Thread(target=self._stream, args=(each, tail, lines), daemon=True).start()
            self._drain(lines, at_work)
            if over and not at_work:
                if meant and not read:
                    output.note(f"Pod {meant[-1].pod} never started: {self._waits()}")
                return bool(meant)
            if not at_work and not over and (now := self._waits()) != said:
                said = now
                output.note(f"run {self._number}: {now}")

    def _stream(self, source: Source, tail: int | None, lines: "queue.Queue[tuple[Source, str | None]]") -> None:
        try:
            found = self._jobs.log(self._namespace, source.pod, source.container, follow=True, tail=tail)
            for line in found or ():
                lines.put((source, line))
        except CliError as error:
            lines.put((source, f"[{error}]"))
        finally:
            lines.put((source, None))

    def _drain(self, lines: "queue.Queue[tuple[Source, str | None]]", at_work: set[str]) -> None:
        """Prints what comes within a moment."""
        while True:
            try:
                source, line = lines.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                return
            if line is None:
                at_work.discard(source.pod)
                return
            self._print(source.label, line)

    def archived(self, job: Mapping[str, Any], uri: str | None, platform: Platform) -> None:
        """From the object store. Raises CliError where it has none."""
        if not uri:
            raise CliError(
                f"no {self._wanted.text} of run {self._number} is there (any more), and its log was not archived:"
                " spec.runPolicy.logs.tailBytes may be 0, or it was never launched"
            )
        store = platform.store(self._namespace, (job.get("spec") or {}).get("storage") or {})
        found = archived_logs.found_in(store.list(uri))
        last = log_sources.newest_attempt([each.attempt for each in found], self._wanted)
        wanted = replace(self._wanted, attempt=last)
        meant = [each for each in found if wanted.takes(each.role, each.attempt, each.executor)]
        if not meant:
            there = ", ".join(each.name for each in found) or "nothing"
            raise CliError(f"no log of this {self._wanted.text} is archived at {uri}; there is {there}")
        for each in meant:
            for line in archived_logs.last_lines(each, store, self._tail):
                self._print(log_sources.label(each), line)
            if not archived_logs.is_complete(each, uri, store):
                output.note(f"({log_sources.label(each)}: the end is missing: not uploaded yet, or lost with its node)")


def _container(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get("lakeloop.io/role", ""))
