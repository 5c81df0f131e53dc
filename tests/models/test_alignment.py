"""Optimised computations of the motion heads against direct ones; motion fitted to displacements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import warp
from focal_jax.models.alignment import FittedAlignment, MeanConv, PairNorm, fit_motion, likeness
from focal_jax.models.blocks import PLANE, Conv, ConvNorm
from focal_jax.models.registry import make_model


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('train', [False, True])
def test_pairs_are_a_convolution_of_all_side_by_side(train):
  warped, fov, motion = normal(0, 2, 3, 6, 9, 4), 1 + 0.1 * normal(1, 2, 3), normal(2, 2, 3, 3)
  size = (5, 8.5)
  field = warp.displacement_field(fov, motion, 6, 9, size)
  reference = jnp.broadcast_to(warped[:, -1:], warped.shape)
  whole = ConvNorm(8, PLANE)
  variables = whole.init(jax.random.key(3), jnp.concatenate([reference, warped, field], -1), train=False)
  expected = whole.apply(
    variables, jnp.concatenate([reference, warped, field], -1), train=train, mutable=['batch_stats']
  )
  dx, dy = field[:, :, 0, :, 0], field[:, :, :, 0, 1]
  got = PairNorm(8).apply(variables, warped, dx, dy, train=train, mutable=['batch_stats'])
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (3.5, 2), (1, 1)])
def test_mean_of_a_convolution(size):
  """Over the image alone, though what pads it is seen by the kernel; sizes may be fractional."""
  x = normal(0, 2, 3, 6, 8, 4)
  variables = {'params': {'kernel': normal(1, 1, 3, 3, 4, 3), 'bias': normal(2, 3)}}
  whole = np.asarray(Conv(3, PLANE, use_bias=True).apply(variables, x))
  rows, columns = np.arange(6) < size[0], np.arange(8) < size[1]
  expected = whole[:, :, rows][:, :, :, columns].mean((2, 3))
  np.testing.assert_allclose(MeanConv(3).apply(variables, x, size), expected, atol=1e-5)


def test_likeness_is_a_product_for_each_displacement():
  frame, other = normal(0, 1, 2, 5, 6, 3), normal(1, 1, 1, 5, 6, 3)
  got = np.asarray(likeness(frame, other, 2)).reshape(1, 2, 5, 6, 5, 5)
  for y, x, dy, dx in [(2, 3, 1, -2), (0, 0, 2, 2), (4, 5, -1, 0)]:
    expected = (other[0, 0, y, x] * frame[0, :, y + dy, x + dx]).sum(-1)
    np.testing.assert_allclose(got[0, :, y, x, dy + 2, dx + 2], expected, atol=1e-5)
  assert (got[0, :, 0, 0, 1] == 0).all()  # beyond the border


@pytest.mark.parametrize('size', [(40, 48), (33, 47), (19.5, 20)])
def test_fitted_motion_is_that_of_the_displacements(size):
  """Whatever the weights, also where most are 0; what pads the image has none."""
  motion = jnp.array([[[0.04, 1.5, -0.7], [-0.06, 0.2, 2.0], [0.0, 0.0, 0.0]]])
  field = warp.displacement_field(jnp.ones((1, 3)), motion, 40, 48, size)
  weights = jnp.where(normal(2, 1, 3, 40, 48, 2) > 1, 50 * jnp.exp(normal(3, 1, 3, 40, 48, 2)), 0.0)
  inside = (jnp.arange(40)[:, None] < size[0]) & (jnp.arange(48) < size[1])
  found = fit_motion(jnp.where(inside[..., None], field, 9.0), weights * inside[..., None], size)
  np.testing.assert_allclose(found, motion, rtol=3e-3, atol=3e-3)
  np.testing.assert_array_equal(fit_motion(field, jnp.zeros_like(weights), size), 0)


def test_only_what_the_weights_count_is_fitted():
  """Of displacements that contradict one another."""
  motion = jnp.array([[[0.05, -1.0, 0.5]]])
  field = warp.displacement_field(jnp.ones((1, 1)), motion, 32, 32)
  left = jnp.arange(32)[:, None] < 16
  found = fit_motion(jnp.where(left, field, 3.0), jnp.where(left, 100.0, 1e-4) * jnp.ones((1, 1, 32, 32, 2)), (32, 32))
  np.testing.assert_allclose(found, motion, atol=5e-3)


def test_last_frame_has_no_fitted_motion():
  network = FittedAlignment()
  images = normal(0, 1, 3, 32, 32, 3)

  @jax.jit
  def run(images):
    variables = network.init(jax.random.key(1), images, jnp.ones((1, 3)), train=False)
    return network.apply(variables, images, jnp.ones((1, 3)), train=False)

  found = run(images)
  assert found.shape == (1, 3, 3)
  assert np.isfinite(found).all()
  np.testing.assert_array_equal(found[:, -1], 0)
  assert np.abs(found[:, :-1]).max() > 0


def test_passes_share_their_variables():
  shapes = [
    jax.eval_shape(
      lambda passes=passes: FittedAlignment(passes).init(
        jax.random.key(0), jnp.zeros((1, 2, 32, 32, 3)), jnp.ones((1, 2)), train=False
      )
    )
    for passes in (1, 3)
  ]
  assert shapes[0] == shapes[1]
  network = make_model({'align': {'name': 'fitted', 'passes': 3}})
  assert (network.alignment.passes, network.motion_passes) == (3, 1)
