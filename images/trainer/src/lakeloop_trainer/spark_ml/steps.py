"""From the steps that the user wrote to checked classes and parameters: no Spark session is needed for it."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lakeloop_trainer.failures import RunFailure, exception_line
from lakeloop_trainer.run_spec import Step

_DOTTED = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$")
OWNED = {
    "labelCol": "the label is spec.dataset.target",
    "predictionCol": "the model's answer is the column prediction, which MLflow's spark flavor reads",
}
"""Parameters of the pipeline's ends that are not the user's to set, and why."""


@dataclass(frozen=True)
class Stage:
    """One step: a class of Spark's, and its parameters as its type converters made them."""

    index: int
    class_path: str
    cls: type
    params: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where it is in the TrainingJob; what was put in stands for all features."""
        return f"spec.estimator.steps[{self.index}]" if self.index >= 0 else "spec.dataset.features"

    @property
    def name(self) -> str:
        return self.cls.__name__


def check(steps: Sequence[Step], seed: int) -> tuple[Stage, ...]:
    """The steps' classes and parameters; ``seed`` is for those that take one and were not given any.

    Spark's own default seed is a hash of the class's name, which Python makes another number in every process.

    Raises:
        RunFailure: ImportError or InvalidParameter (class Application), with the field's path.
    """
    stages = []
    for index, step in enumerate(steps):
        path = f"spec.estimator.steps[{index}]"
        cls = _import(step.class_path, f"{path}.class")
        params = _converted(cls, step.params, f"{path}.params")
        if "seed" in parameters_of(cls):
            params.setdefault("seed", seed)
        stages.append(Stage(index, step.class_path, cls, params))
    last = stages[-1]
    for stage in stages[:-1]:
        if predicts(stage.cls):
            raise RunFailure(
                "InvalidParameter", f"{stage.path}.class is {stage.name}, which predicts: only the last step may",
                f"{stage.path}.class",
            )  # fmt: skip
    if not predicts(last.cls):
        raise RunFailure(
            "InvalidParameter",
            f"{last.path}.class is {last.name}, which does not learn a label; end with a class of "
            "pyspark.ml.classification or pyspark.ml.regression",
            f"{last.path}.class",
        )
    return tuple(stages)


def parameters_of(cls: type) -> dict[str, Any]:
    """The class's parameters by their names."""
    from pyspark.ml.param import Param

    return {name: found for name in dir(cls) if isinstance(found := getattr(cls, name, None), Param)}


def predicts(cls: type) -> bool:
    """Whether it learns a label from features."""
    return {"labelCol", "featuresCol", "predictionCol"} <= set(parameters_of(cls))


def classifies(cls: type) -> bool:
    from pyspark.ml.classification import Classifier

    return issubclass(cls, Classifier)


def _import(class_path: str, field: str) -> type:
    from pyspark.ml import Estimator, Model, Transformer
    from pyspark.ml.wrapper import JavaParams

    if not _DOTTED.match(class_path):
        raise RunFailure(
            "ImportError",
            f"{field} is {class_path!r}; write the class with its module, as in "
            "pyspark.ml.classification.LogisticRegression",
            field,
        )
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module's import can raise anything
        raise RunFailure(
            "ImportError", f"{field}: {class_path} cannot be imported in this image: {exception_line(error)}", field
        ) from error
    found = getattr(module, name, None)
    if found is None:
        near = difflib.get_close_matches(name, [n for n in dir(module) if n[0].isupper()], n=1)
        hint = f"; did you mean {module_name}.{near[0]}?" if near else ""
        raise RunFailure("ImportError", f"{field}: {module_name} has no {name}{hint}", field)
    stage = isinstance(found, type) and issubclass(found, Estimator | Transformer) and not issubclass(found, Model)
    if not (stage and issubclass(found, JavaParams)):
        raise RunFailure(
            "ImportError",
            f"{field}: {class_path} is no estimator or transformer of Spark's; with library spark every step runs in "
            "the executors' JVMs, as the classes of pyspark.ml.feature, classification and regression do",
            field,
        )
    return cast(type, found)


def _converted(cls: type, params: Mapping[str, Any], path: str) -> dict[str, Any]:
    known = parameters_of(cls)
    values = {}
    for name, value in params.items():
        field = f"{path}.{name}"
        if name not in known:
            near = [k for k in known if k.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
            raise RunFailure("InvalidParameter", f"{field}: {cls.__name__} has no such parameter{hint}", field)
        if name in OWNED:
            raise RunFailure("InvalidParameter", f"{field}: take it away, {OWNED[name]}", field)
        try:
            values[name] = known[name].typeConverter(value)
        except (TypeError, ValueError) as error:
            raise RunFailure("InvalidParameter", f"{field}: {str(error).splitlines()[0]}", field) from error
    return values


def code_of(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A program that stands alone and builds the same unfitted pipeline, for the run's record."""
    imports = sorted({path.rpartition(".")[0] for path, _ in stages} | {"pyspark.ml"})
    lines = ['"""The pipeline of this run, not yet fitted. It needs a Spark session."""', ""]
    lines += [f"import {module}" for module in imports]
    lines += ["", "", "def build() -> pyspark.ml.Pipeline:", "    return pyspark.ml.Pipeline(", "        stages=["]
    for path, params in stages:
        arguments = ", ".join(f"{key}={_literal(value)}" for key, value in params.items())
        lines.append(f"            {path}({arguments}),")
    return "\n".join([*lines, "        ]", "    )", ""])


def _literal(value: Any) -> str:
    """Python source of a parameter's value; vectors and matrices are written as the lists they were."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"float({str(value)!r})"
    return repr(value.toArray().tolist()) if hasattr(value, "toArray") else repr(value)
