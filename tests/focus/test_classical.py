"""Classical depth from focus on stacks blurred by scipy, where the true depth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax.errors import InputError
from focal_jax.focus import classical

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


gaussian_peak = jax.jit(classical.gaussian_peak)


def test_gaussian_peak_is_exact_for_a_gaussian():
  centre = np.random.default_rng(2).uniform(0.5, 5.5, (6, 7))
  frames = np.arange(7)[:, None, None]
  measure = 3 * np.exp(-((frames - centre) ** 2) / (2 * 1.3**2))
  np.testing.assert_allclose(gaussian_peak(measure.astype(np.float32)), centre, atol=1e-4)


def test_gaussian_peak_by_hand_and_at_the_ends():
  # ln = (0, 2, 1): 1 + (1 - 0) / (2 (4 - 0 - 1)) = 1 + 1/6. Rising, falling, flat and zero measures stay on a frame.
  measure = np.exp([[0, 2, 1], [0, 1, 2], [2, 1, 0], [1, 1, 1]]).T[..., None]
  measure = np.concatenate([measure, np.zeros((3, 1, 1))], axis=1)
  peak = np.asarray(gaussian_peak(measure.astype(np.float32)))
  np.testing.assert_allclose(peak[:, 0], [1 + 1 / 6, 2, 0, 0, 0], atol=1e-6)


def test_focus_measure_of_a_paraboloid():
  """I = (a x^2 + b y^2) in every channel: |second difference| is 2 a s^2 + 2 |b| s^2, wherever no edge is near."""
  y, x = np.mgrid[:24, :24].astype(np.float32) / 24
  images = np.repeat((0.5 * x**2 - 0.25 * y**2)[None, ..., None], 3, axis=-1)
  step = 2
  measure = jax.jit(classical.focus_measure, static_argnums=(1, 2))(images, step, 1.0)
  np.testing.assert_allclose(measure[0, 8:16, 8:16], (1.0 + 0.5) * (step / 24) ** 2, rtol=1e-3)


def test_margin_hides_made_up_pixels():
  """The ring difference starts 5 px from the border and reaches 3 px, so it does not use the outermost two."""
  images, _ = ramp_stack(UNIFORM)
  clean = classical.depth_from_focus(images, UNIFORM)
  images[7, :, :2] = np.random.default_rng(3).random((SHAPE[0], 2, 3))
  dirty = classical.depth_from_focus(images, UNIFORM)
  np.testing.assert_array_equal(dirty, clean)


def independent_measure(name, luma):
  """By scipy, edges repeated, before the window."""
  if name == 'laplacian':
    return sum(abs(ndimage.correlate1d(luma, [-1, 0, 2, 0, -1], axis, mode='nearest')) for axis in (0, 1))
  if name == 'tenengrad':
    return sum(ndimage.sobel(luma, axis, mode='nearest') ** 2 for axis in (0, 1))
  disc, ring = np.zeros((7, 7)), np.zeros((7, 7))
  for y in range(-3, 4):
    for x in range(-3, 4):
      disc[y + 3, x + 3] = y * y + x * x <= 1
      ring[y + 3, x + 3] = 4 <= y * y + x * x <= 9
  mean = [ndimage.correlate(luma, part / part.sum(), mode='nearest') for part in (disc, ring)]
  return abs(mean[0] - mean[1])


def measured(images, name):
  return jax.jit(classical.focus_measure, static_argnums=(1, 2, 3, 4))(jnp.asarray(images), 2, 1.5, 0, name)


@pytest.mark.parametrize('name', classical.MEASURES)
def test_measures_equal_scipy(name):
  images = np.random.default_rng(4).random((2, 21, 26, 3)).astype(np.float32)
  truncate = 4 / 1.5  # a reach of round(3 * 1.5) = 4 px
  for measure, image in zip(measured(images, name), images, strict=True):
    luma = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    expected = ndimage.gaussian_filter(independent_measure(name, luma), 1.5, mode='nearest', truncate=truncate)
    np.testing.assert_allclose(measure, expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(measured(images + np.float32(0.3), name), measured(images, name), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name', classical.MEASURES)
def test_measures_fall_with_defocus(name):
  texture = np.random.default_rng(5).random((*SHAPE, 3))
  blurred = [ndimage.gaussian_filter(texture, (s, s, 0)) for s in (0, 0.5, 1, 2, 4)]
  measure = measured(np.stack(blurred).astype(np.float32), name)
  assert np.all(np.argmax(measure, axis=0) == 0)
  assert np.all(np.diff(np.mean(measure, axis=(1, 2))) < 0)


@pytest.mark.parametrize('name', classical.MEASURES)
def test_noise_response_is_that_of_white_noise(name):
  """Mean over 60 000 correlated pixels: within 2 %."""
  noise = np.random.default_rng(6).normal(0.5, 0.03, (2, 180, 180)).astype(np.float32)
  response = np.mean(measured(np.repeat(noise[..., None], 3, axis=-1), name)[:, 10:-10, 10:-10])
  np.testing.assert_allclose(response, classical.noise_response(name, 0.03), rtol=0.02)


@pytest.mark.parametrize('name', ['laplacian', 'tenengrad'])  # the default above
def test_other_measures_recover_ramps_two_at_a_time(name):
  stacks, depths = zip(*(ramp_stack(UNIFORM, seed) for seed in (0, 1)), strict=True)
  together = jax.vmap(lambda images: classical.depth_from_focus(images, UNIFORM, measure=name)[0])
  error = np.abs(together(jnp.asarray(stacks)) - np.stack(depths))[:, :, 4:-4]
  assert np.all(np.mean(error, axis=(1, 2)) < 0.03)


@pytest.mark.parametrize('separable', [classical.separable_by_shifts, classical.separable_by_matrices])
@pytest.mark.parametrize('shape', [(2, 30, 41), (1, 3, 20)], ids=['larger than the taps', 'smaller'])
def test_separable_windows_equal_scipy(separable, shape):
  rng = np.random.default_rng(0)
  x, taps = rng.random(shape, np.float32), rng.random(9)
  expected = ndimage.correlate1d(ndimage.correlate1d(x.astype(float), taps, 1, mode='nearest'), taps, 2, mode='nearest')
  np.testing.assert_allclose(separable(jnp.asarray(x), taps), expected, rtol=1e-5)


def test_an_unknown_measure_is_named():
  images = np.zeros((2, 8, 8, 3), np.float32)
  with pytest.raises(InputError, match="'sobel', expected one of laplacian, ring_difference, tenengrad"):
    classical.depth_from_focus(images, UNIFORM[:2], measure='sobel')


guided_filter = jax.jit(classical.guided_filter, static_argnums=3)


def brute_force_guided_filter(value, guide, weight, radius, contrast):
  """A ridge regression by `np.linalg.lstsq` for each window, without any sharing of work."""
  height, width = value.shape
  y, x = np.mgrid[:height, :width] / radius
  design = np.stack([guide, x, y], axis=-1)
  ridge = np.diag([contrast, classical.SLOPE_RIDGE**0.5, classical.SLOPE_RIDGE**0.5])
  total, sums = np.zeros(value.shape), np.zeros(value.shape)
  for i, j in np.ndindex(height, width):
    window = np.s_[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
    w = weight[window].ravel()
    if w.sum() == 0:
      continue
    rows, p = design[window].reshape(-1, 3), value[window].ravel()
    mean_rows, mean_p = w @ rows / w.sum(), w @ p / w.sum()
    root = np.sqrt(w / w.sum())[:, None]
    system = np.concatenate([root * (rows - mean_rows), ridge])
    slope = np.linalg.lstsq(system, np.concatenate([root[:, 0] * (p - mean_p), np.zeros(3)]), rcond=None)[0]
    total[window] += w.sum()
    sums[window] += w.sum() * (mean_p + (design[window] - mean_rows) @ slope)
  return np.where(total > 0, sums / np.where(total > 0, total, 1), value)


def test_guided_filter_equals_brute_force():
  rng = np.random.default_rng(7)
  value, guide, weight = rng.random((3, 13, 17)).astype(np.float32)
  weight[:9, :9] = 0  # the first pixels see no weight at all
  for radius in (2, 3):
    smooth = guided_filter(value, guide, weight, radius, 0.1)
    np.testing.assert_allclose(smooth, brute_force_guided_filter(value, guide, weight, radius, 0.1), atol=2e-4)
  np.testing.assert_array_equal(guided_filter(value, guide, weight, 2, 0.1)[:5, :5], value[:5, :5])
  np.testing.assert_array_equal(guided_filter(value, guide, 0 * weight, 2, 0.1), value)


def test_guided_filter_ignores_what_has_no_weight():
  rng = np.random.default_rng(8)
  value, guide = rng.random((2, *SHAPE)).astype(np.float32)
  weight = (rng.random(SHAPE) < 0.7).astype(np.float32)
  other = np.where(weight > 0, value, 9).astype(np.float32)
  smooth = guided_filter(value, guide, weight, 4, 0.05)
  np.testing.assert_allclose(guided_filter(other, guide, weight, 4, 0.05), smooth, atol=1e-5)


def test_guided_filter_keeps_constants_and_slopes():
  guide = np.random.default_rng(9).random(SHAPE).astype(np.float32)
  weight = np.random.default_rng(10).random(SHAPE).astype(np.float32)
  constant = np.full(SHAPE, 7.3, np.float32)
  np.testing.assert_allclose(guided_filter(constant, guide, weight, 16, 0.05), constant, rtol=1e-6)
  plane = np.float32(np.mgrid[:48, :64][1] / 10)  # 0 .. 6.3; the ridge costs a little of the slope
  np.testing.assert_allclose(guided_filter(plane, guide, weight, 16, 0.05), plane, atol=0.02)


def test_guided_filter_keeps_steps_where_the_guide_has_them():
  """Noise of 0.3 on a step of 4 is reduced to 0.05, and the step stays one pixel wide."""
  step = np.where(np.arange(64) < 29, 2.0, 6.0) * np.ones(SHAPE)
  noisy = (step + np.random.default_rng(11).normal(0, 0.3, SHAPE)).astype(np.float32)
  guide = np.where(np.arange(64) < 29, 0.2, 0.8).astype(np.float32) * np.ones(SHAPE, np.float32)
  smooth = guided_filter(noisy, guide, np.ones(SHAPE, np.float32), 8, 0.05)
  assert np.std(smooth - step) < 0.05
  assert np.mean(smooth[:, 29] - smooth[:, 28]) > 3.6  # of 4: the ridge
  blurred = guided_filter(noisy, 0 * guide, np.ones(SHAPE, np.float32), 8, 0.05)  # and without an edge to go by
  assert np.mean(blurred[:, 29] - blurred[:, 28]) < 1
