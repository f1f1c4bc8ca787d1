"""`spec.estimator` with `library: sklearn`: the rows come into this process, and a pipeline is fitted on them."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.attempt import Attempt, tracking_errors
from lakeloop_trainer.cgroup import container_memory_limit
from lakeloop_trainer.methods import measured
from lakeloop_trainer.result import Outcome
from lakeloop_trainer.spark_conf import memory_for_rows

if TYPE_CHECKING:
    from lakeloop_trainer.champion import Champion, Comparison
    from lakeloop_trainer.dataset import Rows
    from lakeloop_trainer.training import Evaluation

log = logging.getLogger("lakeloop_trainer")


def train(attempt: Attempt) -> Outcome:
    """Fits, evaluates, explains and logs; raises RunFailure or whatever the libraries raise."""
    attempt.start_spark()
    # libraries load while the JVM starts; what is wrong with the estimator is found before any data is read
    with attempt.stages.measure("import libraries"):
        from lakeloop_trainer import training
        from lakeloop_trainer.estimator import build
        from lakeloop_trainer.search import sklearn_search

        pipeline = build(attempt.spec.steps)
        sklearn_search.check(attempt, pipeline)
        attempt.ask_mlflow()
        fetching = _champion(attempt)
        import sklearn.metrics  # noqa: F401
    spark = attempt.open_tables()
    champion = fetching.result() if fetching else None
    rows = _read(attempt, spark, champion)
    pipeline = sklearn_search.best(attempt, pipeline, rows, spark)
    champion = _scored_by_spark(attempt, champion, pipeline, rows)
    attempt.stop_spark()
    described = attempt.describe(_params(attempt, pipeline, rows))

    attempt.progress.stage("Training", 50)
    with attempt.stages.measure("fit"):
        training.fit(pipeline, rows)
    attempt.progress.stage("Evaluating", 70)
    with attempt.stages.measure("evaluate"):
        evaluation = training.evaluate(pipeline, rows, attempt.spec.objective)
    compared = _compared(attempt, champion, pipeline, rows, evaluation)
    attempt.progress.stage("Logging", 80)
    return _logged(attempt, pipeline, rows, evaluation, compared, described)


def _champion(attempt: Attempt) -> Future[Champion] | None:
    if attempt.spec.champion is None:
        return None
    from lakeloop_trainer import champion

    folder = attempt.work / "champion"
    return attempt.after_imports("fetch the champion", champion.fetch, attempt.spec.champion, folder)


def _scored_by_spark(attempt: Attempt, found: Champion | None, pipeline: Any, rows: Rows) -> Champion | None:
    """A champion of Spark ML is scored while Spark is there; of any other nothing happens yet."""
    from lakeloop_trainer.champion import SparkModel

    if found is None or not isinstance(found.model, SparkModel):
        return found
    from lakeloop_trainer import metrics as measures
    from lakeloop_trainer.spark_ml.champion import scored_beside

    wanted = attempt.spec.objective
    with attempt.stages.measure("score the champion"):
        default = measures.default_objective(measures.is_classifier(pipeline), rows.train_target.nunique())
        return scored_beside(found, rows, wanted.metric if wanted else default, local=attempt.shares_files())


def _compared(
    attempt: Attempt, found: Champion | None, pipeline: Any, rows: Rows, evaluation: Evaluation
) -> Comparison | None:
    if found is None:
        return None
    from lakeloop_trainer import champion
    from lakeloop_trainer.tracking import signature_of

    with attempt.stages.measure("score the champion"):
        test = evaluation.measured_on == "test"
        features, truth = (rows.test_features, rows.test_target) if test else (rows.train_features, rows.train_target)
        signature = signature_of(rows.train_features, pipeline.predict(rows.train_features.head(5)))
        compared = champion.compare(found, features.join(rows.extra), truth, evaluation.objective, signature)
    if compared.problem:
        log.warning("the champion, version %d, could not be scored: %s", compared.version, compared.problem)
    return compared


def _read(attempt: Attempt, spark: Any, found: Champion | None) -> Rows:
    from lakeloop_trainer import champion, dataset

    with attempt.stages.measure("read rows"):
        room = memory_for_rows(attempt.conf, container_memory_limit())
        rows = dataset.read(
            spark, attempt.spec.dataset, attempt.spec.inputs, room,
            partial(champion.extra_columns, found), attempt.check_expectations,
            for_folds=attempt.spec.search is not None,
        )  # fmt: skip
    log.info(
        "%d training rows, %d test rows, %d without a target left out",
        len(rows.train_target), len(rows.test_target), rows.without_target,
    )  # fmt: skip
    return rows


def _params(attempt: Attempt, pipeline: Any, rows: Rows) -> dict[str, object]:
    from lakeloop_trainer.dataset import query_of, split_params
    from lakeloop_trainer.estimator import effective_params

    dataset, split = attempt.spec.dataset, attempt.spec.dataset.split
    return {
        **{f"steps.{index}.class": step.class_path for index, step in enumerate(attempt.spec.steps)},
        **effective_params(pipeline),
        "dataset.target": dataset.target,
        "dataset.features": ",".join(map(str, rows.train_features.columns)),
        "dataset.query": query_of(dataset, attempt.spec.inputs),
        **split_params(split, rows.test_from),
        "dataset.rows.train": len(rows.train_target),
        "dataset.rows.test": len(rows.test_target),
        "dataset.rows.withoutTarget": rows.without_target,
        **attempt.input_params(),
    }


def _logged(
    attempt: Attempt,
    pipeline: Any,
    rows: Rows,
    evaluation: Evaluation,
    compared: Comparison | None,
    described: Future[None],
) -> Outcome:
    from lakeloop_trainer import training
    from lakeloop_trainer.estimator import effective_params, pipeline_code

    tracker, spec = attempt.tracker(), attempt.spec
    with tracking_errors("Logging the model"):
        model_logged = attempt.beside(
            "log model", tracker.model, pipeline, rows.train_features,
            effective_params(pipeline), [step.class_path for step in spec.steps],
        )  # fmt: skip
        folder = attempt.work
        (folder / "pipeline.py").write_text(pipeline_code(spec.steps, pipeline))
        files = {"code/pipeline.py": folder / "pipeline.py"}
        with attempt.stages.measure("draw plots"):
            files |= {f"plots/{path.name}": path for path in training.draw(folder, pipeline, evaluation)}
        with attempt.stages.measure("explain"):
            files |= _explanations(attempt, folder / "explanation", pipeline, rows, evaluation)
        with attempt.stages.measure("log artifacts"):
            tracker.artifacts(files)
            tracker.document("lakeloop/run.json", spec.raw)
        with attempt.stages.measure("wait for model logged"):
            model = model_logged.result()
        return measured.outcome(attempt, evaluation, model, compared, described)


def _explanations(attempt: Attempt, folder: Path, pipeline: Any, rows: Rows, evaluation: Evaluation) -> dict[str, Path]:
    from lakeloop_trainer import explain

    test = evaluation.measured_on == "test"
    features, truth = (rows.test_features, rows.test_target) if test else (rows.train_features, rows.train_target)
    which = "test rows" if test else "training rows"
    wanted, seed = attempt.spec.explanation, attempt.spec.dataset.split.seed

    def write() -> list[Path]:
        if wanted.method == "SHAP":
            from lakeloop_trainer.shap_report import shap

            sample = features.sample(n=min(len(features), wanted.sample_rows), random_state=seed)
            classes = pipeline.classes_.tolist() if hasattr(pipeline, "classes_") else []
            return shap(folder, sample, explain.asks_pipeline(pipeline, sample), classes, seed, which)
        return explain.permutation(
            folder, pipeline, features, truth, evaluation.objective, wanted.sample_rows, seed, which
        )

    return explain.explained(attempt, folder, write)
