"""Relative sharpness, the depth network's input, on noise blurred by SciPy."""

import flax
import jax
import numpy as np
import pytest
from scipy import ndimage

from focal_jax.models.end_to_end import variable_shapes
from focal_jax.models.registry import make_model
from focal_jax.models.relative_sharpness import relative_sharpness

SIGMAS = (2.0, 1.0, 0.5, 0.0, 0.7)  # of each frame's blur, px


@pytest.fixture(scope='module')
def frames():
  """[N, H, W, 3], 0 .. 1."""
  noise = np.random.default_rng(0).random((40, 48, 3))
  return np.float32([ndimage.gaussian_filter(noise, (sigma, sigma, 0)) for sigma in SIGMAS])


def measured(frames):
  """(means over the picture [N, 4], relative sharpness [N, H, W, 4])"""
  values = np.asarray(jax.jit(relative_sharpness)(2 * np.float32(frames)[None] - 1))[0]
  return values.mean((1, 2)), values


def test_sharper_frames_measure_more(frames):
  means, values = measured(frames)
  assert values.shape == (5, 40, 48, 4)
  np.testing.assert_array_equal(np.argsort(means, axis=0), np.argsort(SIGMAS)[::-1, None].repeat(4, 1))
  np.testing.assert_allclose(values.sum(0), 0, atol=1e-5)


def test_neighbouring_pixels_tell_a_faint_blur_best(frames):
  means, _ = measured(frames)
  assert np.all(np.diff(means[3] - means[2]) < -0.1)


def test_frames_of_one_sharpness_measure_nothing(frames):
  _, values = measured(frames[[3, 3, 3]])
  np.testing.assert_allclose(values, 0, atol=1e-5)
  _, values = measured(np.full((3, 8, 8, 3), 0.4))
  np.testing.assert_allclose(values, 0, atol=1e-5)


def test_brightness_changes_little(frames):
  """An offset of a frame has no effect, and the exposure of the stack changes only the weight of noise."""
  means, values = measured(frames)
  offsets = np.linspace(-0.2, 0.2, 5).reshape(5, 1, 1, 1)
  np.testing.assert_allclose(measured(0.25 + frames / 2 + offsets)[1], measured(0.25 + frames / 2)[1], atol=1e-4)
  np.testing.assert_allclose(measured(frames / 2)[0], means, atol=0.25 * np.ptp(means))
  assert np.corrcoef(measured(frames / 2)[1].ravel(), values.ravel())[0, 1] > 0.99


def test_only_the_first_layer_of_the_network_differs():
  with_measures, without = (
    flax.traverse_util.flatten_dict(
      variable_shapes(make_model({'depth': {'name': 'won_jeon', 'focus_measures': given}})), sep='/'
    )
    for given in (True, False)
  )
  different = {name: leaf.shape for name, leaf in with_measures.items() if leaf != without[name]}
  assert different == {'params/depth/stem/conv/kernel': (1, 9, 9, 7, 8)}
  assert with_measures.keys() == without.keys()
