"""The small depth network: its result before training, and invariances."""

import functools

import flax
import jax
import numpy as np
import pytest
import scipy.special
from host import on_host

from focal_jax.models import blocks, curves
from focal_jax.models.curves import CurveNetwork
from focal_jax.models.relative_sharpness import relative_sharpness

SIZE = 32  # px: the least


@pytest.fixture(scope='module')
def apply():
  """(variables, images, focus) -> (pyramid, distribution), compiled once for each shape."""

  def apply(variables, *stack):
    maps = CurveNetwork().apply(variables, *stack, train=False)
    return maps.pyramid, maps.weights

  return on_host(apply)


def stack(frames, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.uniform(-1, 1, (1, frames, SIZE, SIZE, 3)).astype(np.float32)
  return images, np.sort(rng.uniform(0, 2, (1, frames)).astype(np.float32))


@functools.cache
def drawn(scale=1.0):
  """Variables of random numbers, none of them 0."""
  shapes = jax.eval_shape(functools.partial(CurveNetwork().init, train=False), jax.random.key(0), *stack(2))
  rng = np.random.default_rng(1)
  flat = {
    name: np.asarray(scale * rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1)), np.float32)
    for name, leaf in flax.traverse_util.flatten_dict(shapes).items()
  }
  return flax.traverse_util.unflatten_dict(flat)


def test_without_training_the_distribution_is_that_of_the_measures(apply):
  images, focus = stack(5)
  pyramid, distribution = apply(jax.tree.map(np.zeros_like, drawn()), images, focus)
  scores = curves.SCORE_GAIN * on_host(relative_sharpness)(images).sum(-1)
  expected = scipy.special.softmax(scores, axis=1)
  np.testing.assert_allclose(distribution, expected, atol=1e-5)
  np.testing.assert_allclose(pyramid[-1], np.einsum('bnhw,bn->bhw', expected, focus), atol=1e-5)
  for coarse in pyramid[:3]:  # which have learnt nothing
    np.testing.assert_allclose(coarse, np.broadcast_to(focus.mean(), coarse.shape), atol=1e-5)


@pytest.mark.parametrize('frames', [2, 5])
def test_depth_is_a_mixture_of_the_focus_of_any_number_of_frames(apply, frames):
  images, focus = stack(frames)
  pyramid, distribution = apply(drawn(), images, focus)
  assert [depth.shape for depth in pyramid] == 4 * [(1, SIZE, SIZE)]
  np.testing.assert_allclose(distribution.sum(1), 1, atol=1e-5)
  for depth in pyramid:
    assert focus.min() - 1e-5 <= depth.min() <= depth.max() <= focus.max() + 1e-5
  assert np.ptp(pyramid[-1]) > 0.01 * np.ptp(focus)


def test_depth_follows_the_unit_of_focus(apply):
  images, focus = stack(5)
  depth = apply(drawn(), images, focus)[0][-1]
  np.testing.assert_allclose(apply(drawn(), images, 3 * focus + 1)[0][-1], 3 * depth + 1, rtol=1e-5)


def test_stacks_of_a_batch_are_independent():
  """In training, too, where normalisation by batches would mix them."""
  (one, focus_one), (two, focus_two) = stack(3, 0), stack(3, 1)
  both = np.concatenate([one, two]), np.concatenate([focus_one, focus_two])
  train = on_host(lambda variables, *stack: CurveNetwork().apply(variables, *stack, train=True).pyramid[-1])
  together = train(drawn(), *both)
  np.testing.assert_allclose(together[0], train(drawn(), one, focus_one)[0], rtol=1e-4)
  np.testing.assert_allclose(together[1], train(drawn(), two, focus_two)[0], rtol=1e-4)


def test_rearrangements_of_pixels():
  x = jax.random.normal(jax.random.key(0), (1, 2, 4, 6, 3))
  halved = np.asarray(curves.space_to_depth(x))
  for i, j in np.ndindex(2, 2):
    np.testing.assert_array_equal(halved[..., 3 * (2 * i + j) :][..., :3], x[:, :, i::2, j::2])
  np.testing.assert_array_equal(blocks.double_nearest(x), np.asarray(x).repeat(2, 2).repeat(2, 3))
