"""Short ways to what the motion heads compute, against the long ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import warp
from focal_jax.models.alignment import MeanConv, PairNorm
from focal_jax.models.blocks import PLANE, Conv, ConvNorm


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
