"""Losses against loops over pixels, and their gradients where roots and quotients could break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import losses, warp
from focal_jax.stack import FocalStack

motion_error = jax.jit(losses.motion_error, static_argnums=(2, 3))
unit_focus = jax.jit(losses.unit_focus)
WEIGHTS = (0.3, 0.5, 0.7, 1.0)


def random_maps(seed=0, shape=(2, 5, 6)):
  rng = np.random.default_rng(seed)
  pyramid = [rng.random(shape).astype(np.float32) for _ in range(4)]
  return pyramid, rng.random(shape).astype(np.float32), (rng.random(shape) < 0.7).astype(np.float32)


def test_pyramid_loss_is_the_weighted_sum_over_valid_pixels():
  pyramid, target, valid = random_maps()
  valid[1, 2, 3] = 0.25  # a weight, not only a mask
  expected = 0.0
  for weight, depth in zip(WEIGHTS, pyramid, strict=True):
    for b, y, x in np.ndindex(target.shape):
      expected += weight * valid[b, y, x] * (float(depth[b, y, x]) - target[b, y, x]) ** 2
  total, count = jax.jit(losses.pyramid_loss)(tuple(pyramid), target, valid)
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  np.testing.assert_allclose(count, valid.sum(), rtol=1e-6)


def test_sums_and_counts_add_up_over_devices():
  pyramid, target, valid = (jax.tree.map(jnp.asarray, x) for x in random_maps(1))
  whole = losses.pyramid_loss(pyramid, target, valid)
  parts = [losses.pyramid_loss([d[b] for d in pyramid], target[b], valid[b]) for b in range(2)]
  np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-5)


def test_pyramid_and_weights_must_match():
  pyramid, target, valid = (jax.tree.map(jnp.asarray, x) for x in random_maps())
  with pytest.raises(ValueError, match='zip'):
    losses.pyramid_loss(pyramid[:3], target, valid)
  total, _ = losses.pyramid_loss(pyramid[3:], target, valid, weights=(1.0,))
  np.testing.assert_allclose(total, losses.masked_squared_error(pyramid[3], target, valid)[0])


def test_unknown_pixels_have_neither_loss_nor_gradient():
  pyramid, target, valid = (jax.tree.map(jnp.asarray, x) for x in random_maps(2))

  def loss(pyramid, target):
    return losses.pyramid_loss(pyramid, target, valid)[0]

  value, gradient = jax.jit(jax.value_and_grad(loss))(pyramid, target)
  np.testing.assert_allclose(loss(pyramid, jnp.where(valid > 0, target, 9.0)), value, rtol=1e-6)
  for weight, depth, slope in zip(WEIGHTS, pyramid, gradient, strict=True):
    np.testing.assert_allclose(slope, 2 * weight * valid * (depth - target), rtol=1e-5)


@pytest.mark.parametrize('shape', [(8, 12), (9, 7)])
def test_motion_error_is_the_rms_of_the_displacement_error(shape):
  rng = np.random.default_rng(3)
  fov = jnp.asarray(rng.uniform(1, 1.1, (2, 3)), jnp.float32)
  estimate, truth = (jnp.asarray(rng.standard_normal((2, 3, 3)) * [0.05, 2, 2], jnp.float32) for _ in range(2))
  got = motion_error(estimate, truth, *shape)
  displacement_field = jax.jit(warp.displacement_field, static_argnums=(2, 3))
  fields = [np.asarray(displacement_field(fov, m, *shape), np.float64) for m in (estimate, truth)]
  for b, n in np.ndindex(2, 3):
    squares = [np.sum((fields[0] - fields[1])[b, n, y, x] ** 2) for y, x in np.ndindex(shape)]
    np.testing.assert_allclose(got[b, n], np.sqrt(np.mean(squares)), rtol=1e-4)


def test_motion_error_by_hand():
  """A shift by (3, 4) px is 5 px wrong everywhere; a zoom of 0.1 on 3 x 3 px displaces the border pixels by 0.1."""
  shift, zoom = jnp.array([[0.0, 3.0, 4.0]]), jnp.array([[0.1, 0.0, 0.0]])
  np.testing.assert_allclose(motion_error(shift, jnp.zeros((1, 3)), 32, 48), [5], rtol=1e-6)
  np.testing.assert_allclose(motion_error(jnp.zeros((1, 3)), zoom, 3, 3), [0.1 * np.sqrt(12 / 9)], rtol=1e-5)


def test_gradients_at_zero_error():
  truth = jnp.array([[0.01, 1.0, -2.0]])
  value, slope = jax.jit(jax.value_and_grad(lambda m: losses.motion_error(m, truth, 32, 32).sum()))(truth)
  np.testing.assert_allclose(value, 0, atol=2e-6)
  np.testing.assert_array_equal(slope, 0)
  depth = jnp.ones((1, 2, 2))
  slope = jax.jit(jax.grad(lambda d: losses.pyramid_loss([d] * 4, depth, depth)[0]))(depth)
  np.testing.assert_array_equal(slope, 0)


def stack_of(focus, target):
  return FocalStack(
    images=jnp.zeros((2, 3, 4, 4, 3)),
    focus=jnp.asarray(focus, jnp.float32),
    fov=jnp.ones((2, 3)),
    target=target,
    valid=jnp.ones((2, 4, 4)),
  )


FOCUS = np.array([[0.5, 1.5, 2.5], [1.0, 4.0, 2.0]])  # in any order


def test_unit_focus_by_hand():
  target = jnp.stack([jnp.full((4, 4), 2.0), jnp.full((4, 4), 1.75)])
  mapped = unit_focus(stack_of(FOCUS, target))
  np.testing.assert_allclose(mapped.focus, [[0, 0.5, 1], [0, 1, 1 / 3]], rtol=1e-6)
  np.testing.assert_allclose(mapped.target[:, 0, 0], [0.75, 0.25], rtol=1e-6)
  np.testing.assert_array_equal(mapped.valid, 1)


def test_unit_focus_is_the_same_in_every_unit():
  target = jnp.asarray(np.random.default_rng(4).uniform(0.5, 4, (2, 4, 4)), jnp.float32)
  expected = unit_focus(stack_of(FOCUS, target))
  for factor, offset in ((0.02, 0.1), (1000.0, 0.0)):
    mapped = unit_focus(stack_of(FOCUS * factor + offset, target * factor + offset))
    np.testing.assert_allclose(mapped.focus, expected.focus, atol=1e-5)
    np.testing.assert_allclose(mapped.target, expected.target, atol=1e-5)


def test_unit_focus_without_target():
  assert unit_focus(stack_of(FOCUS, None)).target is None
