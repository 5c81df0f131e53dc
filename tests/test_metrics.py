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
RELATIVE = ('log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3')


def reference(prediction, target):
  """One image, float64, by boolean indexing: the definitions read aloud."""
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
  measured = per_image(prediction, target, np.ones_like(target))
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
  target = np.asarray(metrics.restrict(jnp.asarray(disparity), metrics.DDFF_LOW_PX, metrics.DDFF_HIGH_PX))
  assert 0.5 < np.mean(target > 0) < 1
  prediction = ndimage.gaussian_filter(target, (0, 2, 2)) + np.float32(0.01)
  assert_matches_reference(prediction, target, rtol=1e-4)  # 50,000 pixels added in float32


def test_values_by_hand():
  """Prediction 0.3, 0.1, 0.2 for target 0.2 each, and one unknown pixel."""
  prediction = jnp.array([[0.3, 0.1], [0.2, 5.0]])
  target = jnp.array([[0.2, 0.2], [0.2, 0.0]])
  got = per_image(prediction, target, jnp.ones((2, 2)))
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
  norm = metrics.hessian_norm(jnp.asarray(a * x**2 + b * y**2 + c * x * y))
  np.testing.assert_allclose(norm[2:-2, 2:-2], 4 * np.sqrt((2 * a) ** 2 + (2 * b) ** 2 + 2 * c**2), rtol=1e-4)


def test_restrict_keeps_both_ends_and_the_benchmarks_constants():
  low, high = metrics.DDFF_LOW_PX, metrics.DDFF_HIGH_PX
  near, far = optics.ddff_focus_disparities()[[0, -1]]  # exactly 0.5 m and 7 m
  target = jnp.array([0.0, far, low, 0.1, near, high, 0.3, jnp.nan, -0.1])
  np.testing.assert_array_equal(metrics.restrict(target, low, high), np.float32([0, 0, low, 0.1, near, high, 0, 0, 0]))


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
  clean = per_image(prediction, target, np.ones_like(target))
  prediction[:, 7] = [np.nan, np.inf, -np.inf, 0, -1, 1e30, np.nan, np.inf]  # three pixels from the known half
  dirty = per_image(prediction, target, np.ones_like(target))
  for name in metrics.NAMES:
    np.testing.assert_array_equal(dirty[name], clean[name], err_msg=name)


def test_valid_is_a_weight():
  """Weight 1/2 everywhere changes nothing; weight 0 is the same as target 0."""
  prediction, target = random_maps(2)
  whole = per_image(prediction, target, np.ones_like(target))
  half = per_image(prediction, target, np.full_like(target, 0.5))
  dropped = np.where(np.arange(22) < 9, 0, target)
  by_target = per_image(prediction, dropped, np.ones_like(target))
  by_weight = per_image(prediction, target, (dropped > 0).astype(np.float32))
  for name in metrics.NAMES:
    np.testing.assert_allclose(half[name], whole[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(by_weight[name], by_target[name], rtol=1e-5, err_msg=name)
  weights = jnp.array([[0.25, 0.75]])
  got = per_image(jnp.array([[0.2, 0.1]]), jnp.full((1, 2), 0.1), weights)
  np.testing.assert_allclose(got['mae'], 0.025, rtol=1e-5)


def test_signed_targets_have_errors_but_no_ratios():
  target = jnp.array([[-1.0, 2.0]])
  got = per_image(target + 0.5, target, jnp.ones((1, 2)))
  np.testing.assert_allclose([got['mse'], got['rms'], got['mae']], [0.25, 0.5, 0.5], rtol=1e-6)
  assert all(np.isnan(got[name]) for name in RELATIVE)


def test_an_image_without_valid_pixels_is_undefined_and_leaves_the_mean():
  prediction, target = random_maps(3)
  target[1] = 0
  valid = np.ones_like(target)
  values, counted = per_image(prediction, target, valid), metrics.has_target(target, valid)
  np.testing.assert_array_equal(counted, [True, False, True])
  mean = metrics.MetricSums.zero().add(values, counted).mean()
  for name in metrics.NAMES:
    assert np.isnan(values[name][1])
    np.testing.assert_allclose(mean[name], (values[name][0] + values[name][2]) / 2, rtol=1e-6, err_msg=name)


def test_ragged_batches_and_devices_give_the_plain_mean():
  """Five images on two devices, three each, the last one padding that valid = 0 marks: the mean of the five."""
  prediction, target = random_maps(4, batch=6)
  valid = np.ones_like(target)
  valid[5] = 0

  def share(rows):
    values = per_image(prediction[rows], target[rows], valid[rows])
    return metrics.MetricSums.zero().add(values, metrics.has_target(target[rows], valid[rows]))

  sums = jax.tree.map(jnp.add, share(slice(0, 3)), share(slice(3, 6)))
  assert int(sums.count) == 5
  expected = [reference(*image) for image in zip(prediction[:5].astype(float), target[:5].astype(float), strict=True)]
  for name, mean in sums.mean().items():
    np.testing.assert_allclose(mean, np.mean([values[name] for values in expected]), rtol=2e-5, err_msg=name)


def test_sums_say_which_names_they_hold():
  sums = metrics.MetricSums.zero(['mse', 'spread'])
  assert np.isnan(sums.mean()['spread'])
  with pytest.raises(KeyError, match='spread'):
    sums.add({'mse': jnp.ones(2)}, jnp.ones(2, bool))
