"""Tree-structured Parzen estimator (Bergstra et al. 2011), as optuna has it (extra `tpe`).

Trial i is suggested from the outcomes of trials 0 ... i - `parallel`, all of which must be over; those in between, whether they
are over or not, count as running (optuna's constant liar). So a suggestion does not depend on who finished first. The study is
built anew for each suggestion from the ledger: nothing of it has to be kept. The first trials are random draws.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.search.member import Member
from cluster.search.points import Params, draws
from cluster.space import Space, in_order
from tlgan.canonical import canonical_json
from tlgan.errors import SpecError

TAG = 0x79E
TRIES = 20  # for a point that was not there before


def startup(trials: int) -> int:
    """Random trials before the model is asked."""
    return max(2, min(10, trials // 3))


def require_optuna() -> Any:
    """The module optuna. Raises `SpecError` when it is not installed."""
    try:
        import optuna
    except ImportError:
        raise SpecError("search.algo: tpe needs optuna", hint="pip install 'tlgan[tpe]', or use algo: random") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def suggest(
    space: Mapping[str, Space], members: Sequence[Member], settled: int, seed: int, base: Mapping[str, Any] | None
) -> Params | None:
    """The next point, from the outcomes of the first `settled` members. None when the space is used up."""
    optuna = require_optuna()
    seen = {canonical_json(member.params) for member in members}
    for attempt in range(TRIES):
        entropy = np.random.SeedSequence([seed, TAG, len(members), attempt]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna calls constant_liar experimental
            sampler = optuna.samplers.TPESampler(seed=int(entropy[0]), n_startup_trials=0, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        for member in members:
            study.add_trial(_told(optuna, space, member, member.number < settled))
        point = _asked(study.ask(), space)
        if canonical_json(point) not in seen:
            return point
    unseen = (p for p in draws(space, seed, base) if canonical_json(p) not in seen)
    return next(itertools.islice(unseen, 1), None)


def _asked(trial: Any, space: Mapping[str, Space]) -> Params:
    point: Params = {}
    for path in in_order(space):
        one = space[path]
        if not one.is_active(point):
            continue
        if one.choice is not None:
            point[path] = one.choice[trial.suggest_categorical(path, list(range(len(one.choice))))]
        elif one.kind == "int":
            point[path] = trial.suggest_int(path, *one.values)
        else:
            point[path] = trial.suggest_float(path, *one.values, log=one.kind == "log_uniform")
    return dict(sorted(point.items()))


def _told(optuna: Any, space: Mapping[str, Space], member: Member, settled: bool) -> Any:
    """The member as a trial of optuna's. One stopped early is told with its measurements, below all that went to the end."""
    states, params, distributions = optuna.trial.TrialState, {}, {}
    for path, value in member.params.items():
        one = space[path]
        params[path] = one.choice.index(value) if one.choice is not None else value
        distributions[path] = _distribution(optuna.distributions, one)
    told: dict[str, Any] = {"params": params, "distributions": distributions}
    if not settled:
        return optuna.trial.create_trial(state=states.RUNNING, **told)
    if member.best is None or member.state == "failed":
        return optuna.trial.create_trial(state=states.FAIL, **told)
    if member.state == "stopped":
        steps = {m.nimg: m.score for m in member.measured}
        return optuna.trial.create_trial(state=states.PRUNED, intermediate_values=steps, **told)
    return optuna.trial.create_trial(value=member.best.score, **told)


def _distribution(kinds: Any, space: Space) -> Any:
    if space.choice is not None:
        return kinds.CategoricalDistribution(list(range(len(space.choice))))
    low, high = space.values
    if space.kind == "int":
        return kinds.IntDistribution(low, high)
    return kinds.FloatDistribution(low, high, log=space.kind == "log_uniform")
