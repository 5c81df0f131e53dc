"""Focus curves, on noise blurred by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax.models import focus_curves as module

SIGMAS = (2.0, 1.0, 0.5, 0.0, 0.7)  # of each frame's blur, px


@pytest.fixture(scope='module')
def luma():
  """[1, N, H, W], 0 .. 1."""
  noise = np.random.default_rng(0).random((40, 48))
  return np.float32([[ndimage.gaussian_filter(noise, sigma) for sigma in SIGMAS]])


@pytest.fixture(scope='module')
def curves_of():
  find = jax.jit(module.focus_curves, static_argnums=1)

  def of(luma, octave=0):
    return [np.stack(part, -1)[0] for part in find(np.float32(luma), octave)]

  return of


def test_curves_are_scaled_and_rank_the_frames(luma, curves_of):
  curves, limited, heights = curves_of(luma)
  assert curves.shape == limited.shape == (5, 40, 48, 4)
  assert heights.shape == (40, 48, 4)
  np.testing.assert_allclose(curves.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(curves.std(0), 1, atol=0.05)
  for part in (curves, limited):
    np.testing.assert_array_equal(np.argsort(part.mean((1, 2)), axis=0), np.argsort(SIGMAS)[::-1, None].repeat(4, 1))
  assert np.abs(limited).max() < 1


def test_height_is_of_the_logarithms_before(luma, curves_of):
  curves, limited, heights = curves_of(luma)
  height = np.exp(2 * (heights - 1)) - module.LOWEST
  np.testing.assert_allclose(np.tanh(curves * (height + module.LOWEST)), limited, atol=1e-4)


def test_a_fainter_texture_has_the_same_curves_and_lower_heights(luma, curves_of):
  curves, _, heights = curves_of(luma)
  faint, _, lower = curves_of(0.5 + 0.1 * (luma - 0.5))
  # What is left is the noise floor, which a faint texture is nearer to.
  assert np.corrcoef(curves.ravel(), faint.ravel())[0, 1] > 0.98
  assert lower.mean() < heights.mean()


def test_brightness_of_a_frame_does_not_matter(luma, curves_of):
  offsets = np.linspace(-0.2, 0.2, 5).reshape(1, 5, 1, 1)
  np.testing.assert_allclose(curves_of(luma + offsets)[1], curves_of(luma)[1], atol=1e-3)


def test_frames_of_one_sharpness_have_none(luma, curves_of):
  curves, limited, heights = curves_of(luma[:, [3, 3, 3]])
  np.testing.assert_allclose(curves, 0, atol=1e-3)
  np.testing.assert_allclose(limited, 0, atol=1e-5)
  np.testing.assert_allclose(heights, 0.5 * np.log(module.LOWEST) + 1, atol=0.01)


def test_reduced_frames_tell_a_strong_blur_that_fine_measures_do_not(curves_of):
  rng = np.random.default_rng(0)
  scene = ndimage.zoom(rng.random((24, 24)), 8, order=3)  # nothing finer than eight pixels
  noise = rng.normal(0, 0.01, (3, *scene.shape))  # other in each frame
  frames = np.float32([[ndimage.gaussian_filter(scene, s) + n for s, n in zip((4.0, 6.0, 8.0), noise, strict=True)]])
  fine = curves_of(frames)[1][..., 0].mean((1, 2))
  reduced = np.asarray(module.halve(module.halve(module.halve(jnp.asarray(frames)))))
  coarse = curves_of(reduced, 3)[1][..., 0].mean((1, 2))
  assert np.ptp(coarse) > 10 * np.ptp(fine)
  assert np.argsort(coarse).tolist() == [2, 1, 0]


def test_halving_and_luminance():
  x = np.random.default_rng(0).random((1, 2, 4, 6)).astype(np.float32)
  np.testing.assert_allclose(
    module.halve(jnp.asarray(x)), ndimage.uniform_filter(x, (1, 1, 2, 2))[:, :, 1::2, 1::2], rtol=1e-5
  )
  colours = np.float32([-1, 0, 1]).reshape(1, 1, 1, 1, 3)
  np.testing.assert_allclose(module.luminance(jnp.asarray(colours)), 0.587 / 2 + 0.114, rtol=1e-5)
