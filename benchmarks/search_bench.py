"""A search of 20 trials in one run, beside 20 runs with one set of parameters each.

    make up && uv run --project operator python benchmarks/search_bench.py [--trials 20] [--parallelism 2]

Both learn from one Delta table (600 rows of 10 numbers, made here), with a driver and no executors. The clock of the
search begins when its TrainingJob is created and ends when its model is registered. That of the runs begins with the
first TrainingJob and ends with the last model: two at one time, as the search has two trials at one time.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster import STAMP, Cluster, Watch, empty_folder, named, run, run_of, training_over
from report import Report, Row, arguments, finish, say

NAMESPACE = "lakeloop-bench-search"
MODEL = "lakeloop-bench-search"
FOLDER = "lakeloop-bench-search/"
TIMEOUT = 300.0
ROWS, COLUMNS = 600, 10


def rows() -> str:
    """Two clouds of points that overlap, as JSON lines."""
    source = random.Random(0)  # noqa: S311 (data, not a secret)
    lines = []
    for index in range(ROWS):
        target = index % 2
        numbers = {f"x{column}": source.gauss(target * 0.4, 1.0) for column in range(COLUMNS)}
        lines.append(json.dumps({**numbers, "target": target}))
    return "\n".join(lines) + "\n"


@contextmanager
def raw_data(cluster: Cluster) -> Iterator[None]:
    """The rows in the bucket `raw`; afterwards they and the table are gone."""
    store = cluster.store()
    store.put_object(Bucket="raw", Key=f"{FOLDER}rows.json", Body=rows().encode())
    try:
        yield
    finally:
        for bucket in ("raw", "lake"):
            empty_folder(store, bucket, FOLDER)


def spec(*, ingest: bool = False, **parts: Any) -> dict[str, Any]:
    """A TrainingJob over the table; with `ingest`, the one that makes it."""
    table: dict[str, Any] = {"name": "points", "uri": f"s3a://lake/{FOLDER}points"}
    if ingest:
        table["ingest"] = {"from": f"s3a://raw/{FOLDER}*.json", "format": "json", "mode": "Overwrite"}
    return {
        "inputs": [table],
        "dataset": {"target": "target"},
        "estimator": {"library": "sklearn", "steps": steps(1)},
        "objective": {"metric": "roc_auc"},
        "register": {"model": MODEL},
        "tracking": {"experiment": f"{NAMESPACE}/{STAMP}"},
        "spark": {"executor": {"instances": 0}},
        **parts,
    }


def steps(c: float) -> list[dict[str, Any]]:
    """The pipeline."""
    return [
        {"class": "sklearn.preprocessing.StandardScaler"},
        {"class": "sklearn.linear_model.LogisticRegression", "params": {"C": c}},
    ]


def grid(trials: int) -> list[float]:
    """Values of C, none of which the API server would keep as an integer."""
    return [round(0.0013 * 1.7**index, 6) for index in range(trials)]


def search(cluster: Cluster, jobs: Watch, trials: int, parallelism: int) -> float:
    """Seconds of the search."""
    name = f"search-{STAMP}"
    parameters = [{"name": "1.C", "values": grid(trials)}]
    wanted = {"algorithm": "Grid", "parameters": parameters, "maxTrials": trials, "parallelism": parallelism}
    cluster.create("TrainingJob", name, spec(search=wanted))
    begun = jobs.until(named(name, "ADDED"), TIMEOUT, name).at
    over = jobs.until(lambda seen: named(name)(seen) and training_over(seen), TIMEOUT, f"the run of {name}")
    found = run_of(over.obj)["search"]
    say(f"search: {over.at - begun:.1f} s, {found['trialsFinished']} trials finished, {found['trialsPruned']} pruned")
    return over.at - begun


def separate(cluster: Cluster, jobs: Watch, trials: int, parallelism: int) -> float:
    """Seconds of so many runs, so many at one time."""
    values = dict(enumerate(grid(trials)))
    names: list[str] = []
    begun = last = 0.0
    under_way: set[str] = set()

    def over_of(seen: Any) -> bool:
        return any(named(name)(seen) for name in under_way) and training_over(seen)

    while values or under_way:
        while values and len(under_way) < parallelism:
            index = min(values)
            name = f"one-{STAMP}-{index}"
            cluster.create(
                "TrainingJob", name, spec(estimator={"library": "sklearn", "steps": steps(values.pop(index))})
            )
            added = jobs.until(named(name, "ADDED"), TIMEOUT, name).at
            begun = begun or added
            names.append(name)
            under_way.add(name)
        seen = jobs.until(over_of, TIMEOUT, f"one of {', '.join(sorted(under_way))}")
        last = seen.at
        under_way.discard(seen.obj["metadata"]["name"])
    say(f"{trials} runs: {last - begun:.1f} s")
    return last - begun


def main() -> None:
    """The table, the search, the runs."""
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--parallelism", type=int, default=2)
    options = parser.parse_args()
    trials, parallelism = options.trials, options.parallelism
    cluster = Cluster(NAMESPACE)
    with cluster.own_namespace(), raw_data(cluster):
        try:
            with cluster.watch("TrainingJob") as jobs:
                name = f"table-{STAMP}"
                cluster.create("TrainingJob", name, spec(ingest=True))
                jobs.until(lambda seen: named(name)(seen) and training_over(seen), TIMEOUT, f"the table of {name}")
                one = search(cluster, jobs, trials, parallelism)
                many = separate(cluster, jobs, trials, parallelism)
        finally:
            cluster.forget_model(MODEL)
            cluster.forget_experiment(f"{NAMESPACE}/{STAMP}")
    found = Report("search")
    found.rows = [
        Row(
            f"search of {trials} trials, {parallelism} at one time, created → model registered", "s",
            one, many, f"{trials} runs, {parallelism} at one time", ratio_at_least=5.0,
        )
    ]  # fmt: skip
    each = many * parallelism / trials
    found.notes = [f"Search: each of the {trials} runs took {each:.1f} s on average, with {parallelism} at one time."]
    finish(found, options.json)


if __name__ == "__main__":
    run(main)
