"""Which point comes next, and which trial is hopeless: Optuna, asked and told from outside.

A trial's random choices come from the split's seed and the trial's number, so an attempt that takes over goes on where
another stopped and does not repeat it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.run_spec import Search, SearchParameter
from lakeloop_trainer.search import space
from lakeloop_trainer.search.trial import FAILED, FINISHED, PRUNED, RUNNING, Point, Trial

if TYPE_CHECKING:
    import optuna

MOST_TRIES = 2
"""Of a trial that was cut off: what ends the driver each time is not begun for ever."""
LOST = "it was cut off with its driver each time"
_DUPLICATES = 10


class Study:
    """Hands out trials until there are enough. Not for several threads."""

    def __init__(self, search: Search, seed: int, maximize: bool, past: Sequence[Trial] = ()) -> None:
        """``past``: the trials of earlier attempts, which count; what was cut off is begun again, once."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._search = search
        self._seed = seed
        self.trials: list[Trial] = []
        """All, in the order of their begin."""
        self.given_up: list[Trial] = []
        """Those of earlier attempts that are not begun again."""
        self._open: dict[int, optuna.trial.Trial] = {}
        self._tried: set[tuple[tuple[str, float | int], ...]] = set()
        self._again: list[Trial] = []
        self._distributions = {each.name: self._distribution(each) for each in search.parameters}
        # five trials to compare with, and none is pruned before it has a first fold
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if search.pruning else optuna.pruners.NopPruner()
        self._study = optuna.create_study(direction="maximize" if maximize else "minimize", pruner=pruner)
        self.total = space.trials_in_all(search)
        points = space.size(search)
        self._grid: Iterator[dict[str, float | int]] | None = None
        if points is not None and (search.algorithm == "Grid" or points <= search.max_trials):
            self._grid = space.grid(search, seed)
        for trial in sorted(past, key=lambda each: each.number):
            self._remember(trial)

    def ask(self) -> Trial | None:
        """The next trial; None where there have been enough."""
        if self._again:
            cut_off = self._again.pop(0)
            trial = Trial(cut_off.number, cut_off.point, cut_off.params, tries=cut_off.tries + 1, run_id=cut_off.run_id)
            self._open[trial.number] = self._fixed(trial.point)
        else:
            if len(self.trials) >= self.total:
                return None
            number = max((each.number for each in self.trials), default=0) + 1
            asked = self._asked(number)
            if asked is None:
                return None
            trial = Trial(number, dict(asked.params), space.values(self._search, asked.params))
            self._open[number] = asked
            self._tried.add(_key(trial.point))
        self.trials = [each for each in self.trials if each.number != trial.number] + [trial]
        return trial

    def report(self, trial: Trial) -> bool:
        """Tells the newest fold's value; gives whether the trial is hopeless beside the others."""
        asked = self._open[trial.number]
        # the mean so far: the folds differ more than the trials do
        asked.report(float(trial.value or 0.0), step=len(trial.values) - 1)
        return bool(asked.should_prune())

    def tell(self, trial: Trial) -> None:
        """Tells that the trial is over, as its state says."""
        states = self._optuna.trial.TrialState
        asked = self._open.pop(trial.number)
        if trial.state == FINISHED:
            self._study.tell(asked, trial.value)
        else:
            self._study.tell(asked, state=states.PRUNED if trial.state == PRUNED else states.FAIL)

    def _remember(self, trial: Trial) -> None:
        if trial.state == RUNNING and trial.tries >= MOST_TRIES:
            trial.state, trial.message = FAILED, LOST
            self.given_up.append(trial)
        self.trials.append(trial)
        self._tried.add(_key(trial.point))
        if trial.state == RUNNING:
            self._again.append(trial)
            return
        states = self._optuna.trial.TrialState
        so_far = list(itertools.accumulate(trial.values))
        means = {step: total / (step + 1) for step, total in enumerate(so_far)}
        state = {FINISHED: states.COMPLETE, PRUNED: states.PRUNED}.get(trial.state, states.FAIL)
        value = trial.value if trial.state in (FINISHED, PRUNED) else None
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=state, value=value, params=dict(trial.point), distributions=self._distributions,
                intermediate_values=means,
            )
        )  # fmt: skip

    def _asked(self, number: int) -> optuna.trial.Trial | None:
        if self._grid is not None:
            for point in self._grid:
                if _key(point) not in self._tried:
                    return self._fixed(point)
            return None
        for again in range(_DUPLICATES + 1):
            self._study.sampler = self._sampler(number, again)
            asked = self._study.ask(self._distributions)
            if _key(asked.params) not in self._tried or again == _DUPLICATES:
                return asked
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        return None

    def _fixed(self, point: Point) -> optuna.trial.Trial:
        self._study.enqueue_trial(dict(point))
        return self._study.ask(self._distributions)

    def _sampler(self, number: int, again: int) -> Any:
        import numpy

        seed = int(numpy.random.SeedSequence([self._seed % 2**64, number, again]).generate_state(1)[0])
        samplers = self._optuna.samplers
        if self._search.algorithm != "TPE" or again:
            return samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings(action="ignore", category=self._optuna.exceptions.ExperimentalWarning):
            # constant_liar: trials at one time are not to try the same
            first = min(10, max(5, self._search.max_trials // 4))
            return samplers.TPESampler(
                seed=seed, n_startup_trials=first, constant_liar=self._search.parallelism > 1
            )  # fmt: skip

    def _distribution(self, parameter: SearchParameter) -> Any:
        found = self._optuna.distributions
        if parameter.minimum is None or parameter.maximum is None:
            # by index: values may be lists, and to Python 1, 1.0 and true are one
            return found.CategoricalDistribution(tuple(range(len(parameter.values))))
        if parameter.integer:
            return found.IntDistribution(int(parameter.minimum), int(parameter.maximum), log=parameter.log)
        return found.FloatDistribution(parameter.minimum, parameter.maximum, log=parameter.log)


def _key(point: Point) -> tuple[tuple[str, float | int], ...]:
    return tuple(sorted(point.items()))
