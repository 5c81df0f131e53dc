"""The GIF, frame by frame."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from focal_jax.prediction.animation import write_animation


def sweep(frames, height=60, width=80):
  """Frames of one colour each: red grows in those as given, blue in those aligned."""
  level = np.linspace(0, 1, frames, dtype=np.float32)
  before, after = np.zeros((2, frames, height, width, 3), np.float32)
  before[..., 0], after[..., 2] = level[:, None, None], level[:, None, None]
  return before, after


@pytest.mark.parametrize('as_bytes', [False, True])
def test_to_the_end_and_back(tmp_path, as_bytes):
  before, after = sweep(4)
  write_animation(tmp_path / 'a.gif', (before * 255).astype(np.uint8) if as_bytes else before, after)
  with Image.open(tmp_path / 'a.gif') as film:
    assert film.info['loop'] == 0  # endless
    pictures = [np.asarray(frame.convert('RGB')).astype(int) for frame in ImageSequence.Iterator(film)]
  assert len(pictures) == 6
  for picture, level in zip(pictures, (0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3), strict=True):
    np.testing.assert_allclose(picture[-30, 40], (255 * level, 0, 0), atol=6)  # left
    np.testing.assert_allclose(picture[-30, -40], (0, 0, 255 * level), atol=6)  # right


def test_large_and_long_stacks_are_reduced(tmp_path):
  before, after = sweep(40, 200, 300)
  write_animation(tmp_path / 'a.gif', before, after, max_side=90)
  with Image.open(tmp_path / 'a.gif') as film:
    assert film.n_frames == 16 + 14
    assert 2 * 90 <= film.width < 2 * 90 + 10
    film.seek(15)
    np.testing.assert_allclose(np.asarray(film.convert('RGB'))[-30, 40], (255, 0, 0), atol=6)  # the last one is in it
