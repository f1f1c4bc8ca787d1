"""How the training rows are divided for cross-validation. The test rows are not seen."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from lakeloop_trainer.failures import RunFailure

FIELD = "spec.search.validation.folds"

log = logging.getLogger(__name__)


def folds(
    target: Any, wanted: int, classifier: bool, seed: int, groups: Any | None = None, order: Any | None = None
) -> list[tuple[Any, Any]]:
    """Row numbers to fit on and to score, of each fold.

    Each class has its share of each fold; rows of one group are on one side, where there are groups enough.
    With ``order``, the time of each row: every fold is scored on rows that are later than those it learns from.
    Raises RunFailure (InvalidParameter) where there are too few rows.
    """
    import numpy as np
    import pandas as pd
    from sklearn import model_selection as found

    truth = np.asarray(target)
    if len(truth) < (wanted + 1 if order is not None else wanted):
        raise RunFailure("InvalidParameter", f"{FIELD} is {wanted}, for {len(truth)} training rows: lower it", FIELD)
    if order is not None:
        times = pd.Series(order).reset_index(drop=True)
        by_time = times.sort_values(kind="stable", na_position="first").index.to_numpy()
        return [(by_time[fit], by_time[score]) for fit, score in found.TimeSeriesSplit(wanted).split(by_time)]
    if groups is not None and len(np.unique(groups)) < wanted:
        log.warning("spec.dataset.split.keys: fewer keys than folds; the folds of the search do not keep them together")
        groups = None
    kinds = [found.KFold] if groups is None else [found.GroupKFold]
    if classifier:
        truth, counts = np.unique(truth, return_inverse=True, return_counts=True)[1:]
        if counts.max() >= wanted:  # else scikit-learn refuses, and rows are rows
            kinds.insert(0, found.StratifiedKFold if groups is None else found.StratifiedGroupKFold)
    with warnings.catch_warnings():
        # of a class with fewer rows than folds: what is not defined then is told of the trial
        warnings.filterwarnings("ignore", message="The least populated class")
        for kind in kinds:
            splitter = kind(wanted, shuffle=True, random_state=seed % 2**32)
            made = list(splitter.split(np.zeros(len(truth)), truth, groups))
            if all(len(fit) and len(held_out) for fit, held_out in made):  # large groups can leave a fold empty
                return made
    raise RunFailure("InvalidParameter", f"{FIELD} is {wanted}, and the training rows do not fill so many", FIELD)
