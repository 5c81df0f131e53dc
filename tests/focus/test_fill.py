"""Push-pull filling against a loop over blocks and pixels, and what each of its callers relies on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax.focus.fill import fill


def fill_by_loops(value, weight, prior, default):
  """The definition, pixel by pixel."""
  height, width = value.shape
  if (height, width) == (1, 1):
    return value if weight[0, 0] > 0 else np.full((1, 1), default)
  halves = (height + 1) // 2, (width + 1) // 2
  coarse, pooled = np.zeros(halves), np.zeros(halves)
  for i, j in np.ndindex(halves):
    block = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
    pooled[i, j] = weight[block].sum() / 4
    coarse[i, j] = np.average(value[block], weights=weight[block]) if pooled[i, j] else 0
  coarse = fill_by_loops(coarse, pooled, prior, default)
  result = np.zeros((height, width))
  for y, x in np.ndindex(height, width):
    # Centres of coarse pixels lie between those of the fine ones: linear interpolation, the outermost repeated.
    at = [np.clip((p - 0.5) / 2, 0, n - 1) for p, n in zip((y, x), halves, strict=True)]
    (top, left), (dy, dx) = np.floor(at).astype(int), np.mod(at, 1)
    bottom, right = min(top + 1, halves[0] - 1), min(left + 1, halves[1] - 1)
    rows = [(1 - dx) * coarse[row, left] + dx * coarse[row, right] for row in (top, bottom)]
    up = (1 - dy) * rows[0] + dy * rows[1]
    result[y, x] = (weight[y, x] * value[y, x] + prior * up) / (weight[y, x] + prior)
  return result


@pytest.mark.parametrize('shape', [(5, 6), (8, 13)])
def test_it_is_the_definition(shape):
  rng = np.random.default_rng(0)
  values = rng.normal(size=(2, *shape))
  weight = rng.random(shape) * (rng.random(shape) < 0.3)
  filled = jax.jit(fill)(jnp.asarray(values, jnp.float32), jnp.asarray(weight, jnp.float32)[None], 0.02, 7.0)
  for value, got in zip(values, filled, strict=True):
    np.testing.assert_allclose(got, fill_by_loops(value, weight, 0.02, 7.0), atol=1e-5)


def test_what_has_no_weight_plays_no_role():
  value = jnp.zeros((5, 6)).at[:, 3:].set(2.0)
  weight = jnp.ones((5, 6)).at[1:4, 2:4].set(0.0)
  filled = jax.jit(fill)(value.at[1:4, 2:4].set(99.0), weight, 1e-4, 7.0)
  np.testing.assert_allclose(filled[0], value[0], atol=1e-3)
  assert np.all((filled >= 0) & (filled <= 2 + 1e-5))
  np.testing.assert_allclose(jax.jit(fill)(value, 0 * weight, 1e-4, 7.0), 7.0, rtol=1e-6)


def test_smooth_fills_a_large_hole_without_blocks():
  """Across a hole between two plateaus the steps of the surface are smaller than without."""
  value = jnp.zeros((48, 48)).at[:, 32:].set(1.0)
  weight = jnp.ones((48, 48)).at[:, 13:35].set(0.0)
  run = jax.jit(fill, static_argnames='smooth')
  plain, smooth = (np.asarray(run(value, weight, 1e-9, smooth=flag))[24] for flag in (False, True))
  assert np.abs(np.diff(smooth, 2)).max() < np.abs(np.diff(plain, 2)).max()
