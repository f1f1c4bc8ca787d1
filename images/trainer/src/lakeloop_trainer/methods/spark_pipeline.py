"""`spec.estimator` with `library: spark`: the rows stay on the executors, and a Spark pipeline is fitted there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.attempt import Attempt, tracking_errors
from lakeloop_trainer.methods import measured
from lakeloop_trainer.result import Outcome

if TYPE_CHECKING:
    from lakeloop_trainer.champion import Champion, Comparison
    from lakeloop_trainer.spark_ml.evaluation import Evaluation
    from lakeloop_trainer.spark_ml.rows import Rows
    from lakeloop_trainer.spark_ml.wiring import Wiring
    from lakeloop_trainer.tracking import LoggedModel

SIGNATURE_ROWS = 100
EXAMPLE_ROWS = 5

log = logging.getLogger("lakeloop_trainer")


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline: up to the learner, for metrics, and with the classes' names at its end, to be served."""

    learned: Any
    served: Any
    wiring: Wiring
    code: str
    params: Mapping[str, Any]


def train(attempt: Attempt) -> Outcome:
    """Fits, evaluates, explains and logs; raises RunFailure or whatever the libraries raise."""
    attempt.start_spark()
    dataset, inputs = attempt.spec.dataset, attempt.spec.inputs
    # libraries load while the JVM starts; what is wrong with the steps is found before any data is read
    with attempt.stages.measure("import libraries"):
        from lakeloop_trainer.champion import extra_columns
        from lakeloop_trainer.search import spark_ml_search
        from lakeloop_trainer.spark_ml import pipeline
        from lakeloop_trainer.spark_ml import rows as reading
        from lakeloop_trainer.spark_ml import steps as checking
        from lakeloop_trainer.spark_ml.evaluation import evaluate, objective_of
        from lakeloop_trainer.spark_ml.trouble import failure_of

        stages = checking.check(attempt.spec.steps, dataset.split.seed)
        classifier = checking.classifies(stages[-1].cls)
        if attempt.spec.objective is not None:
            objective_of(attempt.spec.objective, classifier=classifier, classes=0)
        spark_ml_search.check(attempt)
        attempt.ask_mlflow()
        fetching = _champion(attempt)
    spark = attempt.open_tables()
    champion = fetching.result() if fetching else None
    beside = partial(extra_columns, champion)
    searched = attempt.spec.search is not None
    selected = reading.select(spark, dataset, inputs, beside, attempt.check_expectations, for_folds=searched)
    given = pipeline.of_columns(stages, selected, named=dataset.features is not None)
    spark_ml_search.check_values(attempt, selected)
    with attempt.stages.measure("read rows"):
        rows = reading.read(selected, dataset, inputs, classifier=classifier)
    log.info(
        "%d training rows, %d test rows, %d without a target left out",
        rows.train_count, rows.test_count, rows.without_target,
    )  # fmt: skip
    wiring, built = spark_ml_search.best(attempt, spark, selected, given, rows)
    attempt.progress.stage("Training", 50)
    with attempt.stages.measure("fit"):
        fitted = _fit(wiring, built, rows)
    described = attempt.describe(_params(attempt, fitted, rows, selected.test_from))
    attempt.progress.stage("Evaluating", 70)
    with attempt.stages.measure("evaluate"):
        try:
            evaluation = evaluate(fitted.learned, wiring, rows, attempt.spec.objective, dataset.split.seed)
        except Exception as error:
            raise failure_of(error, "Scoring the model", "EvaluationFailed", rows) from error
    attempt.progress.stage("Logging", 80)
    signature = _signature(spark, fitted, rows)
    compared = _compared(attempt, champion, rows, evaluation, signature[0])
    return _logged(attempt, spark, fitted, rows, evaluation, compared, signature, described)


def _champion(attempt: Attempt) -> Future[Champion] | None:
    pinned = attempt.spec.champion
    if pinned is None:
        return None
    from lakeloop_trainer import champion

    return attempt.after_imports("fetch the champion", champion.fetch, pinned, attempt.work / "champion")


def _compared(
    attempt: Attempt, found: Champion | None, rows: Rows, evaluation: Evaluation, signature: Any
) -> Comparison | None:
    if found is None:
        return None
    from lakeloop_trainer import champion
    from lakeloop_trainer.cgroup import container_memory_limit
    from lakeloop_trainer.spark_conf import memory_for_rows
    from lakeloop_trainer.spark_ml.champion import scored

    with attempt.stages.measure("score the champion"):
        room = memory_for_rows(attempt.conf, container_memory_limit())
        there = scored(found, rows, evaluation.objective, local=attempt.shares_files(), room=room)
        compared = champion.compare(there, None, None, evaluation.objective, signature)
    if compared.problem:
        log.warning("the champion, version %d, could not be scored: %s", compared.version, compared.problem)
    return compared


def _signature(spark: Any, fitted: Fitted, rows: Rows) -> tuple[Any, Any]:
    """The model's signature, and some rows without their target, as examples."""
    from lakeloop_trainer.spark_ml import saving
    from lakeloop_trainer.split import quoted
    from lakeloop_trainer.tracking import signature_of

    columns = [quoted(name) for name in rows.features]
    some = rows.sample(rows.side(test=False).select(*columns), SIGNATURE_ROWS, rows.train_count, 0)
    features = some.to_pandas()
    answers = fitted.served.transform(spark.createDataFrame(some.slice(0, EXAMPLE_ROWS))).select("prediction")
    signature = signature_of(features, [row["prediction"] for row in answers.collect()])
    # the sample may hold none of the NULLs that there are
    signature.inputs = saving.with_optional(signature.inputs, rows.null_columns())
    return signature, features.head(EXAMPLE_ROWS)


def _fit(wiring: Wiring, built: Sequence[Any], rows: Rows) -> Fitted:
    from pyspark.ml import PipelineModel

    from lakeloop_trainer.spark_ml import pipeline
    from lakeloop_trainer.spark_ml.steps import code_of
    from lakeloop_trainer.spark_ml.trouble import failure_of

    pipeline.check_classes(wiring, rows)
    try:
        learned = pipeline.fit(wiring, built, rows, rows.side(test=False))
    except Exception as error:
        raise failure_of(error, "The pipeline's fit", "FitFailed", rows) from error
    served = PipelineModel([*learned.stages, *pipeline.answer_stages(wiring, rows.classes)])
    written = [(step.class_path, params) for step, params in wiring.stages] + pipeline.answer(wiring, rows.classes)
    return Fitted(learned, served, wiring, code_of(written), pipeline.effective_params(wiring, built))


def _params(attempt: Attempt, fitted: Fitted, rows: Rows, test_from: str) -> dict[str, object]:
    from lakeloop_trainer.dataset import query_of, split_params

    dataset, split = attempt.spec.dataset, attempt.spec.dataset.split
    return {
        **{f"steps.{index}.class": step.class_path for index, step in enumerate(attempt.spec.steps)},
        **fitted.params,
        "dataset.target": dataset.target,
        "dataset.features": ",".join(rows.features),
        "dataset.query": query_of(dataset, attempt.spec.inputs),
        **split_params(split, test_from),
        "dataset.rows.train": rows.train_count,
        "dataset.rows.test": rows.test_count,
        "dataset.rows.withoutTarget": rows.without_target,
        **attempt.input_params(),
    }


def _logged(
    attempt: Attempt,
    spark: Any,
    fitted: Fitted,
    rows: Rows,
    evaluation: Evaluation,
    compared: Comparison | None,
    signature: tuple[Any, Any],
    described: Future[None],
) -> Outcome:
    from lakeloop_trainer.spark_ml import report

    tracker, spec = attempt.tracker(), attempt.spec
    with tracking_errors("Logging the model"):
        with attempt.stages.measure("log model"):
            model = _log_model(attempt, spark, fitted, rows, signature)
        folder = attempt.work
        (folder / "pipeline.py").write_text(fitted.code)
        files = {"code/pipeline.py": folder / "pipeline.py"}
        with attempt.stages.measure("draw plots"):
            files |= {f"plots/{path.name}": path for path in report.draw(folder, rows, evaluation)}
        with attempt.stages.measure("explain"):
            files |= _explanations(attempt, folder / "explanation", spark, fitted, rows, evaluation.objective)
        rows.release()
        with attempt.stages.measure("log artifacts"):
            tracker.artifacts(files)
            tracker.document("lakeloop/run.json", spec.raw)
        return measured.outcome(attempt, evaluation, model, compared, described)


def _log_model(attempt: Attempt, spark: Any, fitted: Fitted, rows: Rows, signature: tuple[Any, Any]) -> LoggedModel:
    from lakeloop_trainer.spark_ml import saving
    from lakeloop_trainer.spark_ml.champion import metadata_of

    tracker = attempt.tracker()
    shared = None if attempt.shares_files() else f"{tracker.artifact_uri}/lakeloop/saving-{attempt.number}"

    def save(folder: Path, model: Any) -> None:
        model.metadata = metadata_of(fitted.wiring, rows.classes)
        saving.save(spark, fitted.served, folder, model, *signature, shared)

    return tracker.log_model(save, fitted.params, {"lakeloop.io/serialization": "spark"}, signature=True)


def _explanations(
    attempt: Attempt, folder: Path, spark: Any, fitted: Fitted, rows: Rows, objective: str
) -> dict[str, Path]:
    from lakeloop_trainer import explain
    from lakeloop_trainer.spark_ml import report

    wanted, seed = attempt.spec.explanation, attempt.spec.dataset.split.seed

    def write() -> Sequence[Path]:
        return report.explain(folder, spark, fitted.learned, fitted.wiring, rows, objective, wanted, seed)

    return explain.explained(attempt, folder, write)
