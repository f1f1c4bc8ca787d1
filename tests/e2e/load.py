"""A caller that asks all the time: what a change costs those who ask meanwhile."""

import json
import threading
import urllib.request


class Load:
    """Asks `/invocations` until stopped, ten milliseconds after each answer; counts answers by model and keeps every failure."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        body = json.dumps({"dataframe_split": {"columns": ["feature"], "data": [[1]]}}).encode()
        while not self._over.is_set():
            request = urllib.request.Request(f"{self.url}/invocations", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answer.read()
                    self.answers.append(answer.headers["x-lakeloop-model"])
            except OSError as error:
                self.failures.append(repr(error))
            self._over.wait(0.01)  # without it the caller and the server take the processors from all that is tested
