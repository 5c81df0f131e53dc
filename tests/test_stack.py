"""Confidence in closed form, and batches of stacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import stack

confidence_from_spread = jax.jit(stack.confidence_from_spread)
FOCUS = jnp.array([0.5, 1.0, 2.0, 2.5, 4.5])


def distribution(*weights):
  """[N, 2, 3]: the same distribution at every pixel."""
  return jnp.broadcast_to(jnp.array(weights, jnp.float32)[:, None, None], (len(weights), 2, 3))


def test_all_weight_on_one_frame_is_certain():
  for n in range(len(FOCUS)):
    confidence = confidence_from_spread(distribution(*np.eye(len(FOCUS))[n]), FOCUS)
    assert confidence.shape == (2, 3)
    np.testing.assert_array_equal(confidence, 1)


def test_half_at_either_end_is_uncertain():
  np.testing.assert_allclose(confidence_from_spread(distribution(0.5, 0, 0, 0, 0.5), FOCUS), 0, atol=1e-6)


def test_values_by_hand():
  # Weights 3/4 and 1/4 at the ends: sigma = sqrt(3) / 4 of the range, twice that of sigma_max's unit.
  np.testing.assert_allclose(
    confidence_from_spread(distribution(0.75, 0, 0, 0, 0.25), FOCUS), 1 - np.sqrt(3) / 2, rtol=1e-5
  )
  # Half each at 2.0 and 2.5: sigma = 0.25 of at most 2.
  np.testing.assert_allclose(confidence_from_spread(distribution(0, 0, 0.5, 0.5, 0), FOCUS), 0.875, rtol=1e-5)


@pytest.mark.parametrize('frames', [2, 3, 10])
def test_uniform_over_evenly_spaced_frames(frames):
  """Their variance is (N + 1) / (12 (N - 1)) of the range squared."""
  focus = jnp.linspace(1.0, 3.0, frames)
  confidence = confidence_from_spread(jnp.full((frames, 1, 1), 1 / frames), focus)
  expected = 1 - 2 * np.sqrt((frames + 1) / (12 * (frames - 1)))
  np.testing.assert_allclose(confidence, expected, rtol=1e-5, atol=1e-6)


def test_does_not_depend_on_unit_or_order():
  weights = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(5), (3, 4)), jnp.float32)
  weights = jnp.moveaxis(weights, -1, 0)
  confidence = confidence_from_spread(weights, FOCUS)
  assert 0 < float(confidence.min()) < float(confidence.max()) < 1
  for factor, offset in ((1000.0, 0.0), (0.01, 0.3), (-1.0, 7.0)):
    np.testing.assert_allclose(confidence_from_spread(weights, FOCUS * factor + offset), confidence, atol=1e-5)
  np.testing.assert_allclose(confidence_from_spread(weights[::-1], FOCUS[::-1]), confidence, atol=1e-6)


def test_two_estimates_that_differ_add_to_the_spread():
  # Certain of 2.0, but another estimate says 3.2: 1.2 of at most 2. Together with a spread of 0.5 of 2: 1.3.
  certain = distribution(0, 0, 1, 0, 0)
  np.testing.assert_allclose(confidence_from_spread(certain, FOCUS, jnp.full((2, 3), 1.2)), 0.4, rtol=1e-5)
  apart = distribution(0, 0.5, 0.5, 0, 0)
  np.testing.assert_allclose(confidence_from_spread(apart, FOCUS, jnp.full((2, 3), -1.2)), 1 - 1.3 / 2, rtol=1e-5)
  np.testing.assert_array_equal(confidence_from_spread(certain, FOCUS, jnp.full((2, 3), 10.0)), 0)


def test_each_stack_of_a_batch_by_its_own_range():
  weights = jnp.stack([distribution(0.75, 0, 0, 0, 0.25), distribution(0, 0, 0.5, 0.5, 0)])
  confidence = confidence_from_spread(weights, jnp.stack([FOCUS, 10 * FOCUS]))
  np.testing.assert_allclose(confidence[:, 0, 0], [1 - np.sqrt(3) / 2, 0.875], rtol=1e-5)


def test_equal_focus_everywhere_is_certain_rather_than_undefined():
  np.testing.assert_array_equal(confidence_from_spread(distribution(0.25, 0.25, 0.5), jnp.full(3, 2.0)), 1)
