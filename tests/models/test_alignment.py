"""Optimised computations of the motion heads against direct ones; motion fitted to displacements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host import on_host

from focal_jax import warp
from focal_jax.models.alignment import FittedAlignment, MeanConv, PairNorm, fit_motion, local_correlation
from focal_jax.models.blocks import PLANE, Conv, ConvNorm
from focal_jax.models.registry import make_model


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


displacement_field = on_host(warp.displacement_field, static_argnums=(2, 3, 4))
fit = on_host(fit_motion, static_argnums=2)


@pytest.mark.parametrize('train', [False, True])
def test_pairs_are_a_convolution_of_all_side_by_side(train):
  size = (5, 8.5)

  @jax.jit
  def both_ways(warped, fov, motion):
    field = warp.displacement_field(fov, motion, 6, 9, size)
    reference = jnp.broadcast_to(warped[:, -1:], warped.shape)
    whole, inputs = ConvNorm(8, PLANE), jnp.concatenate([reference, warped, field], -1)
    variables = whole.init(jax.random.key(3), inputs, train=False)
    expected = whole.apply(variables, inputs, train=train, mutable=['batch_stats'])
    dx, dy = field[:, :, 0, :, 0], field[:, :, :, 0, 1]
    return PairNorm(8).apply(variables, warped, dx, dy, train=train, mutable=['batch_stats']), expected

  got, expected = both_ways(normal(0, 2, 3, 6, 9, 4), 1 + 0.1 * normal(1, 2, 3), normal(2, 2, 3, 3))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (3.5, 2), (1, 1)])
def test_mean_of_a_convolution(size):
  """The mean is over the image alone, although the kernel reaches into the padding; sizes may be fractional."""
  x = normal(0, 2, 3, 6, 8, 4)
  variables = {'params': {'kernel': normal(1, 1, 3, 3, 4, 3), 'bias': normal(2, 3)}}
  whole = on_host(Conv(3, PLANE, use_bias=True).apply)(variables, x)
  rows, columns = np.arange(6) < size[0], np.arange(8) < size[1]
  expected = whole[:, :, rows][:, :, :, columns].mean((2, 3))
  mean = jax.jit(MeanConv(3).apply, static_argnums=2)(variables, x, size)
  np.testing.assert_allclose(mean, expected, atol=1e-5)


def test_likeness_is_a_product_for_each_displacement():
  frame, other = normal(0, 1, 2, 5, 6, 3), normal(1, 1, 1, 5, 6, 3)
  got = on_host(local_correlation, static_argnums=2)(frame, other, 2).reshape(1, 2, 5, 6, 5, 5)
  for y, x, dy, dx in [(2, 3, 1, -2), (0, 0, 2, 2), (4, 5, -1, 0)]:
    expected = (other[0, 0, y, x] * frame[0, :, y + dy, x + dx]).sum(-1)
    np.testing.assert_allclose(got[0, :, y, x, dy + 2, dx + 2], expected, atol=1e-5)
  assert (got[0, :, 0, 0, 1] == 0).all()  # beyond the border


@pytest.mark.parametrize('size', [(40, 48), (33, 47), (19.5, 20)])
def test_fitted_motion_is_that_of_the_displacements(size):
  """For any weights, even if most are 0; padding has weight 0."""
  motion = np.array([[[0.04, 1.5, -0.7], [-0.06, 0.2, 2.0], [0.0, 0.0, 0.0]]], np.float32)
  field = displacement_field(np.ones((1, 3), np.float32), motion, 40, 48, size)
  weights = np.where(normal(2, 1, 3, 40, 48, 2) > 1, 50 * np.exp(normal(3, 1, 3, 40, 48, 2)), np.float32(0))
  inside = ((np.arange(40)[:, None] < size[0]) & (np.arange(48) < size[1]))[..., None]
  found = fit(np.where(inside, field, np.float32(9)), weights * inside, size)
  np.testing.assert_allclose(found, motion, rtol=3e-3, atol=3e-3)
  np.testing.assert_array_equal(fit(field, np.zeros_like(weights), size), 0)


def test_only_what_the_weights_count_is_fitted():
  """The displacements contradict one another."""
  motion = np.array([[[0.05, -1.0, 0.5]]], np.float32)
  field = displacement_field(np.ones((1, 1), np.float32), motion, 32, 32, None)
  left = np.arange(32)[:, None, None] < 16
  weights = np.broadcast_to(np.where(left, np.float32(100), np.float32(1e-4)), field.shape)
  found = fit(np.where(left, field, np.float32(3)), weights, (32, 32))
  np.testing.assert_allclose(found, motion, atol=5e-3)


def test_last_frame_has_no_fitted_motion():
  network = FittedAlignment()

  @on_host
  def run(images):
    variables = network.init(jax.random.key(1), images, jnp.ones((1, 3)), train=False)
    return network.apply(variables, images, jnp.ones((1, 3)), train=False)

  found = run(normal(0, 1, 3, 32, 32, 3))
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
