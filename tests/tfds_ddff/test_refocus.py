"""Refocusing against the published recipe, step by step in double precision, and against scenes of known disparity."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from focal_jax.optics import ddff_focus_disparities
from tfds_ddff.ddff12.refocus import refocus

REAL_DATA = Path(__file__).parents[3] / 'shared' / 'data' / 'ddff12'


def recipe(light_field: np.ndarray, disparities: list[float]) -> np.ndarray:
  """[N, H, W, 3] grey levels before they are cut to whole ones."""
  side, _, height, width, _ = light_field.shape
  rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing='ij')
  frames = np.zeros((len(disparities), height, width, 3))
  for n, d in enumerate(disparities):
    for u in range(side):
      for v in range(side):
        phase = np.exp(2j * np.pi * d * ((side // 2 - u) * rows + (side // 2 - v) * columns))
        for channel in range(3):
          spectrum = np.fft.fft2(light_field[u, v, ..., channel] / 255)
          frames[n, ..., channel] += np.clip(np.abs(np.fft.ifft2(spectrum * phase)), 0, 1)
  return frames * 255 / side**2


def picture(kind: str, shape: tuple[int, ...]) -> np.ndarray:
  """A uint8 light field with edges that ring when views are shifted."""
  rng = np.random.default_rng(0)
  rows, columns = np.indices(shape)[2:4]
  return {
    'noise': lambda: rng.integers(0, 256, shape),
    'black and white noise': lambda: rng.integers(0, 2, shape) * 255,
    'highlights': lambda: np.where(rng.random(shape) < 0.02, 255, 3),
    'edges': lambda: (rows // 7 + columns // 9) % 2 * 255,
    'a bright half': lambda: np.where(columns > shape[3] // 2, 255, 0),
    'a grey square': lambda: np.where((abs(rows - 9) < 5) & (abs(columns - 9) < 4), 250, 20),
    'a checkerboard': lambda: (rows + columns) % 2 * 255,
    'stripes': lambda: columns % 2 * 200,
    'black': lambda: np.zeros(shape),
    'white': lambda: np.full(shape, 255),
  }[kind]().astype(np.uint8)


KINDS = (
  'noise', 'black and white noise', 'highlights', 'edges', 'a bright half', 'a grey square', 'a checkerboard',
  'stripes', 'black', 'white',
)  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(3, 17, 23), (3, 16, 30), (5, 19, 14), (3, 24, 13)], ids=str)
def test_within_one_level_of_the_recipe(kind: str, size: tuple[int, int, int]):
  side, height, width = size
  disparities = [0.2825, 0.02, 0.0, -0.11, -0.6]
  light_field = picture(kind, (side, side, height, width, 3))
  frames = refocus(light_field, disparities)
  assert (frames.dtype, frames.shape) == (np.uint8, (5, height, width, 3))
  expected = recipe(light_field, disparities)
  # Before the cut to whole levels, errors are below half a level.
  assert np.abs(frames + 0.5 - expected).max() < 1


@pytest.mark.parametrize('kind', ['black and white noise', 'edges'])
def test_an_image_of_many_tiles(kind: str):
  light_field = picture(kind, (3, 3, 101, 128, 3))
  assert np.abs(refocus(light_field, [0.3])[0] + 0.5 - recipe(light_field, [0.3])[0]).max() < 1


@pytest.mark.parametrize('size', [(1, 1), (2, 1), (1, 7)])
def test_tiny_images(size: tuple[int, int]):
  light_field = picture('noise', (3, 3, *size, 3))
  assert np.abs(refocus(light_field, [0.2])[0] + 0.5 - recipe(light_field, [0.2])[0]).max() < 1


def plane(disparity: float, side: int = 5, height: int = 33, width: int = 46) -> np.ndarray:
  """A textured plane in closed form: a sum of waves that fit the image, so that it may be shifted by any distance.

  What is at row r of the centre view is at r + (c - u) * disparity in view u: the sign of DDFF-12's light fields.
  """
  rng = np.random.default_rng(1)
  u, v, r, c = np.indices((side, side, height, width))
  rows, columns = r + (u - side // 2) * disparity, c + (v - side // 2) * disparity
  views = np.zeros(rows.shape)
  for _ in range(40):
    cycles_down, cycles_across = rng.integers(-10, 11, 2)
    angle = 2 * np.pi * (cycles_down * rows / height + cycles_across * columns / width + rng.random())
    views += np.cos(angle)
  return np.repeat(np.rint(128 + 100 * views / np.abs(views).max())[..., None], 3, -1).astype(np.uint8)


@pytest.mark.parametrize('disparity', [0.25, -0.4])
def test_a_plane_is_sharp_at_its_own_disparity_only(disparity: float):
  light_field = plane(disparity)
  candidates = disparity + np.array([-0.5, -0.2, 0.0, 0.2, 0.5])
  blur = np.abs(refocus(light_field, candidates).astype(float) - light_field[2, 2]).mean((1, 2, 3))
  assert blur[2] < 0.6  # half a level, because levels are cut and not rounded
  assert blur[[1, 3]].min() > 1.5
  assert blur[[0, 4]].min() > 7


def test_disparity_0_is_the_plain_average():
  light_field = picture('noise', (3, 3, 16, 21, 3))
  assert np.abs(refocus(light_field, [0.0])[0] + 0.5 - light_field.mean((0, 1))).max() < 0.6


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f'{REAL_DATA} is absent')
def test_a_real_light_field():
  """The nearest plane, which rings most, and the farthest, of a stack made by the recipe."""
  light_field = np.load(REAL_DATA / 'raw' / 'LightField' / 'train' / 'lytro2067' / 'LF_0001.npy')
  with h5py.File(REAL_DATA / 'ddff-dataset-test.h5') as file:
    expected = file['stack_test'][0, [0, 9]][..., ::-1].astype(int)  # BGR
  difference = np.abs(refocus(light_field, ddff_focus_disparities()[[0, 9]]) - expected)
  assert difference.max() == 1
  assert (difference > 0).mean() < 0.002
