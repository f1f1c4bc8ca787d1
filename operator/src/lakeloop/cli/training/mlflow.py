"""MLflow's REST API, as far as the command line reads it. Every method raises CliError."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import urllib3

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.errors import CliError

_API = "/api/2.0/mlflow"
_PAGE = 200
Document = Mapping[str, Any]


class Mlflow:
    """One MLflow. `reached`: where it answers from here; `address`: by which name it knows itself."""

    def __init__(self, reached: str, address: str, user: tuple[str, str] | None) -> None:
        self._reached = reached.rstrip("/")
        self._address = address.rstrip("/")
        self._pool = urllib3.PoolManager(retries=urllib3.Retry(2, redirect=0), timeout=urllib3.Timeout(15))
        # MLflow answers only to the names that it was given, and a forward's is none of them.
        self._headers = {"Host": urlsplit(self._address).netloc}
        if user is not None:
            self._headers |= urllib3.make_headers(basic_auth=":".join(user))

    def _call(self, method: str, path: str, values: Mapping[str, Any]) -> Document:
        content: dict[str, Any] = {"fields": values} if method == "GET" else {"json": values}
        try:
            answer = self._pool.request(method, f"{self._reached}{_API}{path}", headers=self._headers, **content)
            found = answer.json()
        except urllib3.exceptions.HTTPError as error:
            why = getattr(error, "reason", None) or error
            raise CliError(
                f"MLflow at {self._address} does not answer: {str(why).rpartition(': ')[2]};"
                " --tracking-uri says where it is"
            ) from error
        except ValueError as error:
            raise CliError(f"{self._address} does not answer as an MLflow server (HTTP {answer.status})") from error
        if answer.status in (401, 403):
            raise CliError(
                f"MLflow at {self._address} refuses you: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        if answer.status >= 400:
            raise (
                NotFound(str(found.get("message")))
                if _absent(answer.status, found)
                else CliError(f"MLflow: {found.get('message', answer.status)}")
            )
        document: Document = found
        return document

    def _pages(self, method: str, path: str, **values: Any) -> Iterator[Document]:
        token = ""
        while True:
            page = self._call(
                method, path, {**values, "max_results": _PAGE, **({"page_token": token} if token else {})}
            )
            yield page
            token = page.get("next_page_token") or ""
            if not token:
                return

    def versions(self, *, model: str | None = None, run_id: str | None = None) -> Sequence[ModelVersion]:
        """All registered versions, of one model, of one run or of all, newest first."""
        asked = {"name": model, "run_id": run_id}
        conditions = [f"{key} = {quoted(value)}" for key, value in asked.items() if value]
        condition = {"filter": " AND ".join(conditions)} if conditions else {}
        found = [
            version(each)
            for page in self._pages("GET", "/model-versions/search", **condition)
            for each in page.get("model_versions") or ()
        ]
        return sorted(found, key=lambda each: -each.created_ms)

    def aliases(self) -> Mapping[tuple[str, int], Sequence[str]]:
        """The aliases of each version that has some."""
        found: dict[tuple[str, int], list[str]] = {}
        for page in self._pages("GET", "/registered-models/search"):
            for model in page.get("registered_models") or ():
                for each in model.get("aliases") or ():
                    found.setdefault((model["name"], int(each["version"])), []).append(each["alias"])
        return found

    def version(self, model: str, number: int) -> ModelVersion:
        """One version, with its aliases."""
        return version(
            self._call("GET", "/model-versions/get", {"name": model, "version": str(number)})["model_version"]
        )

    def by_alias(self, model: str, alias: str) -> ModelVersion:
        """The version that the alias points to."""
        return version(self._call("GET", "/registered-models/alias", {"name": model, "alias": alias})["model_version"])

    def run(self, run_id: str) -> Document:
        """A run with its parameters, metrics, tags and datasets."""
        found: Document = self._call("GET", "/runs/get", {"run_id": run_id})["run"]
        return found

    def runs_tagged(self, tags: Mapping[str, str], limit: int = 5) -> Sequence[Document]:
        """Runs of any experiment that have all these tags, newest first."""
        experiments = [
            each["experiment_id"]
            for page in self._pages("POST", "/experiments/search", view_type="ALL")
            for each in page.get("experiments") or ()
        ]
        condition = " AND ".join(f"tags.`{key}` = {quoted(value)}" for key, value in tags.items())
        found: list[Document] = []
        # MLflow looks through a few hundred experiments at a time.
        for start in range(0, len(experiments), 200):
            answer = self._call(
                "POST",
                "/runs/search",
                {
                    "experiment_ids": experiments[start : start + 200],
                    "filter": condition,
                    "max_results": limit,
                    "order_by": ["attributes.start_time DESC"],
                },
            )
            found += answer.get("runs") or ()
        return found


class NotFound(CliError):
    """MLflow has no such model, version, alias or run."""


def _absent(status: int, found: Mapping[str, Any]) -> bool:
    message = str(found.get("message", "")).lower()
    # An alias that is not there is answered with 400 INVALID_PARAMETER_VALUE.
    return status == 404 or found.get("error_code") == "RESOURCE_DOES_NOT_EXIST" or "alias" in message


def quoted(value: str) -> str:
    """A string of MLflow's filter language, which has no escape."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def pairs(found: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """MLflow's list of keys and values as a mapping."""
    return {each["key"]: each.get("value", "") for each in found or ()}


def version(found: Document) -> ModelVersion:
    """A model version of MLflow's answer."""
    return ModelVersion(
        name=found["name"],
        version=int(found["version"]),
        source=found.get("source", ""),
        run_id=found.get("run_id") or None,
        status=found.get("status", "READY"),
        tags=pairs(found.get("tags")),
        aliases=tuple(found.get("aliases") or ()),
        created_ms=int(found.get("creation_timestamp") or 0),
        model_id=found.get("model_id") or None,
        description=found.get("description", ""),
    )
