"""A benchmark that is ended takes away what it made, however often it is told to end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PROGRAM = """
import signal
from cluster import run

def main():
    try:
        print("made", flush=True)
        signal.pause()
    finally:
        print("going", flush=True)
        input()  # a slow removal, which the second signal reaches
        print("gone", flush=True)

run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_second_signal_does_not_end_the_removal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=BENCHMARKS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "made\n"
        process.send_signal(number)
        assert process.stdout.readline() == "going\n"
        process.send_signal(number)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "gone\n"
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode == 1
