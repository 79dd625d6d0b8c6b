"""A year of nights of a zoo on one machine, drawn so that what really happened is known. Written before what judges it.

As the plan of the regression check gives it: a metric moves from night to night by sigma (standard deviation, relative:
0.7 % for s/iter and fps, 0.2 % for memory), Student's t with 4 degrees of freedom, AR(1) of 0.3. Runs of one night
share half of that variance. One run in a hundred is an outlier of 5 to 20 %, and a rerun draws again. A machine drifts
by up to 1 % a quarter. AP of newly trained models has a seed sigma of 0.15 points.

What that leaves open, and how it is read here:

- A night's innovation is one draw of Student's t: what its runs share and what each has of its own are normal, and one
  common factor makes both wide on a wild night, so that reruns of a wild night are wild too. The next night follows
  from the night's first run. So the share is 0.09 sigma^2 from the night before, 0.41 from tonight, 0.5 from the run.
- Outliers are for the better as often as for the worse, and of one metric of one run.
- Drift changes its speed every quarter (91 nights), uniform between -1 and 1 %; it is one for all cells of a machine,
  and another for each metric, memory too.
- The checkpoint that is evaluated again each night differs by up to 0.01 points, as kernels do that sum in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Metric: TypeAlias = Literal["memory", "s_per_iter", "fps", "box_ap"]
METRICS: tuple[Metric, ...] = get_args(Metric)

CELLS = 8
NIGHTS = 365
SIGMA: dict[Metric, float] = {"memory": 0.002, "s_per_iter": 0.007, "fps": 0.007}
WORSE: dict[Metric, int] = {"memory": 1, "s_per_iter": 1, "fps": -1, "box_ap": -1}
FREEDOM = 4
AUTOCORRELATION = 0.3
SHARED = 0.5
OUTLIERS, OUTLIER_LOW, OUTLIER_HIGH = 0.01, 0.05, 0.20
QUARTER = 91
DRIFT_A_QUARTER = 0.01
SAME_MODEL_POINTS = 0.01
SEED_SIGMA_POINTS = 0.15
RUNS_A_NIGHT = 8
"""The nightly run, and as many reruns as anybody asks for."""

FINAL_SEEDS = 1_000_000
"""Seeds from here on are for the final table alone; what is tuned is tuned on smaller ones."""


@dataclass(frozen=True)
class Change:
    """What happens to a metric, for the worse and relative: `step` at once, and `weekly` as much again every week."""

    night: int
    step: float = 0.0
    weekly: float = 0.0

    def factors(self, nights: int, worse: int) -> Floats:
        """What the metric is multiplied by, night by night."""
        since = np.arange(nights) - self.night
        return np.where(since >= 0, 1 + worse * (self.step + self.weekly * (since + 1) / 7), 1.0)


def machine_drift(rng: np.random.Generator, nights: int = NIGHTS) -> Floats:
    """What a machine does to one metric of all cells, relative to its first night."""
    speeds = rng.uniform(-DRIFT_A_QUARTER, DRIFT_A_QUARTER, size=nights // QUARTER + 1) / QUARTER
    return np.asarray(1 + np.cumsum(speeds[np.arange(nights) // QUARTER]))


def runs_of_nights(
    rng: np.random.Generator, metric: Metric, drift: Floats, change: Change | None = None, level: float = 1.0
) -> Floats:
    """Return the metric of every run, night by run: the first one of a night is the nightly one, the others reruns."""
    nights = len(drift)
    if metric == "box_ap":
        return level + rng.uniform(-SAME_MODEL_POINTS, SAME_MODEL_POINTS, size=(nights, RUNS_A_NIGHT))
    wildness = np.sqrt((FREEDOM - 2) / rng.chisquare(FREEDOM, size=(nights, 1)))
    own = np.sqrt(1 - SHARED) * rng.standard_normal((nights, RUNS_A_NIGHT))
    shared = np.sqrt(SHARED - AUTOCORRELATION**2) * rng.standard_normal((nights, 1))
    innovations = SIGMA[metric] * wildness * (shared + own)
    moved = np.empty_like(innovations)
    before = 0.0
    for night in range(nights):
        moved[night] = AUTOCORRELATION * before + innovations[night]
        before = moved[night, 0]
    outlying = rng.random(moved.shape) < OUTLIERS
    sizes = rng.uniform(OUTLIER_LOW, OUTLIER_HIGH, size=moved.shape) * rng.choice([-1, 1], size=moved.shape)
    factors = change.factors(nights, WORSE[metric]) if change else np.ones(nights)
    return level * (drift * factors)[:, None] * (1 + moved + np.where(outlying, sizes, 0.0))


def trained_aps(rng: np.random.Generator, runs: int, lost_points: float = 0.0, lost_at: int = 0) -> Floats:
    """Return the AP (points) of newly trained models, one a full run; from `lost_at` on so much is lost."""
    loss = np.where(np.arange(runs) >= lost_at, lost_points, 0.0)
    return np.asarray(37.0 - loss + SEED_SIGMA_POINTS * rng.standard_normal(runs))
