"""Frames of other scenes and blank frames, in synthetic stacks."""

import numpy as np
import pytest
from scipy import ndimage

from focal_jax.align.other_scene import find_changed_frames, find_outlier_frames

RNG = np.random.default_rng(0)


def scene():
  """Structure of all sizes, as photographs have it."""
  field = sum(s * ndimage.gaussian_filter(RNG.normal(size=(120, 160)), s) for s in (1, 4, 16))
  return np.clip(128 + 40 * field / field.std(), 0, 255)


SCENE = scene()


def frames(*pictures):
  return np.repeat(np.stack(pictures).round().astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize(
  'odd', [scene, lambda: SCENE[::-1], lambda: SCENE[:, ::-1], lambda: SCENE[::-1, ::-1], lambda: 0 * SCENE]
)
def test_frames_of_another_scene_or_turned_or_black_are_outliers(odd):
  blurred = [ndimage.gaussian_filter(SCENE, s) for s in (0, 1, 2, 6)]
  images = frames(*blurred[:2], odd(), *blurred[2:])
  assert find_outlier_frames(images, np.array([True, True, False, True, True])) == [2]
  # A frame of the scene that could not be compared, for example because of its blur, stays.
  assert find_outlier_frames(images, np.array([True, True, False, True, False])) == [2]
  # Frames that could be compared stay, whatever they show.
  assert find_outlier_frames(images, np.ones(5, bool)) == []


def test_no_outliers_where_most_frames_cannot_be_compared():
  images = frames(SCENE, SCENE, scene(), scene(), scene())
  assert find_outlier_frames(images, np.array([True, True, False, False, False])) == []
  assert find_outlier_frames(images[:3], np.array([True, True, False])) == []
  assert find_outlier_frames(frames(*[0 * SCENE] * 4), np.array([False, False, False, True])) == []


def sweep(count=6):
  """Two halves of the scene, in focus in turn, as aligned frames."""
  left = np.arange(160) < 80
  blurs = [(n, count - 1 - n) for n in range(count)]
  return [np.where(left, *(ndimage.gaussian_filter(SCENE, s) for s in pair)) for pair in blurs]


def changed(pictures, coverage=None):
  images = frames(*pictures) / np.float32(255)
  return find_changed_frames(images, np.ones(images.shape[:3], np.float32) if coverage is None else coverage)


@pytest.mark.parametrize('odd', [0, 2, 5])
def test_a_frame_that_differs_in_a_part(odd):
  pictures = sweep()
  assert changed(pictures)[0] == []
  pictures[odd] = pictures[odd].copy()
  pictures[odd][60:90, 20:60] = 255  # a sixteenth, as in a damaged file
  assert changed(pictures)[0] == [odd]
  assert changed(pictures[:2])[0] == []  # of two, nobody knows which is right
  coverage = np.ones((6, 120, 160), np.float32)
  coverage[3, :95, :65] = 0
  assert changed(pictures, coverage)[0] == []
  found, brightness = changed(pictures, 0 * coverage)
  assert (found, brightness.tolist()) == ([], [1] * 6)


def test_exposure():
  gains = [1, 1, 0.5, 1, 0.98, 1]
  found, brightness = changed([gain * picture for gain, picture in zip(gains, sweep(), strict=True)])
  assert found == []
  np.testing.assert_allclose(brightness, gains, rtol=0.02)


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (50, 1), (7, 300)])
def test_frames_of_any_size_are_compared(size):
  found, brightness = changed([np.full(size, 100.0), np.full(size, 50.0), np.full(size, 100.0)])
  assert found == []
  np.testing.assert_allclose(brightness, [1, 0.5, 1])
