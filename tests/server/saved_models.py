"""The models that the tests serve, saved as MLflow saves them."""

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# The tests' modules are not there when a server loads the model
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FRAME = pd.DataFrame({"tenure": [1.0, 2.0, 3.0, 4.0, 5.0], "spend": [5.0, 1.0, 2.0, 8.0, 3.0]})
TARGET = [0, 1, 0, 1, 0]
REQUIREMENTS = ["scikit-learn==1.9.1", "numpy==2.4.6"]


class Echo(mlflow.pyfunc.PythonModel):
    """Gives back what it saw, so that a test sees what was parsed; and misbehaves when told to."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Columns `seen` (text of each row) and `scaled` (amount times the parameter `factor`)."""
        import os
        import time

        word = model_input["word"].iloc[0]
        if word == "raise":
            raise RuntimeError(f"secret of another caller: {model_input.to_dict()}")
        if word == "die":
            os._exit(7)
        if word == "exit":
            raise SystemExit(3)
        if str(word).startswith("sleep:"):
            time.sleep(float(str(word).split(":")[1]))
        rows = [repr([row[name] for name in model_input.columns]) for _, row in model_input.iterrows()]
        factor = (params or {}).get("factor", 1.0)
        return pd.DataFrame({"seen": rows, "scaled": model_input["amount"] * factor})


class Unanswering(mlflow.pyfunc.PythonModel):
    """Loads, but cannot predict."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Raises once it serves; MLflow validates an example when it saves."""
        import os

        if os.environ.get("LAKELOOP_MODEL_NAME"):
            raise ValueError("no luck")
        return [0 for _ in model_input.index]


class Endless(mlflow.pyfunc.PythonModel):
    """Loads, but its first answer takes for ever."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Sleeps for ten minutes."""
        import time

        time.sleep(600)


class Exits(mlflow.pyfunc.PythonModel):
    """Ends the process that loads it."""

    def load_context(self, context: Any) -> None:
        """Exits once it is served; MLflow loads a model when it saves."""
        import os

        if os.environ.get("LAKELOOP_MODEL_NAME"):
            raise SystemExit(0)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Never called."""


class Configured(mlflow.pyfunc.PythonModel):
    """Answers with what it is configured to."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """The setting `greeting`."""
        return [context.model_config["greeting"]]


ECHO_SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec("string", "word"),
            ColSpec("long", "count"),
            ColSpec("double", "amount"),
            ColSpec("boolean", "flag"),
            ColSpec("datetime", "day", required=False),
            ColSpec("binary", "blob", required=False),
        ]
    ),
    outputs=Schema([ColSpec("string", "seen"), ColSpec("double", "scaled")]),
    params=ParamSchema([ParamSpec("factor", "double", 1.0)]),
)


def save_classifier(path: Path) -> None:
    """scikit-learn, columns by name, with an input example."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, TARGET)
    mlflow.sklearn.save_model(
        pipeline,
        path,
        signature=infer_signature(FRAME, pipeline.predict(FRAME)),
        input_example=FRAME.head(2),
        serialization_format="skops",
        pip_requirements=REQUIREMENTS,
    )


def save_one_column(path: Path) -> None:
    """The same of one column: what the benchmark serves."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[["spend"]], TARGET)
    mlflow.sklearn.save_model(
        pipeline,
        path,
        signature=infer_signature(FRAME[["spend"]], pipeline.predict(FRAME[["spend"]])),
        input_example=FRAME[["spend"]].head(2),
        serialization_format="skops",
        pip_requirements=REQUIREMENTS,
    )


def save_matrix(path: Path) -> None:
    """scikit-learn on one tensor without a name, saved by cloudpickle, without an example."""
    matrix = FRAME.to_numpy()
    model = LinearRegression().fit(matrix, np.array(TARGET, dtype=float))
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float64"), (-1, 2))]),
        outputs=Schema([TensorSpec(np.dtype("float64"), (-1,))]),
    )
    mlflow.sklearn.save_model(
        model, path, signature=signature, serialization_format="cloudpickle", pip_requirements=REQUIREMENTS
    )


def save_echo(path: Path) -> None:
    """A Python model with every kind of column and a parameter."""
    mlflow.pyfunc.save_model(path, python_model=Echo(), signature=ECHO_SIGNATURE, pip_requirements=["pandas"])


def save_without_signature(path: Path) -> None:
    """scikit-learn, nothing said about its inputs."""
    mlflow.sklearn.save_model(
        LogisticRegression().fit(FRAME, TARGET), path, serialization_format="cloudpickle", pip_requirements=REQUIREMENTS
    )


def save_unanswering(path: Path) -> None:
    """Cannot answer its own example."""
    mlflow.pyfunc.save_model(
        path,
        python_model=Unanswering(),
        signature=infer_signature(FRAME, [0]),
        input_example=FRAME.head(1),
        pip_requirements=["pandas"],
    )


def save_endless(path: Path) -> None:
    """Never gets warm."""
    mlflow.pyfunc.save_model(
        path, python_model=Endless(), signature=infer_signature(FRAME, [0]), pip_requirements=["pandas"]
    )


def save_exits(path: Path) -> None:
    """Cannot be loaded, and takes the process with it."""
    mlflow.pyfunc.save_model(
        path, python_model=Exits(), signature=infer_signature(FRAME, [0]), pip_requirements=["pandas"]
    )


def save_configured(path: Path) -> None:
    """Has a configuration that a server may override."""
    mlflow.pyfunc.save_model(
        path,
        python_model=Configured(),
        signature=infer_signature(FRAME, ["x"]),
        pip_requirements=["pandas"],
        model_config={"greeting": "hello"},
    )


SAVERS = {
    "classifier": save_classifier,
    "matrix": save_matrix,
    "echo": save_echo,
    "no-signature": save_without_signature,
    "unanswering": save_unanswering,
    "endless": save_endless,
    "exits": save_exits,
    "configured": save_configured,
}
