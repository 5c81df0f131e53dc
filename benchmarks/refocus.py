"""Time to refocus a light field to the ten planes of DDFF-12: the published recipe step by step, and `refocus`.

python -m benchmarks.refocus
python -m benchmarks.refocus --light_field=LF_0001.npy --reference=ddff-dataset-test.h5
"""

import os
import time
from collections.abc import Callable

import h5py
import numpy as np
from absl import app, flags

from focal_jax.optics import ddff_focus_disparities
from tfds_ddff.ddff12.refocus import refocus

_LIGHT_FIELD = flags.DEFINE_string('light_field', None, 'File [V, V, H, W, 3] uint8 RGB; default: synthetic.')
_REFERENCE = flags.DEFINE_string('reference', None, 'HDF5 file whose first `stack_test` was made from --light_field.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Timed calls of `refocus`; the recipe runs once.')


def recipe(light_field: np.ndarray, disparities_px: np.ndarray) -> np.ndarray:
  """Same as `refocus`, as described by the authors, in double precision."""
  side, _, height, width, _ = light_field.shape
  rows, columns = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[:, None]
  means = np.zeros((len(disparities_px), height, width, 3))
  for u, v in np.ndindex(side, side):
    spectrum = np.fft.fft2(light_field[u, v] / 255, axes=(0, 1))
    for mean, d in zip(means, disparities_px, strict=True):
      phase = np.exp(2j * np.pi * (side // 2 - u) * d * rows) * np.exp(2j * np.pi * (side // 2 - v) * d * columns)
      mean += np.clip(np.abs(np.fft.ifft2(spectrum * phase, axes=(0, 1))), 0, 1)
  return (means / side**2 * 255).astype(np.uint8)


def synthetic_light_field() -> np.ndarray:
  """[9, 9, 383, 552, 3] uint8: a plane shifted by 1 px per view, with noisy patches, few black or saturated."""
  rng = np.random.default_rng(0)
  picture = np.kron(rng.normal(size=(60, 80, 3)), np.ones((8, 8, 1))) + rng.normal(0, 0.1, (480, 640, 3))
  picture = np.clip(128 + 45 * picture, 0, 255).astype(np.uint8)
  return np.stack([[picture[40 + u : 423 + u, 40 + v : 592 + v] for v in range(9)] for u in range(9)])


def timed(call: Callable[..., np.ndarray], *arguments: np.ndarray) -> tuple[float, np.ndarray]:
  start = time.perf_counter()
  result = call(*arguments)
  return time.perf_counter() - start, result


def main(argv: list[str]) -> None:
  del argv
  light_field = np.load(_LIGHT_FIELD.value) if _LIGHT_FIELD.value else synthetic_light_field()
  disparities = ddff_focus_disparities()
  print(f'{light_field.shape}, {len(disparities)} planes, {os.cpu_count()} cores, numpy {np.__version__}')
  recipe_seconds, expected = timed(recipe, light_field, disparities)
  runs = [timed(refocus, light_field, disparities) for _ in range(_REPEATS.value)]
  seconds = [run[0] for run in runs]
  print('| | median, s | fastest, s | slowest, s |\n| --- | ---: | ---: | ---: |')
  print(f'| recipe | {recipe_seconds:.1f} | {recipe_seconds:.1f} | {recipe_seconds:.1f} |')
  print(f'| refocus | {np.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |')
  print(f'{recipe_seconds / np.median(seconds):.1f} times as fast')
  stacks = {'recipe': expected, 'refocus': runs[0][1]}
  pairs = [('refocus', 'recipe')]
  if _REFERENCE.value:
    with h5py.File(_REFERENCE.value) as file:
      stacks['reference'] = file['stack_test'][0][..., ::-1]  # BGR
    pairs += [('recipe', 'reference'), ('refocus', 'reference')]
  for a, b in pairs:
    difference = np.abs(stacks[a].astype(int) - stacks[b])
    print(f'{a} and {b}: at most {difference.max()} levels apart, {(difference > 0).mean():.3%} of values differ')


if __name__ == '__main__':
  app.run(main)
