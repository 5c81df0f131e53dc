"""One draw for a whole stack: geometry read off the target, which names its pixels, and photometry solved for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import optimize

from focal_jax import warp
from focal_jax.data import augment
from focal_jax.stack import FocalStack

BATCH, FRAMES, SIDE = 64, 3, 6
LOW, HIGH = 0.3, 0.7  # of the images: neither contrast nor brightness can clip them
# Fast to compile rather than to run.
augment_batch = jax.jit(
  lambda key, stack: augment.augment_batch(random.split(key, BATCH), stack),
  compiler_options={'xla_backend_optimization_level': 0},
)


def original():
  """Every pixel's target is unique, its image value is LOW .. HIGH in proportion, and valid is an odd pattern."""
  rng = np.random.default_rng(0)
  target = rng.permutation(np.linspace(0, 1, SIDE * SIDE)).reshape(SIDE, SIDE).astype(np.float32)
  images = np.broadcast_to((LOW + (HIGH - LOW) * target)[None, :, :, None], (FRAMES, SIDE, SIDE, 3))
  valid = (np.round(target * (SIDE * SIDE - 1)) % 3 > 0).astype(np.float32)
  images, focus, fov, target, valid = (
    jnp.stack([jnp.asarray(x, jnp.float32)] * BATCH)
    for x in (images, np.arange(FRAMES), np.ones(FRAMES), target, valid)
  )
  return FocalStack(images=images, focus=focus, fov=fov, target=target, valid=valid, all_in_focus=images[:, 1])


@pytest.fixture(scope='module')
def stack():
  return original()


@pytest.fixture(scope='module')
def augmented(stack):
  return jax.tree.map(np.asarray, augment_batch(random.key(0), stack))


def by_target(augmented, b):
  """Image values of stack b in the order of the original target, [SIDE * SIDE, FRAMES, 3]."""
  values = np.moveaxis(augmented.images[b], 0, 2).reshape(SIDE * SIDE, FRAMES, 3)
  return values[np.argsort(augmented.target[b].ravel())]


def test_target_is_turned_and_flipped_in_all_eight_ways(stack, augmented):
  before = np.asarray(stack.target[0])
  ways = [np.rot90(m, k) for m in (before, before[::-1]) for k in range(4)]
  seen = [[i for i, way in enumerate(ways) if np.array_equal(way, after)] for after in augmented.target]
  assert all(len(found) == 1 for found in seen)
  assert {found[0] for found in seen} == set(range(8))


def test_images_and_valid_stay_in_register_with_the_target(augmented):
  index = np.round(augmented.target * (SIDE * SIDE - 1))
  np.testing.assert_array_equal(augmented.valid, index % 3 > 0)
  for b in range(BATCH):
    brightness = by_target(augmented, b)
    # All frames and channels change in the same way, and brighter pixels stay brighter.
    np.testing.assert_array_equal(brightness, np.broadcast_to(brightness[:, :1, :1], brightness.shape))
    assert np.all(np.diff(brightness[:, 0, 0]) > 0)
  np.testing.assert_array_equal(augmented.all_in_focus, augmented.images[:, 1])  # what a mixture of frames can equal


def photometry(values):
  """(contrast, brightness, gamma) that made `values` of LOW .. HIGH: with the gamma undone they are evenly spaced."""
  quarters = values[[0, 14, 21, 35]]  # symmetric about the middle
  power = optimize.brentq(lambda power: np.dot([1, -1, -1, 1], quarters**power), 0.4, 2.5)
  low, high = quarters[[0, 3]] ** power
  return (high - low) / (HIGH - LOW), (high + low) / 2 - 0.5, 1 / power


def test_photometry_is_in_range_and_fills_it(augmented):
  found = np.array([photometry(by_target(augmented, b)[:, 0, 0].astype(np.float64)) for b in range(BATCH)])
  for values, (low, high) in zip(found.T, (augment.CONTRAST, augment.BRIGHTNESS, augment.GAMMA), strict=True):
    margin = 1e-2 * (high - low)
    assert low - margin < values.min() < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < values.max() < high + margin
    np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.15 * (high - low))
  correlation = np.corrcoef(found.T)[np.triu_indices(3, 1)]
  assert np.all(np.abs(correlation) < 0.4)  # three draws, not one


def test_published_ranges():
  assert (augment.CONTRAST, augment.BRIGHTNESS, augment.GAMMA) == ((0.4, 1.6), (-0.1, 0.1), (0.5, 2.0))


def test_the_rest_is_left_alone(stack, augmented):
  np.testing.assert_array_equal(augmented.focus, stack.focus)
  np.testing.assert_array_equal(augmented.fov, stack.fov)
  assert augmented.motion is None


def test_the_motion_turns_with_the_frames():
  """Augmented and then aligned is aligned and then augmented, by `warp` itself."""
  rows, columns = np.mgrid[:24, :24]
  picture = np.sin(0.3 * rows) + np.cos(0.2 * columns) + 0.02 * rows  # no symmetry
  images = jnp.asarray(np.broadcast_to(0.5 + 0.1 * picture[None, ..., None], (2, 24, 24, 3)), jnp.float32)
  fov, motion = jnp.array([1.05, 1.0]), jnp.array([[0.03, 1.5, -0.6], [-0.02, 0.4, 1.1]])
  zeros = jnp.zeros((24, 24))
  moving = FocalStack(images=images, focus=jnp.arange(2.0), fov=fov, target=zeros, valid=zeros, motion=motion)
  still = moving.replace(images=jax.jit(warp.warp)(images, fov, motion))

  @jax.jit
  def both(key):
    one, other = augment.augment(key, moving), augment.augment(key, still)
    return warp.warp(one.images, one.fov, one.motion), other.images, one.motion

  ways = set()
  for seed in range(40):
    aligned, expected, moved = both(random.key(seed))
    inside = np.s_[:, 4:-4, 4:-4]
    # Bilinear sampling and the gamma do not commute exactly; unmoved frames are off by up to 0.5.
    np.testing.assert_allclose(aligned[inside], expected[inside], atol=0.02)
    ways.add(tuple(np.round(np.asarray(moved[0]), 4)))
  assert len(ways) == 8


def test_the_key_decides(stack, augmented):
  again = augment_batch(random.key(0), stack)
  for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(augmented), strict=True):
    np.testing.assert_array_equal(a, b)
  other = augment_batch(random.key(1), stack)
  assert not np.array_equal(other.images, augmented.images)
  # Each stack has its own random parameters.
  assert len({values.tobytes() for values in augmented.images}) == BATCH


def test_black_and_white_stay_finite_and_in_range(stack):
  extremes = jnp.where(jnp.arange(SIDE)[:, None] % 2, jnp.float32(1), 0)
  images = jnp.broadcast_to(extremes, stack.images.shape)
  changed = augment_batch(random.key(2), stack.replace(images=images)).images
  assert 0 <= float(changed.min()) < float(changed.max()) <= 1
