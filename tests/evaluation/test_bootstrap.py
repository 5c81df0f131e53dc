"""Bootstrap intervals against closed forms for normal data."""

import numpy as np
import pytest

from focal_jax.evaluation.bootstrap import LEVEL, mean_interval


def test_width_for_normal_data():
  """As wide as the normal interval of the sample's own standard deviation, and about its mean."""
  values = np.random.default_rng(0).normal(3, 2, 400)
  mean, low, high = mean_interval(values)
  half = 1.959964 * values.std() / np.sqrt(400)
  assert mean == pytest.approx(values.mean(), rel=1e-12)
  assert high - low == pytest.approx(2 * half, rel=0.04)
  assert (low + high) / 2 == pytest.approx(mean, abs=0.05 * half)


def test_coverage_of_the_true_mean():
  """Nearly 95 % over 300 samples of 30 values: the percentile interval is slightly narrow, as z is compared to t."""
  samples = np.random.default_rng(1).normal(0, 1, (300, 30))
  intervals = [mean_interval(sample) for sample in samples]
  coverage = np.mean([low <= 0 <= high for _, low, high in intervals])
  assert LEVEL == 0.95
  assert 0.90 <= coverage <= 0.98


def test_two_values_by_hand():
  """Means of resamples are a, (a + b) / 2 and b, with 1/4, 1/2 and 1/4: the ends are the values."""
  assert mean_interval(np.array([1.0, 3.0])) == (2.0, 1.0, 3.0)


def test_deterministic_and_equivariant():
  values = np.random.default_rng(2).exponential(1, 25)
  mean, low, high = mean_interval(values)
  assert mean_interval(values.copy()) == (mean, low, high)
  assert low < mean < high
  np.testing.assert_allclose(mean_interval(4 * values + 100), [4 * x + 100 for x in (mean, low, high)], rtol=1e-12)


def test_differences_are_paired():
  """A constant difference has no spread at all, though single means have."""
  values = np.random.default_rng(3).exponential(1, 12)
  single = mean_interval(values)
  assert single[2] - single[1] > 0.5
  np.testing.assert_allclose(mean_interval((values + 0.01) - values), 0.01, rtol=1e-9)


def test_one_stack_has_no_interval():
  mean, low, high = mean_interval(np.array([7.0]))
  assert mean == 7
  assert np.isnan(low)
  assert np.isnan(high)
