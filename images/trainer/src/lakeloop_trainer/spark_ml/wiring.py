"""Which column goes into which step, where the user's parameters do not say it.

Spark's learners take one vector, tables have columns. So, unless the parameters name columns: StringIndexer gets the
text features, OneHotEncoder what StringIndexer made, Imputer the numeric features; a step that works on a vector
(scalers, PCA …) and the learner get all that is there by then, put together by a VectorAssembler where the user has
none. Pure: no session is needed to decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.spark_ml.steps import Stage, classifies, parameters_of

PREDICTION = "prediction"
"""The one column that MLflow's spark flavor gives back."""
ASSEMBLER = "pyspark.ml.feature.VectorAssembler"
_TEXT = ("string", "varchar", "char")
_ON_VECTORS = frozenset(
    {
        "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer", "PCA", "PolynomialExpansion",
        "VectorIndexer", "DCT", "ElementwiseProduct", "VectorSlicer", "ChiSqSelector", "UnivariateFeatureSelector",
        "VarianceThresholdSelector",
    }
)  # fmt: skip
# What these make is a list of words: no assembler takes it.
_WORDS = frozenset({"Tokenizer", "RegexTokenizer", "StopWordsRemover", "NGram"})
_INPUTS = ("inputCol", "inputCols", "featuresCol", "itemsCol")
_OUTPUTS = ("outputCol", "outputCols")


@dataclass(frozen=True)
class Wiring:
    """The stages of the pipeline up to the learner, with every column named."""

    stages: tuple[tuple[Stage, Mapping[str, Any]], ...]
    """A step and its parameters; steps with index -1 were put in."""
    label: str
    """The column of the label; for a classifier the class's index."""
    raw_prediction: str
    """What the learner predicts: for a classifier the class's index, for a regressor `PREDICTION`."""
    scores: str | None
    """A classifier's vector of probabilities, else of decision values."""
    probabilities: bool
    """Whether ``scores`` are probabilities."""


def wire(steps: Sequence[Stage], features: Mapping[str, str], target: str, *, named: bool) -> Wiring:
    """Names every column. ``features``: the feature columns' Spark types; ``named``: whether the user listed them.

    Raises:
        RunFailure: InvalidParameter, NonNumericFeature or SchemaMismatch.
    """
    return _Wirer(features, target, named).wire(steps)


class _Wirer:
    def __init__(self, features: Mapping[str, str], target: str, named: bool) -> None:
        self._features = features
        self._taken = {name.lower() for name in (*features, target)}
        self._named = named
        if PREDICTION in self._taken:
            raise RunFailure(
                "SchemaMismatch",
                f"a column is named {PREDICTION}, as the model's answer is; rename it in spec.dataset.query",
                "spec.dataset.query",
            )
        if odd := [name for name in features if "." in name or "`" in name]:
            raise RunFailure(
                "SchemaMismatch",
                f"Spark ML reads no column with a dot or a backtick in its name: rename {', '.join(odd[:10])} in "
                "spec.dataset.query, or leave it out of spec.dataset.features",
                "spec.dataset.query",
            )
        self._taken.add(PREDICTION)
        self._texts = [name for name, kind in features.items() if kind.startswith(_TEXT)]
        self._loose = [name for name in features if name not in self._texts]
        self._indexed: list[str] = []
        self._vector: str | None = None
        self._done: list[tuple[Stage, Mapping[str, Any]]] = []

    def wire(self, steps: Sequence[Stage]) -> Wiring:
        for step in steps:  # no weight is a feature, whichever step it weighs in
            if weight := step.params.get("weightCol"):
                self._check(step, "weightCol", [weight])
                self._use([weight])
        label = self._new("label")
        for step in steps[:-1]:
            self._transform(step, label)
        last = steps[-1]
        classifier = classifies(last.cls)
        params = dict(last.params)
        if "featuresCol" in params:
            self._check(last, "featuresCol", [params["featuresCol"]])
        else:
            params["featuresCol"] = self._all_in_one(last)
        known = parameters_of(last.cls)
        scores = next((name for name in ("probabilityCol", "rawPredictionCol") if name in known), None)
        for name in ("rawPredictionCol", "probabilityCol"):
            if name in known:
                params[name] = self._new(params.get(name, name.removesuffix("Col")))
        predicted = self._new("predicted_class") if classifier else PREDICTION
        params |= {"labelCol": label, "predictionCol": predicted}
        self._done.append((last, params))
        return Wiring(
            tuple(self._done), label, predicted, params[scores] if classifier and scores else None,
            classifier and scores == "probabilityCol",
        )  # fmt: skip

    def _transform(self, step: Stage, label: str) -> None:
        known, params = parameters_of(step.cls), dict(step.params)
        if "labelCol" in known:
            params["labelCol"] = label
        written = next((name for name in _INPUTS if name in params), None)
        if written:
            inputs = params[written] if isinstance(params[written], list) else [params[written]]
            self._check(step, written, inputs)
        elif step.name in _ON_VECTORS:
            inputs = [self._all_in_one(step)]
            params["inputCol" if "inputCol" in known else "featuresCol"] = inputs[0]
        elif any(name in known for name in _INPUTS):
            inputs = self._default_inputs(step)
            params["inputCols"] = inputs
        else:  # SQLTransformer: its statement says it
            inputs = []
        outputs = self._outputs(step, params, inputs)
        self._done.append((step, params))
        self._account(step, inputs, outputs, chosen=bool(written))

    def _default_inputs(self, step: Stage) -> list[str]:
        if step.name == "VectorAssembler":
            return self._everything(step)
        numbers = [name for name in self._loose if self._features.get(name, "boolean") != "boolean"]
        candidates = {
            "StringIndexer": (self._texts, "there is no text column among the features"),
            "OneHotEncoder": (self._indexed, "no StringIndexer is before it"),
            "Imputer": (numbers, "there is no numeric column among the features"),
        }
        field = f"{step.path}.params.inputCol"
        if step.name not in candidates:
            raise RunFailure("InvalidParameter", f"{field}: say which column {step.name} works on", field)
        inputs, reason = candidates[step.name]
        if not inputs:
            raise RunFailure("InvalidParameter", f"{field}: {reason}; say which column, or drop the step", field)
        return list(inputs)

    def _outputs(self, step: Stage, params: dict[str, Any], inputs: Sequence[str]) -> list[str]:
        known = parameters_of(step.cls)
        written = next((name for name in _OUTPUTS if name in params), None)
        if written:
            found = params[written] if isinstance(params[written], list) else [params[written]]
            for name in found:
                if name.lower() in self._taken:
                    field = f"{step.path}.params.{written}"
                    raise RunFailure("InvalidParameter", f"{field}: there is a column {name} already", field)
                self._taken.add(name.lower())
            return list(found)
        several = "inputCols" in params and "outputCols" in known
        if several:
            suffix = {"StringIndexer": "index", "OneHotEncoder": "vector", "Imputer": "imputed"}.get(
                step.name, step.name.lower()
            )
            params["outputCols"] = [self._new(f"{name}_{suffix}") for name in inputs]
            return list(params["outputCols"])
        if "outputCol" in known:
            assembles = step.name in _ON_VECTORS or step.name == "VectorAssembler"
            default = "features" if assembles else f"{'_'.join(inputs[:1])}_{step.name.lower()}"
            params["outputCol"] = self._new(default)
            return [params["outputCol"]]
        return []

    def _account(self, step: Stage, inputs: Sequence[str], outputs: Sequence[str], *, chosen: bool) -> None:
        self._use(inputs)
        if step.name == "VectorAssembler" or step.name in _ON_VECTORS:
            if step.name == "VectorAssembler" and chosen:
                self._texts, self._loose = [], []  # the user chose; the rest is left out on purpose
            self._vector = outputs[0] if outputs else self._vector
        elif step.name not in _WORDS:
            self._loose += outputs
        if step.name == "StringIndexer":
            self._indexed += outputs

    def _use(self, inputs: Sequence[str]) -> None:
        for columns in (self._texts, self._loose, self._indexed):
            columns[:] = [name for name in columns if name not in inputs]
        if self._vector in inputs:
            self._vector = None

    def _everything(self, step: Stage) -> list[str]:
        if self._texts:
            field = "spec.dataset.features"
            raise RunFailure(
                "NonNumericFeature",
                f"Spark's learners take numbers; column(s) {', '.join(self._texts[:10])} are strings. Add a step "
                "pyspark.ml.feature.StringIndexer (and OneHotEncoder) at the beginning, turn them into numbers in "
                f"spec.dataset.query, or leave them out {'of' if self._named else 'by writing'} {field}",
                field,
            )
        found = [*([self._vector] if self._vector else []), *self._loose]
        if not found:
            raise RunFailure("InvalidParameter", f"{step.path}: no column is left for {step.name}", step.path)
        return found

    def _all_in_one(self, step: Stage) -> str:
        """The vector with all that is there: the one that there is, or a new one."""
        if self._vector and not self._loose and not self._texts:
            return self._vector
        inputs = self._everything(step)
        assembler = _assembler()
        output = self._new("features")
        self._done.append((assembler, {"inputCols": inputs, "outputCol": output}))
        self._use(inputs)
        self._vector = output
        return output

    def _check(self, step: Stage, parameter: str, names: Sequence[str]) -> None:
        sql = any(done.name == "SQLTransformer" for done, _ in self._done)  # makes columns that nobody knows yet
        for name in names:
            if name.lower() not in self._taken and not sql:
                field = f"{step.path}.params.{parameter}"
                made = ", ".join([*self._features][:20])
                raise RunFailure(
                    "InvalidParameter",
                    f"{field}: there is no column {name} at this step; the features are {made}, and each step adds "
                    "its output",
                    field,
                )

    def _new(self, wanted: str) -> str:
        name, number = wanted, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name.lower())
        return name


def _assembler() -> Stage:
    from pyspark.ml.feature import VectorAssembler

    return Stage(-1, ASSEMBLER, VectorAssembler, {})
