"""Maps computed in a reduced picture, enlarged to its full size."""

import numpy as np
import pytest
from PIL import Image

from focal_jax.focus.enlarge import enlarge


def reduced(picture, size):
  return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BOX))


def centres(length, to):
  """Of `to` pixels, in pixels of an axis of `length`."""
  return (np.arange(to) + 0.5) * length / to - 0.5


@pytest.mark.parametrize('size', [(96, 128), (61, 91), (40, 150)])
@pytest.mark.parametrize('kind', [np.uint8, np.float32])
def test_slopes_stay_what_they_are(size, kind):
  """Two maps that are linear, one along each axis, of a plain picture."""
  maps = np.stack(np.meshgrid(np.arange(40.0), np.arange(30.0))).astype(np.float32)
  plain = [
    np.full((*shape, 3), 100, np.uint8).astype(kind) / (1 if kind is np.uint8 else 255) for shape in ((30, 40), size)
  ]
  large = enlarge(maps, *(image.astype(kind) for image in plain))
  x, y = centres(40, size[1]), centres(30, size[0])
  inner = np.s_[(y > 1.5) & (y < 27.5), :], np.s_[:, (x > 1.5) & (x < 37.5)]
  expected = np.stack(np.meshgrid(x, y))
  for values, wanted, axis in zip(large, expected, (inner[1], inner[0]), strict=True):
    np.testing.assert_allclose(values[axis], wanted[axis], atol=1e-4)


def test_edges_are_those_of_the_picture():
  """A disc before a wall: where their colours differ, each pixel has the depth of its own side."""
  y, x = np.mgrid[:240, :320]
  disc = np.hypot(y - 118, x - 163) < 70
  noise = np.random.default_rng(0).integers(-8, 9, (240, 320, 3))
  picture = (np.where(disc[..., None], (180, 120, 60), (90, 110, 140)) + noise).astype(np.uint8)
  depth = np.where(disc, 3.0, 1.0).astype(np.float32)
  guide, small = reduced(picture, (60, 80)), reduced(depth, (60, 80))
  large = enlarge(small[None], guide, picture)[0]
  linear = np.asarray(Image.fromarray(small).resize((320, 240), Image.Resampling.BILINEAR))

  def wrong(values):
    return np.mean(np.abs(values - depth) > 0.3)

  assert wrong(linear) > 0.02  # of a border of 440 px and 4 px wide
  assert wrong(large) < wrong(linear) / 4
  assert small.min() <= large.min()
  assert large.max() <= small.max()


def test_of_the_same_size_nothing_changes():
  maps = np.random.default_rng(0).random((2, 9, 7), np.float32)
  picture = np.zeros((9, 7, 3), np.uint8)
  np.testing.assert_array_equal(enlarge(maps, picture, picture), maps)
