"""From the steps that the user wrote to a scikit-learn pipeline, and to the code that builds the same one."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from lakeloop_trainer.failures import RunFailure, exception_line
from lakeloop_trainer.metrics import is_classifier
from lakeloop_trainer.run_spec import Step

_DOTTED = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$")
_NAMED_PARAMETER = re.compile(r"The '([^']+)' parameter of")


def build(steps: Sequence[Step]) -> Any:
    """The unfitted ``sklearn.pipeline.Pipeline`` of the steps, named ``"0"``, ``"1"``, … by their position.

    Raises:
        RunFailure: ImportError, InvalidParameter or AmbiguousNumber (class Application), with the field's path.
    """
    from sklearn.pipeline import Pipeline

    built = []
    for index, step in enumerate(steps):
        path = f"spec.estimator.steps[{index}]"
        last = index == len(steps) - 1
        cls = import_estimator(step.class_path, f"{path}.class")
        if not last and not (hasattr(cls, "transform") or hasattr(cls, "fit_transform")):
            raise RunFailure(
                "InvalidParameter",
                f"{path}.class is {step.class_path}, which does not transform; only the last step may predict",
                f"{path}.class",
            )
        if last and not hasattr(cls, "predict"):
            raise RunFailure(
                "InvalidParameter",
                f"{path}.class is {step.class_path}, which does not predict; end with a classifier or a regressor",
                f"{path}.class",
            )
        try:
            built.append((str(index), _instance(cls, step.params, f"{path}.params")))
        except RunFailure:
            raise
        except Exception as error:  # a constructor can raise anything
            message = f"{path}: {step.class_path} cannot be made: {exception_line(error)}"
            raise RunFailure("InvalidParameter", message, path) from error
    pipeline = Pipeline(built)
    is_classifier(pipeline)  # or a regressor: known before any data is read
    return pipeline


def import_estimator(class_path: str, field: str) -> type:
    """The class at a dotted path, if it is an estimator in scikit-learn's sense."""
    if not _DOTTED.match(class_path):
        raise RunFailure(
            "ImportError",
            f"{field} is {class_path!r}; write the class with its module, as in sklearn.linear_model.Ridge",
            field,
        )
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except AttributeError as error:
        module = importlib.import_module(module_name)
        near = difflib.get_close_matches(name, [n for n in dir(module) if n[0].isupper()], n=1)
        hint = f"; did you mean {module_name}.{near[0]}?" if near else ""
        raise RunFailure("ImportError", f"{field}: {module_name} has no {name}{hint}", field) from error
    except Exception as error:  # a module's import can raise anything
        raise RunFailure(
            "ImportError", f"{field}: {class_path} cannot be imported in this image: {exception_line(error)}", field
        ) from error
    if not (isinstance(found, type) and all(hasattr(found, part) for part in ("fit", "get_params", "set_params"))):
        raise RunFailure("ImportError", f"{field}: {class_path} is not a scikit-learn estimator class", field)
    return found


def _instance(cls: type, params: Mapping[str, Any], path: str) -> Any:
    known = _parameter_names(cls)
    constraints = getattr(cls, "_parameter_constraints", {}) if hasattr(cls, "_validate_params") else {}
    values = {}
    for name, value in params.items():
        if name not in known:
            near = [k for k in known if k.lower() == name.lower()] or difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise RunFailure(
                "InvalidParameter", f"{path}.{name}: {cls.__name__} has no such parameter{hint}", f"{path}.{name}"
            )
        accepted = constraints.get(name, ())
        _refuse_ambiguous(value, accepted, f"{path}.{name}")
        values[name] = _as_tuple(value, accepted)
    try:
        estimator = cls(**values)
        if constraints:  # without any, sklearn.preprocessing.LabelEncoder for one, it would raise
            estimator._validate_params()
    except (TypeError, ValueError) as error:
        named = _NAMED_PARAMETER.search(str(error))
        field = f"{path}.{named.group(1)}" if named else path
        message = f"{field}: {str(error).splitlines()[0]}"
        if named and named.group(1) in params:
            message += _float_hint(params[named.group(1)], constraints.get(named.group(1), ()))
        raise RunFailure("InvalidParameter", message, field) from error
    return estimator


def _parameter_names(cls: type) -> list[str]:
    names = getattr(cls, "_get_param_names", None)
    if names is not None:
        return [str(name) for name in names()]
    return sorted(cls().get_params(deep=False))  # an estimator that does not inherit from BaseEstimator


def _intervals(accepted: object) -> tuple[list[Any], list[Any]]:
    """The integer intervals and the float intervals that a parameter's constraints accept."""
    from sklearn.utils._param_validation import Interval

    found = [c for c in accepted if isinstance(c, Interval)] if isinstance(accepted, list | tuple) else []
    return [c for c in found if c.type is Integral], [c for c in found if c.type is not Integral]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_ambiguous(value: object, accepted: object, field: str) -> None:
    """The API server stores ``1.0`` as ``1``: where both are accepted and differ in meaning, ``1`` says too little."""
    if not _is_integer(value):
        return
    integers, floats = _intervals(accepted)
    if any(value in interval for interval in integers) and any(float(value) in f for f in floats):  # type: ignore[arg-type]
        raise RunFailure(
            "AmbiguousNumber",
            f"{field} is {value}, which as an integer means a count and as a float a fraction: for the fraction"
            f' write {{float: "{float(value)}"}}, for the count another integer or, where it fits, a fraction'  # type: ignore[arg-type]
            " of the same size",
            field,
        )


def _float_hint(value: object, accepted: object) -> str:
    if _is_integer(value) and any(float(value) in interval for interval in _intervals(accepted)[1]):  # type: ignore[arg-type]
        return f' For the fraction write {{float: "{float(value)}"}}.'  # type: ignore[arg-type]
    return ""


def _as_tuple(value: Any, accepted: object) -> Any:
    """JSON has no tuples: a list becomes one where the parameter takes tuples and not lists (``ngram_range``)."""
    takes = accepted if isinstance(accepted, list | tuple) else ()
    if isinstance(value, list) and tuple in takes and list not in takes and "array-like" not in takes:
        return tuple(value)
    return value


def effective_params(pipeline: Any) -> dict[str, Any]:
    """Every parameter of every step, defaults too, as ``<step index>.<name>``: the same in every process."""
    return {
        f"{name}.{key}": _shown(value)
        for name, step in pipeline.steps
        for key, value in sorted(step.get_params(deep=False).items())
    }


def _shown(value: Any) -> Any:
    """A function by its name: its ``repr`` is of one process, and MLflow takes no second value for a parameter."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def pipeline_code(steps: Sequence[Step], pipeline: Any) -> str:
    """A program that stands alone and builds the same unfitted pipeline, for the run's record.

    ``pipeline`` is what `build` made of ``steps``: its parameters are written, those that the user set.
    """
    imports = sorted({step.class_path.rpartition(".")[0] for step in steps} | {"sklearn.pipeline"})
    lines = ['"""The pipeline of this run, not yet fitted."""', ""]
    lines += [f"import {module}" for module in imports]
    lines += ["", "", "def build() -> sklearn.pipeline.Pipeline:", "    return sklearn.pipeline.Pipeline(", "        ["]
    for step, (name, built) in zip(steps, pipeline.steps, strict=True):
        values = built.get_params(deep=False)
        arguments = ", ".join(f"{key}={_literal(values[key])}" for key in step.params)
        lines.append(f"            ({name!r}, {step.class_path}({arguments})),")
    lines += ["        ]", "    )", "", "", 'if __name__ == "__main__":', "    print(build())", ""]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """Python source of a JSON value; ``repr`` of a float that is not finite would not be an expression."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"float({str(value)!r})"
    return repr(value)
