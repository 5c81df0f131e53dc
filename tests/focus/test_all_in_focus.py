"""The all-in-focus image against loops over pixels, and at borders where frames end."""

import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import warp
from focal_jax.focus.all_in_focus import all_in_focus
from focal_jax.stack import Prediction

SHAPE = FRAMES, HEIGHT, WIDTH = 4, 12, 17


def prediction(rng, *, depth=None, weights=None, coverage=None, aligned=None):
  coverage = np.ones(SHAPE, np.float32) if coverage is None else coverage
  if aligned is None:
    aligned = rng.random((*SHAPE, 3), np.float32) * coverage[..., None]
  depth = np.zeros(SHAPE[1:], np.float32) if depth is None else depth.astype(np.float32)
  motion = np.zeros((FRAMES, 3), np.float32)
  return Prediction(depth, np.ones_like(depth), aligned, coverage, motion, weights=weights)


def distribution(rng):
  weights = rng.random(SHAPE, np.float32) ** 4
  return weights / weights.sum(0)


def test_mean_of_the_frames_that_show_a_pixel():
  rng = np.random.default_rng(0)
  coverage = (rng.random(SHAPE) < 0.6).astype(np.float32)
  given = prediction(rng, weights=distribution(rng), coverage=coverage)
  image = all_in_focus(given, np.arange(4.0))
  assert image.dtype == np.float32
  for i in range(HEIGHT):
    for j in range(WIDTH):
      seen = [n for n in range(FRAMES) if coverage[n, i, j]]
      total = sum(given.weights[n, i, j] for n in seen)
      if total > 1e-3:
        expected = sum(given.weights[n, i, j] / total * given.aligned[n, i, j] for n in seen)
      else:
        expected = given.aligned[-1, i, j]
      np.testing.assert_allclose(image[i, j], expected, atol=1e-6)


@pytest.mark.parametrize('outside', [0.0, 0.5])  # of the warp itself, and of a network that eats -1 .. 1
@pytest.mark.parametrize('classical', [False, True])
def test_borders_of_moved_frames_do_not_show(classical, outside):
  """A plain wall stays plain, whatever was shifted out of view, for fractions of a pixel too."""
  rng = np.random.default_rng(1)
  motion = rng.uniform(-3, 3, (4, 3)) * (0.02, 1, 1)
  motion[-1] = 0
  fov, motion = jnp.ones(4), jnp.asarray(motion, jnp.float32)
  wall = jnp.broadcast_to(jnp.array((0.2, 0.9, 0.5)), (*SHAPE, 3))
  given = prediction(
    rng,
    depth=rng.uniform(0, 3, SHAPE[1:]),
    weights=None if classical else distribution(rng),
    coverage=np.asarray(warp.coverage(fov, motion, HEIGHT, WIDTH)),
    aligned=np.asarray(warp.warp(wall - outside, fov, motion) + outside),
  )
  assert given.coverage.min() == 0
  assert ((given.coverage > 0.1) & (given.coverage < 0.9)).any()
  np.testing.assert_allclose(all_in_focus(given, np.arange(4.0)), wall[0], atol=1e-5)


@pytest.mark.parametrize('focus', [[0.5, 1.0, 2.0, 4.0], [4.0, 2.0, 1.0, 0.5], [2.0, 0.5, 4.0, 1.0]])
def test_without_a_distribution_between_the_frames_around_the_depth(focus):
  rng, focus = np.random.default_rng(2), np.array(focus)
  depth = rng.uniform(0.3, 4.5, SHAPE[1:])
  depth[0, 0], depth[0, 1], depth[0, 2] = 1.0, 3.0, 0.1  # at a frame, half way between two, beyond the last
  given = prediction(rng, depth=depth)
  image = all_in_focus(given, focus)
  frame = {value: given.aligned[list(focus).index(value)] for value in focus}
  np.testing.assert_allclose(image[0, 0], frame[1.0][0, 0], atol=1e-6)
  np.testing.assert_allclose(image[0, 1], (frame[2.0][0, 1] + frame[4.0][0, 1]) / 2, atol=1e-6)
  np.testing.assert_allclose(image[0, 2], frame[0.5][0, 2], atol=1e-6)
  for i, j in np.ndindex(HEIGHT, WIDTH):
    expected = [
      np.interp(depth[i, j], sorted(focus), [frame[value][i, j, c] for value in sorted(focus)]) for c in range(3)
    ]
    np.testing.assert_allclose(image[i, j], expected, atol=1e-5)


def test_without_a_distribution_frames_that_do_not_show_a_pixel_have_no_part():
  rng = np.random.default_rng(3)
  coverage = np.ones(SHAPE, np.float32)
  coverage[1, 0, 0] = 0  # one of the two
  coverage[1:3, 0, 1] = 0  # both: the reference then
  given = prediction(rng, depth=np.full(SHAPE[1:], 1.5), coverage=coverage)
  image = all_in_focus(given, np.arange(4.0))
  np.testing.assert_allclose(image[0, 0], given.aligned[2, 0, 0], atol=1e-6)
  np.testing.assert_allclose(image[0, 1], given.aligned[3, 0, 1], atol=1e-6)
  np.testing.assert_allclose(image[5, 5], given.aligned[1:3, 5, 5].mean(0), atol=1e-6)


def test_half_precision_as_tiles_have_it():
  rng = np.random.default_rng(4)
  given = prediction(rng, weights=distribution(rng))
  half = given.replace(**{name: getattr(given, name).astype(np.float16) for name in ('aligned', 'coverage', 'weights')})
  image = all_in_focus(half, np.arange(4.0))
  assert image.dtype == np.float32
  np.testing.assert_allclose(image, all_in_focus(given, np.arange(4.0)), atol=2e-3)
