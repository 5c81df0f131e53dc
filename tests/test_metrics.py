"""Every metric against an independent numpy and scipy implementation, hand-computed values, and the edge cases."""

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax import metrics, optics

DDFF = Path(__file__).parents[1].parent / 'shared' / 'data' / 'ddff12' / 'ddff-dataset-trainval.h5'
SCHARR = np.array([[3, 10, 3], [0, 0, 0], [-3, -10, -3]]) / 16
per_image = jax.jit(metrics.per_image)
average_uncertainty = jax.jit(metrics.average_uncertainty)
error_by_depth = jax.jit(metrics.error_by_depth)
hessian_norm = jax.jit(metrics.hessian_norm)
sparsification = jax.jit(metrics.sparsification)
HALVES = np.s_[..., :11], np.s_[..., 11:]
RELATIVE = ('log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3')


def reference(prediction, target):
  """One image in float64, by boolean indexing, straight from the definitions."""
  mask = target > 0
  p, t, n = prediction[mask], target[mask], mask.sum()
  positive = p > 0
  ratio = np.full(n, np.inf)
  ratio[positive] = np.maximum(p[positive] / t[positive], t[positive] / p[positive])
  difference = prediction - np.where(mask, target, 0)
  dx = ndimage.convolve(difference, SCHARR, mode='reflect')
  dy = ndimage.convolve(difference, SCHARR.T, mode='reflect')
  hessian = [ndimage.convolve(d, k, mode='reflect') for d in (dx, dy) for k in (SCHARR, SCHARR.T)]
  bumps = np.clip(np.sqrt(sum(h**2 for h in hessian)), 0, 0.05)
  return {
    'mse': np.sum((p - t) ** 2) / n,
    'rms': np.sqrt(np.sum((p - t) ** 2) / n),
    'log_rms': np.sqrt(np.sum((np.log(p[positive]) - np.log(t[positive])) ** 2) / n),
    'abs_rel': np.sum(np.abs(p - t) / t) / n,
    'sqr_rel': np.sum((p - t) ** 2 / t) / n,
    'delta_1': 100 * np.sum(ratio < 1.25) / n,
    'delta_2': 100 * np.sum(ratio < 1.25**2) / n,
    'delta_3': 100 * np.sum(ratio < 1.25**3) / n,
    'badpix': 100 * np.sum(np.abs(p - t) > 0.07) / n,
    'bumpiness': 100 * np.sum(bumps[mask]) / n,
    'mae': np.sum(np.abs(p - t)) / n,
  }


def random_maps(seed, batch=3, noise=0.03):
  rng = np.random.default_rng(seed)
  target = rng.uniform(0.03, 0.28, (batch, 17, 22)).astype(np.float32)
  target[rng.random(target.shape) < 0.2] = 0
  prediction = (target + noise * rng.standard_normal(target.shape)).astype(np.float32)
  return prediction, target


def assert_matches_reference(prediction, target, rtol=2e-5):
  measured = per_image(prediction, target, (target > 0).astype(np.float32))
  assert set(measured) == set(metrics.NAMES)
  for b in range(len(target)):
    expected = reference(prediction[b].astype(np.float64), target[b].astype(np.float64))
    for name in metrics.NAMES:
      np.testing.assert_allclose(measured[name][b], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize('noise', [0.001, 0.03, 0.2])  # the last one gives many predictions below 0
def test_random_maps(noise):
  assert_matches_reference(*random_maps(0, noise=noise))


@pytest.mark.skipif(not DDFF.exists(), reason='no real disparity maps: ../shared is absent')
def test_real_disparity_maps():
  with h5py.File(DDFF) as file:
    disparity = file['disp_train'][:3]
  disparity = jnp.asarray(disparity)
  target, valid = metrics.restrict(disparity, jnp.ones_like(disparity), metrics.DDFF_LOW_PX, metrics.DDFF_HIGH_PX)
  target = np.asarray(target)
  assert 0.5 < np.mean(target > 0) < 1
  np.testing.assert_array_equal(valid, target > 0)
  prediction = ndimage.gaussian_filter(target, (0, 2, 2)) + np.float32(0.01)
  assert_matches_reference(prediction, target)


def test_values_by_hand():
  """Prediction 0.3, 0.1, 0.2 for target 0.2 each, and one unknown pixel."""
  prediction = jnp.array([[0.3, 0.1], [0.2, 5.0]])
  target = jnp.array([[0.2, 0.2], [0.2, 0.0]])
  got = per_image(prediction, target, (target > 0).astype(jnp.float32))
  third = 1 / 3
  expected = {
    'mse': 0.02 * third,
    'rms': np.sqrt(0.02 * third),
    'log_rms': np.sqrt((np.log(1.5) ** 2 + np.log(2) ** 2) * third),
    'abs_rel': third,
    'sqr_rel': 0.1 * third,
    'delta_1': 100 * third,
    'delta_2': 200 * third,  # 1.5 < 1.5625
    'delta_3': 200 * third,  # 2 > 1.953
    'badpix': 200 * third,
    'bumpiness': 5.0,
    'mae': 0.2 * third,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def test_perfect_prediction():
  _, target = random_maps(1)
  got = per_image(target, target, (target > 0).astype(np.float32))
  for name in metrics.NAMES:
    np.testing.assert_array_equal(got[name], 100.0 if name.startswith('delta') else 0.0, err_msg=name)


def test_hessian_norm_of_a_paraboloid():
  """d = a x^2 + b y^2 + c x y has the Hessian (2 a, c; c, 2 b), and two-pixel differences square to a factor of 4."""
  y, x = np.mgrid[:9, :11].astype(np.float32)
  a, b, c = 0.3, -0.2, 0.5
  norm = hessian_norm(jnp.asarray(a * x**2 + b * y**2 + c * x * y))
  np.testing.assert_allclose(norm[2:-2, 2:-2], 4 * np.sqrt((2 * a) ** 2 + (2 * b) ** 2 + 2 * c**2), rtol=1e-4)


def test_restrict_keeps_both_ends_and_the_benchmarks_constants():
  low, high = metrics.DDFF_LOW_PX, metrics.DDFF_HIGH_PX
  near, far = optics.ddff_focus_disparities()[[0, -1]]  # exactly 0.5 m and 7 m
  target = jnp.array([0.0, far, low, 0.1, near, high, 0.3, jnp.nan, -0.1, jnp.inf])
  got, valid = metrics.restrict(target, jnp.full(10, 0.5), low, high)
  np.testing.assert_array_equal(got, np.float32([0, 0, low, 0.1, near, high, 0, 0, 0, 0]))
  np.testing.assert_array_equal(valid, 0.5 * (np.asarray(got) > 0))


def test_zero_and_negative_predictions_leave_the_log_but_not_its_count():
  target = jnp.full((1, 4), 0.1)
  prediction = jnp.array([[0.2, 0.0, -0.1, -0.11]])
  got = per_image(prediction, target, jnp.ones((1, 4)))
  np.testing.assert_allclose(got['log_rms'], np.log(2) / 2, rtol=1e-5)  # sqrt(ln(2)^2 / 4), not / 1
  # -0.11 / 0.1 and its inverse are both below 1.25: the sign must be looked at.
  assert float(got['delta_3']) == 0
  assert all(np.isfinite(value) for value in got.values())


def test_infinite_and_nan_predictions_are_loud():
  target = jnp.full((5, 5), 0.1)
  for bad in (jnp.inf, -jnp.inf, jnp.nan):
    got = per_image(target.at[2, 2].set(bad), target, jnp.ones((5, 5)))
    for name in ('mse', 'rms', 'abs_rel', 'sqr_rel', 'mae', 'bumpiness'):
      assert not np.isfinite(got[name]), name
    assert np.isfinite(got['log_rms']) == (bad == -jnp.inf)  # p <= 0 leaves the sum
    np.testing.assert_allclose([got['delta_1'], got['badpix']], [96, 4], rtol=1e-6)


def test_bad_predictions_under_unknown_pixels_do_not_matter():
  target = np.full((8, 8), 0.1, np.float32)
  target[:, 4:] = 0
  prediction = np.full((8, 8), 0.11, np.float32)
  valid = (target > 0).astype(np.float32)
  clean = per_image(prediction, target, valid)
  prediction[:, 7] = [np.nan, np.inf, -np.inf, 0, -1, 1e30, np.nan, np.inf]  # three pixels from the known half
  target[:3, 7] = np.nan, np.inf, -np.inf
  dirty = per_image(prediction, target, valid)
  for name in metrics.NAMES:
    np.testing.assert_array_equal(dirty[name], clean[name], err_msg=name)


def test_valid_is_a_weight():
  """Weight 1/2 everywhere changes nothing, and weight 0 is the same as a target that is not finite."""
  prediction, target = random_maps(2)
  known = (target > 0).astype(np.float32)
  whole = per_image(prediction, target, known)
  half = per_image(prediction, target, 0.5 * known)
  dropped = known * (np.arange(22) >= 9)
  by_weight = per_image(prediction, target, dropped)
  by_target = per_image(prediction, np.where(dropped > 0, target, np.nan), np.ones_like(target))
  for name in metrics.NAMES:
    np.testing.assert_allclose(half[name], whole[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(by_weight[name], by_target[name], rtol=1e-5, err_msg=name)


def test_confidence_weighted_means():
  """Smartphone's MAE and MSE: means weighted by the confidence of the depth."""
  rng = np.random.default_rng(5)
  target = rng.uniform(0.3, 9.8, (2, 19, 14)).astype(np.float32)
  confidence = rng.random(target.shape).astype(np.float32)
  confidence[rng.random(target.shape) < 0.3] = 0
  prediction = (target + rng.standard_normal(target.shape)).astype(np.float32)
  got = per_image(prediction, target, confidence)
  for b in range(2):
    error = prediction[b].astype(np.float64) - target[b]
    np.testing.assert_allclose(got['mae'][b], np.average(np.abs(error), weights=confidence[b]), rtol=1e-5)
    np.testing.assert_allclose(got['mse'][b], np.average(error**2, weights=confidence[b]), rtol=1e-5)


def test_signed_targets_have_errors_but_no_ratios():
  """As in HCI 4D Light Field: 0 is a depth like any other, and infinities may lie under what is not valid."""
  rng = np.random.default_rng(6)
  target = rng.uniform(-3, 3, (18, 15)).astype(np.float32)
  target[0, :4] = 0, 0, np.inf, -np.inf
  valid = (np.abs(target) <= 2.5).astype(np.float32)
  prediction = np.where(valid > 0, target + rng.normal(0, 0.5, target.shape), 1).astype(np.float32)
  got = per_image(prediction, target, valid)
  mask = valid > 0
  assert mask[0, :2].all()
  error = np.where(mask, prediction.astype(np.float64) - np.where(mask, target, 0), prediction)
  dx, dy = (ndimage.convolve(error, kernel, mode='reflect') for kernel in (SCHARR, SCHARR.T))
  square = sum(ndimage.convolve(d, kernel, mode='reflect') ** 2 for d in (dx, dy) for kernel in (SCHARR, SCHARR.T))
  expected = {
    'mse': np.mean(error[mask] ** 2),
    'rms': np.sqrt(np.mean(error[mask] ** 2)),
    'mae': np.mean(np.abs(error[mask])),
    'bumpiness': 100 * np.mean(np.minimum(np.sqrt(square), 0.05)[mask]),
    'badpix': 100 * np.mean(np.abs(error[mask]) > 0.07),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)
  assert all(np.isnan(got[name]) for name in RELATIVE)


def test_sums_of_parts_add_up():
  """Sums over two halves of an image add up, except for bumpiness, which uses neighbouring pixels."""
  prediction, target = random_maps(7)
  valid = (target > 0).astype(np.float32)
  halves = [jax.jit(metrics.pixel_sums)(prediction[part], target[part], valid[part]) for part in HALVES]
  got = metrics.from_sums(jax.tree.map(jnp.add, *halves))
  whole = per_image(prediction, target, valid)
  for name in set(metrics.NAMES) - {'bumpiness'}:
    np.testing.assert_allclose(got[name], whole[name], rtol=1e-6, err_msg=name)


def test_large_images_keep_their_digits():
  """A full frame of DDFF-12 has 211,416 pixels."""
  rng = np.random.default_rng(8)
  target = rng.uniform(0.03, 0.28, (383, 552)).astype(np.float32)
  prediction = (target + rng.normal(0, 0.02, target.shape)).astype(np.float32)
  got = per_image(prediction, target, np.ones_like(target))
  expected = reference(prediction.astype(np.float64), target.astype(np.float64))
  for name in metrics.NAMES:
    np.testing.assert_allclose(got[name], expected[name], rtol=3e-6, err_msg=name)


def test_an_image_without_valid_pixels_is_undefined():
  prediction, target = random_maps(3)
  target[1] = 0
  values = per_image(prediction, target, (target > 0).astype(np.float32))
  for name in metrics.NAMES:
    np.testing.assert_array_equal(np.isnan(values[name]), [False, True, False], err_msg=name)


def test_average_uncertainty():
  """The mean over pixels of the standard deviation of the focus distribution, by the definition of a variance."""
  rng = np.random.default_rng(9)
  weights = rng.dirichlet(np.ones(4), (2, 5, 6)).transpose(0, 3, 1, 2)
  focus = rng.uniform(0, 3, (2, 4))
  expected = [
    np.mean([
      np.sqrt(np.average((focus[b] - np.average(focus[b], weights=w)) ** 2, weights=w))
      for w in weights[b].reshape(4, -1).T
    ])
    for b in range(2)
  ]  # fmt: skip
  got = average_uncertainty(weights.astype(np.float32), focus.astype(np.float32))
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_sparsification_takes_the_least_confident_away():
  """Against a loop that removes pixels one by one; a quarter of the pixels are unknown and must not count."""
  rng = np.random.default_rng(10)
  error, confidence = rng.standard_normal((2, 20, 40)).astype(np.float32)
  weight = (np.arange(40) < 30).astype(np.float32) * np.ones_like(error)
  error[:, 35:] = np.nan
  got = sparsification(error, confidence, weight)
  pixels = list(zip(confidence[:, :30].ravel(), np.abs(error[:, :30]).ravel(), strict=True))
  for curve, order in zip(got, (sorted(pixels), sorted(pixels, key=lambda pixel: -pixel[1])), strict=True):
    expected = [np.mean([e for _, e in order[30 * step :]]) for step in range(20)]  # 600 pixels, 5 percent a step
    np.testing.assert_allclose(curve, expected, rtol=1e-5)


def test_sparsification_weighs_pixels():
  """A pixel of weight 2 is as good as two of weight 1."""
  rng = np.random.default_rng(11)
  error, confidence = rng.standard_normal((2, 10, 10)).astype(np.float32)
  weight = rng.integers(0, 3, (10, 10))
  twice = [np.repeat(x.ravel(), weight.ravel())[None] for x in (error, confidence)]
  got = sparsification(error, confidence, weight.astype(np.float32))
  expected = sparsification(*twice, np.ones_like(twice[0]))
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_area_between_sparsification_curves():
  rng = np.random.default_rng(12)
  error = rng.random((100, 100)).astype(np.float32)
  ones = np.ones_like(error)

  def area(confidence, weight=ones):
    return float(metrics.sparsification_area(*map(np.asarray, sparsification(error, confidence, weight))))

  np.testing.assert_allclose(area(-error), 0, atol=1e-6)
  # Errors are uniform in 0 .. 1. Without knowledge the curve stays at 1/2, the oracle falls to (1 - share) / 2:
  # the area, up to 0.95, is the integral of the share.
  np.testing.assert_allclose(area(rng.random((100, 100)).astype(np.float32)), 0.95**2 / 2, atol=0.02)
  assert area(error) > 0.7  # confident where it is wrong
  assert np.isnan(area(ones, 0 * ones))


def test_error_by_depth():
  rng = np.random.default_rng(13)
  place = rng.uniform(-0.2, 1.2, (30, 30)).astype(np.float32)
  error = rng.normal(0.1, 1, (30, 30)).astype(np.float32)
  weight = rng.random((30, 30)).astype(np.float32) * (rng.random((30, 30)) < 0.7)
  error[weight == 0] = np.nan
  count, absolute, signed = np.asarray(error_by_depth(error, place, weight))
  edges = np.linspace(0, 1, metrics.DEPTH_BINS + 1)
  edges[[0, -1]] = -np.inf, np.inf
  for got, values in ((count, weight), (absolute, weight * np.abs(error)), (signed, weight * error)):
    expected = [np.nansum(values[(low <= place) & (place < high)]) for low, high in zip(edges, edges[1:], strict=False)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
