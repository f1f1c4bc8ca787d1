"""The ways to train, one module each. Every one has ``train(attempt) -> Outcome``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakeloop_trainer.attempt import Attempt
    from lakeloop_trainer.result import Outcome


def train(attempt: Attempt) -> Outcome:
    """Trains as the run spec says; raises RunFailure or whatever the libraries raise."""
    if attempt.spec.pip:
        from lakeloop_trainer import dependencies

        with attempt.stages.measure("provide packages"):
            attempt.requirements = dependencies.provide(dependencies.parse(attempt.spec.pip))
    if attempt.spec.script is not None:
        from lakeloop_trainer.methods import script

        return script.train(attempt)
    if attempt.spec.project is not None:
        from lakeloop_trainer.methods import project

        return project.train(attempt)
    from lakeloop_trainer.methods import sklearn_pipeline, spark_pipeline

    if attempt.spec.estimator is not None and attempt.spec.estimator.library == "spark":
        return spark_pipeline.train(attempt)
    return sklearn_pipeline.train(attempt)
