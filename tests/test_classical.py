"""Classical depth from focus on stacks blurred by scipy, where the true depth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax import classical

SHAPE = (48, 64)  # one shape for all tests: one compilation


def ramp_stack(focus, seed=0):
  """White noise on a slanted plane, blurred in each frame by 4 px (Gaussian sigma) per unit of defocus.

  Each pixel takes its value from the texture blurred for its own depth, interpolated between 33 blur levels.
  """
  rng = np.random.default_rng(seed)
  texture = rng.random((*SHAPE, 3))
  depth = np.broadcast_to(np.linspace(0.15, 0.85, SHAPE[1]), SHAPE)
  sigmas = np.linspace(0, 4, 33)
  levels = np.stack([ndimage.gaussian_filter(texture, (s, s, 0), mode='reflect') for s in sigmas])
  rows, columns = np.indices(SHAPE)
  images = []
  for coordinate in focus:
    level = np.interp(4 * np.abs(depth - coordinate), sigmas, np.arange(33))
    low = np.minimum(level.astype(int), 31)
    share = (level - low)[..., None]
    images.append((1 - share) * levels[low, rows, columns] + share * levels[low + 1, rows, columns])
  return np.stack(images).astype(np.float32), depth


UNIFORM = np.linspace(0, 1, 9, dtype=np.float32)
NON_UNIFORM = np.float32([1, 0.94, 0.85, 0.73, 0.6, 0.45, 0.3, 0.18, 0])  # and descending


@pytest.mark.parametrize('focus', [UNIFORM, NON_UNIFORM], ids=['uniform', 'non-uniform descending'])
def test_recovers_a_depth_ramp(focus):
  images, depth = ramp_stack(focus)
  estimate, confidence = classical.depth_from_focus(images, focus)
  error = np.abs(estimate - depth)[:, 4:-4]  # the window is cut off at the border
  # The frames are 0.125 apart (0.06 .. 0.18 if not uniform): well below half of it, so sub-frame.
  assert np.mean(error) < 0.02
  assert np.quantile(error, 0.95) < 0.05
  assert np.all(np.isfinite(confidence))
  assert 0 < np.min(confidence) <= np.max(confidence) < 1


def test_reversing_the_frames_changes_nothing():
  images, _ = ramp_stack(NON_UNIFORM)
  depth, confidence = classical.depth_from_focus(images, NON_UNIFORM)
  backward, same = classical.depth_from_focus(images[::-1].copy(), NON_UNIFORM[::-1].copy())
  np.testing.assert_allclose(backward, depth, atol=1e-4)
  np.testing.assert_allclose(same, confidence, atol=1e-6)


def test_brightness_of_a_frame_does_not_matter():
  images, _ = ramp_stack(UNIFORM)
  flicker = np.random.default_rng(1).uniform(-0.2, 0.2, len(UNIFORM)).astype(np.float32)
  depth, confidence = classical.depth_from_focus(images, UNIFORM)
  shifted = classical.depth_from_focus(images + flicker[:, None, None, None], UNIFORM)
  np.testing.assert_allclose(shifted[0], depth, atol=1e-3)
  np.testing.assert_allclose(shifted[1], confidence, atol=1e-4)


def test_without_texture_the_middle_frame():
  images = np.full((9, *SHAPE, 3), 0.3, np.float32)
  depth, confidence = classical.depth_from_focus(images, NON_UNIFORM)
  np.testing.assert_allclose(depth, NON_UNIFORM[4], rtol=1e-6)
  np.testing.assert_array_equal(confidence, 0)


def test_a_texture_less_hole_is_filled_from_around_it():
  images, depth = ramp_stack(UNIFORM)
  images[:, 14:34, 22:42] = 0.5
  estimate, confidence = classical.depth_from_focus(images, UNIFORM)
  assert np.all(confidence[22:26, 30:34] < 0.5 * np.median(confidence))
  np.testing.assert_allclose(estimate[22:26, 30:34], depth[22:26, 30:34], atol=0.12)


@pytest.mark.parametrize('frames', [1, 2])
def test_few_frames(frames):
  """Nothing to interpolate between: every depth lies within the focus range."""
  focus = UNIFORM[3 : 3 + frames]
  images, _ = ramp_stack(focus)
  depth, confidence = classical.depth_from_focus(images[:, :7, :5], focus)  # small and odd, too
  assert np.all((depth >= focus[0]) & (depth <= focus[-1]))
  assert np.all((confidence >= 0) & (confidence <= 1))


def test_gaussian_peak_is_exact_for_a_gaussian():
  centre = np.random.default_rng(2).uniform(0.5, 5.5, (6, 7))
  frames = np.arange(7)[:, None, None]
  measure = 3 * np.exp(-((frames - centre) ** 2) / (2 * 1.3**2))
  np.testing.assert_allclose(classical.gaussian_peak(jnp.asarray(measure, jnp.float32)), centre, atol=1e-4)


def test_gaussian_peak_by_hand_and_at_the_ends():
  # ln = (0, 2, 1): 1 + (1 - 0) / (2 (4 - 0 - 1)) = 1 + 1/6. Rising, falling, flat and zero measures stay on a frame.
  measure = np.exp([[0, 2, 1], [0, 1, 2], [2, 1, 0], [1, 1, 1]]).T[..., None]
  measure = np.concatenate([measure, np.zeros((3, 1, 1))], axis=1)
  peak = classical.gaussian_peak(jnp.asarray(measure, jnp.float32))
  np.testing.assert_allclose(peak[:, 0], [1 + 1 / 6, 2, 0, 0, 0], atol=1e-6)


def test_focus_measure_of_a_paraboloid():
  """I = (a x^2 + b y^2) in every channel: |second difference| is 2 a s^2 + 2 |b| s^2, wherever no edge is near."""
  y, x = np.mgrid[:24, :24].astype(np.float32) / 24
  images = np.repeat((0.5 * x**2 - 0.25 * y**2)[None, ..., None], 3, axis=-1)
  step = 2
  measure = jax.jit(classical.focus_measure, static_argnums=(1, 2))(images, step, 1.0)
  np.testing.assert_allclose(measure[0, 8:16, 8:16], (1.0 + 0.5) * (step / 24) ** 2, rtol=1e-3)


def test_fill_keeps_the_certain_and_fills_the_rest():
  value = jnp.zeros((5, 6)).at[:, 3:].set(2.0)
  weight = jnp.ones((5, 6)).at[1:4, 2:4].set(0.0)
  filled = jax.jit(classical.fill)(value.at[1:4, 2:4].set(99.0), weight, 1e-4, 7.0)
  np.testing.assert_allclose(filled[0], value[0], atol=1e-3)
  assert np.all((filled >= 0) & (filled <= 2 + 1e-5))  # nothing of the 99 without weight
  np.testing.assert_allclose(jax.jit(classical.fill)(value, 0 * weight, 1e-4, 7.0), 7.0, rtol=1e-6)


def test_margin_hides_made_up_pixels():
  """By default the Laplacian is taken from 4 px inside on and reaches 2 px: it does not see the outermost two."""
  images, _ = ramp_stack(UNIFORM)
  clean = classical.depth_from_focus(images, UNIFORM)
  images[7, :, :2] = np.random.default_rng(3).random((SHAPE[0], 2, 3))
  dirty = classical.depth_from_focus(images, UNIFORM)
  np.testing.assert_array_equal(dirty, clean)
