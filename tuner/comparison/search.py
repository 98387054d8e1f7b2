"""The search of learning rates and other fields: for each row the same number of trials, on the validation rows alone.

Optuna proposes the values and says which trials are poor. A row's trials depend on its earlier ones alone, which are
read back from disk, so a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inlay.tuner.comparison.records import TrialRecord
from inlay.tuner.comparison.spec import Between, Search, Times

if TYPE_CHECKING:
    import optuna

NEAR_THE_EDGE = 0.05  # share of a range, in its own scale, that counts as its edge
VALIDATIONS = 4  # of a trial, where the recipe names no interval of its own


class RowSearch:
    """The search of one row.

    Args:
        search: as it is written.
        label: of the row; with the trial's number it seeds what is drawn.
        own_rate: the method's own learning rate, of which `times` are multiples.
        higher_is_better: direction of the objective.
    """

    def __init__(self, search: Search, label: str, own_rate: float, higher_is_better: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search, self.label, self.higher_is_better = search, label, higher_is_better
        self.distributions = {
            name: _distribution(space, own_rate) for name, space in search.space.items()
        }
        self.trials: list[TrialRecord] = []
        self._courses: list[Mapping[int, float]] = []
        self._asked: optuna.Trial | None = None

    @property
    def wanted(self) -> int:
        """Trials in all: as many as asked for, or as the space has points."""
        points = [len(d.choices) if hasattr(d, "choices") else math.inf for d in self.distributions.values()]
        return int(min(self.search.trials, math.prod(points)))

    def propose(self) -> dict[str, Any]:
        """The values of the next trial."""
        import optuna

        seed = int(hashlib.sha256(f"{self.label} {len(self.trials)}".encode()).hexdigest()[:8], 16)
        finite = all(isinstance(d, optuna.distributions.CategoricalDistribution) for d in self.distributions.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = (
                optuna.samplers.BruteForceSampler(seed=seed)
                if finite
                else optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, self.search.trials // 3))
            )
        self._asked = self._study(sampler).ask(self.distributions)
        return dict(self._asked.params)

    def is_poor(self, value: float, validation: int) -> bool:
        """Whether the trial in hand, which has reached `value` at this validation, is behind the median of others."""
        assert self._asked is not None
        self._asked.report(value, validation)
        return self._asked.should_prune()

    def add(self, trial: TrialRecord, course: Mapping[int, float]) -> None:
        """Takes a finished trial in; `course` holds its objective by the number of the validation."""
        self.trials.append(trial)
        self._courses.append(dict(course))

    def _study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """A study that knows the finished trials and nothing else: what is proposed depends on what is on disk."""
        import optuna

        study = optuna.create_study(
            direction="maximize" if self.higher_is_better else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
            sampler=sampler,
        )
        states = optuna.trial.TrialState
        for known, course in zip(self.trials, self._courses, strict=True):
            failed = known.objective is None
            study.add_trial(
                optuna.trial.create_trial(
                    params=known.values,
                    distributions=self.distributions,
                    value=known.objective,
                    intermediate_values=dict(course),
                    state=states.FAIL if failed else states.PRUNED if known.stopped else states.COMPLETE,
                )
            )
        return study

    def best(self) -> TrialRecord | None:
        """The trial with the best objective among those that ran to the end; None where none did."""
        ended = [trial for trial in self.trials if trial.objective is not None and not trial.stopped]
        sign = -1 if self.higher_is_better else 1
        return min(ended, key=lambda trial: sign * trial.objective, default=None)

    def at_edge(self, chosen: TrialRecord) -> list[str]:
        """The numeric fields of which the chosen value is the smallest or the largest that could be tried."""
        return [name for name, value in chosen.values.items() if _is_edge(self.distributions[name], value)]


def _distribution(space: list | Times | Between, own_rate: float) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(space, Times):
        return CategoricalDistribution([float(f"{own_rate * times:.4g}") for times in space.times])
    if isinstance(space, Between):
        return FloatDistribution(space.low, space.high, log=space.log)
    return CategoricalDistribution(list(space))


def _is_edge(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(distribution, CategoricalDistribution):
        numbers = [choice for choice in distribution.choices if isinstance(choice, (int, float))]
        return len(numbers) > 2 and value in (min(numbers), max(numbers))
    assert isinstance(distribution, FloatDistribution)
    scale = math.log if distribution.log else float
    share = (scale(value) - scale(distribution.low)) / (scale(distribution.high) - scale(distribution.low))
    return not NEAR_THE_EDGE < share < 1 - NEAR_THE_EDGE
