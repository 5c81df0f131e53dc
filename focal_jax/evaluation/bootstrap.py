"""Bootstrap intervals of means over stacks (Efron, 1979; percentile method)."""

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
_RESAMPLES = 10_000
_AT_ONCE = 500  # resamples at a time, to limit memory for thousands of stacks


def mean_interval(values: Float[np.ndarray, ' S']) -> tuple[float, float, float]:
  """Mean of one value per stack and its 95 % interval, which is NaN for fewer than two stacks.

  Stacks are drawn with replacement, with the same draws for every method. They are assumed to be independent; for
  several crops of one photograph the interval is too narrow.
  """
  mean, count = float(np.mean(values)), len(values)
  if count < 2:
    return mean, float('nan'), float('nan')
  rng = np.random.default_rng(0)
  means = [values[rng.integers(count, size=(_AT_ONCE, count))].mean(1) for _ in range(_RESAMPLES // _AT_ONCE)]
  low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return mean, float(low), float(high)
