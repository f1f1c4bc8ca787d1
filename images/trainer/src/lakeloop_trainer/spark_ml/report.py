"""What is drawn and told of a Spark model, from counts and from samples of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakeloop_trainer.run_spec import Explanation
from lakeloop_trainer.spark_ml.evaluation import Evaluation
from lakeloop_trainer.spark_ml.rows import Rows
from lakeloop_trainer.spark_ml.wiring import Wiring


def draw(folder: Path, rows: Rows, evaluation: Evaluation) -> list[Path]:
    """The plots of the evaluation as PNG files, as for scikit-learn."""
    import numpy as np

    from lakeloop_trainer import plots

    test = evaluation.measured_on == "test"
    which = "test rows" if test else "training rows"
    count, shown = rows.test_count if test else rows.train_count, len(evaluation.sample.truth)
    sampled = which if shown == count else f"{shown} of {count} {which}"
    if not rows.classes:
        return plots.regressor_plots(folder, evaluation.sample, sampled)
    classes = list(rows.classes)
    labels = classes + sorted({truth for truth, _, _ in evaluation.confusion} - set(classes), key=str)
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    for truth, guess, number in evaluation.confusion:
        matrix[labels.index(truth), labels.index(guess)] += number
    written = [plots.confusion_plot(folder / "confusion_matrix.png", labels, matrix, which)]
    if evaluation.sample.scores is not None and len(set(evaluation.sample.truth.tolist()) & set(classes)) > 1:
        written.append(plots.roc_plot(folder / "roc.png", classes, evaluation.sample, sampled))
    return written


def explain(
    folder: Path, spark: Any, model: Any, wiring: Wiring, rows: Rows, objective: str, wanted: Explanation, seed: int
) -> list[Path]:
    """The explanation's files; raises LeftOut, or what Spark raises."""
    import numpy as np

    from lakeloop_trainer.explain import Answers, stacked_permutation
    from lakeloop_trainer.spark_ml.predictor import Predictor
    from lakeloop_trainer.split import quoted

    test = rows.test_count > 0
    which, count = ("test rows", rows.test_count) if test else ("training rows", rows.train_count)
    label = wiring.label
    # a class that training never saw has no index
    labelled = rows.labelled(rows.side(test=test), label).filter(f"{quoted(label)} IS NOT NULL")
    columns = [quoted(name) for name in rows.features]
    table = rows.sample(labelled.select(*columns, quoted(label)), wanted.sample_rows, count, seed)
    table = table.take(np.random.default_rng(seed).permutation(table.num_rows))
    truth, sample = table.column(label).to_numpy(), table.drop_columns([label])
    predictor = Predictor(spark, model, wiring, sample, rows.classes)

    def ask(cells: Any) -> Answers:
        return Answers(*predictor(cells))

    if wanted.method == "SHAP":
        from lakeloop_trainer.shap_report import shap

        return shap(folder, sample.to_pandas(), ask, rows.classes, seed, which)
    return stacked_permutation(folder, list(rows.features), ask, truth, len(rows.classes), objective, seed, which)
