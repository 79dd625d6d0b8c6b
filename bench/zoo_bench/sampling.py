"""How often a job was really looked at: busy machines and drivers that answer late drop samples. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo_bench.measurements import Sampling, SamplingPeriod
from zoo_bench.telemetry import Floats, Telemetry


def sampling(telemetry: Telemetry) -> Sampling:
    """Return the periods that were kept, over the whole job."""
    return Sampling(
        gpus=_period([gpu.time_s for gpu in telemetry.gpus]),
        processes=_period([telemetry.list_times_s]),
        host=_period([telemetry.host.time_s]),
    )


def _period(series: Sequence[Floats]) -> SamplingPeriod | None:
    """Of the series that did worst; None where there are no two samples."""
    intervals = [np.diff(times_s) for times_s in series if len(times_s) > 1]
    if not intervals:
        return None
    return SamplingPeriod(
        median_s=max(float(np.median(each)) for each in intervals),
        largest_s=max(float(each.max()) for each in intervals),
    )
