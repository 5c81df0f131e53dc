"""Frames of other scenes and blank frames, in synthetic stacks."""

import numpy as np
import pytest
from scipy import ndimage

from focal_jax.align.other_scene import find_outlier_frames

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
