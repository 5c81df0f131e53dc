"""Classical depth frame by frame, compared with that of the whole stack."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from focal_jax import InputError
from focal_jax.focus import classical
from focal_jax.focus.frame_by_frame import depth_frame_by_frame

FOCUS = np.float32([0.2, 0.5, 1.0, 1.2, 2.0, 2.5])


@pytest.fixture(scope='module')
def images():
  """A slope that is blurred where it is out of focus, a plain part without any peak, and frames of unequal light."""
  rng = np.random.default_rng(0)
  texture = np.clip(0.5 + 0.6 * ndimage.gaussian_filter(rng.normal(size=(70, 90, 3)), (1, 1, 0)), 0, 1)
  texture[20:50, 30:60] = 0.4
  depth = np.linspace(-0.5, 5.5, 90)[None, :, None]
  blurred = np.stack([ndimage.gaussian_filter(texture, (0.1 * k, 0.1 * k, 0)) for k in range(61)])
  frames = [
    np.take_along_axis(blurred, np.rint(np.abs(depth - n) * 10).astype(int).repeat(70, 0)[None], 0)[0] for n in range(6)
  ]
  light = np.linspace(0.95, 1.05, 6)[:, None, None, None]
  return np.clip(np.stack(frames) * light, 0, 1).astype(np.float32)


def luma_of(images):
  return lambda n: jnp.asarray(images[n]) @ jnp.asarray(classical.LUMA, jnp.float32)


@pytest.mark.parametrize('measure', classical.MEASURES)
@pytest.mark.parametrize('frames', [1, 2, 3, 6])
def test_the_same_as_at_once(images, measure, frames):
  focus = FOCUS[:frames]
  depth, confidence = depth_frame_by_frame(luma_of(images), frames, focus, measure)
  expected, sure = classical.depth_from_focus(images[:frames], focus, measure)
  np.testing.assert_allclose(confidence, sure, atol=1e-5)
  np.testing.assert_allclose(depth, expected, atol=1e-3)
  assert frames == 1 or np.ptp(expected) > 0.2


def test_equal_frames_and_index(images):
  """For equal measures the first counts, as with argmax; without a focus, the index."""
  twice = np.repeat(images[:3], 2, axis=0)
  depth, confidence = depth_frame_by_frame(luma_of(twice), 6, None)
  expected, sure = classical.depth_from_focus(twice, None)
  np.testing.assert_allclose(confidence, sure, atol=1e-5)
  np.testing.assert_allclose(depth, expected, atol=2e-3)


def test_frames_are_asked_for_one_after_the_other(images):
  asked = []

  def luma(n):
    asked.append(n)
    return luma_of(images)(n)

  depth_frame_by_frame(luma, 6, FOCUS)
  assert asked == 2 * list(range(6))


def test_unknown_measure(images):
  with pytest.raises(InputError, match="focus measure is 'sobel'"):
    depth_frame_by_frame(luma_of(images), 6, FOCUS, 'sobel')
