"""The fixed pattern of a sensor: what stands still, and what computed frames blur."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from focal_jax.simulate import pattern
from focal_jax.simulate.focus_sweep import Sweep

N, SIZE = 5, 48
STEPS_PX = tuple(np.linspace(0, 1.0, 6).tolist())


@functools.partial(jax.jit, static_argnames=('amount', 'share', 'views'))
def patterned(key, views, amount=(0.01, 0.01), share=1.0):
  """The pattern itself: of light that is 1 everywhere."""
  focus = jnp.linspace(1.0, 3.0, N)
  sweep = Sweep(
    focus=focus, focus_dpt=focus, fov=jnp.ones(N), motion=jnp.zeros((N, 3)), blur_px_per_dpt=jnp.float32(0.4),
    views=jnp.float32(views), exposure=jnp.ones(N), white_balance=jnp.ones((N, 3)), unit=jnp.int32(0),
  )  # fmt: skip
  light = jnp.ones((N, SIZE, SIZE, 3))
  return pattern.with_pattern(key, light, sweep, amount, share, STEPS_PX) - 1


def test_a_lens_has_the_same_pattern_in_all_frames():
  found = np.asarray(patterned(random.key(0), 0.0))
  np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
  assert found.std() == pytest.approx(0.01, rel=1e-3)
  grey = found[0].mean(-1)
  assert 0.8 < grey.std() / found.std() < 1  # mostly grey, not quite


def test_views_blur_it_away_from_their_plane_of_zero_disparity():
  sharpest = []
  for seed in range(24):
    found = np.asarray(patterned(random.key(seed), 1.0))
    strength = found.std((1, 2, 3))
    np.testing.assert_array_less(strength, 0.01 * 1.001)
    peak = strength.argmax()
    assert np.all(np.diff(strength[: peak + 1]) > -1e-6)
    assert np.all(np.diff(strength[peak:]) < 1e-6)
    assert strength.min() < 0.8 * strength.max()
    sharpest.append(peak)
  assert 0 in sharpest  # beyond the far end, as in DDFF-12
  assert max(sharpest) == pytest.approx(pattern.ZERO_DISPARITY[1] * (N - 1), abs=1)


def test_share_and_amount():
  keys = random.split(random.key(1), 200)
  run = jax.jit(jax.vmap(lambda key: patterned(key, 0.0, (1e-3, 0.1), 0.4).std()))
  strength = np.asarray(run(keys))
  assert np.mean(strength > 0) == pytest.approx(0.4, abs=0.1)
  log = np.log10(strength[strength > 0])
  assert log.min() >= -3 - 1e-3
  assert log.max() <= -1 + 1e-3
  assert log.mean() == pytest.approx(-2, abs=0.15)
