"""Cost of tiles: how far from a border depth is affected, and memory and time of a large stack.

python -m benchmarks.tiles --stack=examples/pcb                        # error against distance from a border
python -m benchmarks.tiles --shape=10,3000,4000 --tile_px=1024         # a process that predicts such a stack
"""

import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

import focal_jax
from benchmarks.memory import _peak_bytes as peak_bytes
from focal_jax.backend import use_compilation_cache
from focal_jax.data.folder import read_stack_folder
from focal_jax.prediction.tiles import OVERLAP_PX, RAMP

_STACK = flags.DEFINE_string('stack', None, 'Folder of a focal stack, which is split in two across its width.')
_MAX_SIDE = flags.DEFINE_integer('max_side', 1024, 'Longer side to which its frames are reduced, px.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights file; default: the shipped weights.')
_SHAPE = flags.DEFINE_list('shape', None, 'Frames, height and width of a stack of noise to predict.')
_TILE_PX = flags.DEFINE_integer('tile_px', None, 'Tile size; default: depends on the number of frames.')
_OVERLAP_PX = flags.DEFINE_integer('overlap_px', OVERLAP_PX, 'Overlap of neighbouring tiles.')


def border_errors(model: focal_jax.Model, images: np.ndarray, focus: np.ndarray) -> np.ndarray:
  """Largest depth error at and beyond each distance (px) from a cut, relative to the range of `focus`."""
  middle = images.shape[2] // 64 * 32
  whole = model.predict(images, focus, align='off').depth
  left, right = (model.predict(part, focus, align='off').depth for part in np.split(images, [middle], axis=2))
  errors = [np.abs(left - whole[:, :middle])[:, ::-1], np.abs(right - whole[:, middle:])[:, :middle]]
  largest = np.max([error.max(0)[:middle] for error in errors], axis=0) / np.ptp(focus)
  return np.maximum.accumulate(largest[::-1])[::-1]


def main(argv: list[str]) -> None:
  del argv
  use_compilation_cache()
  model = focal_jax.load(_WEIGHTS.value)
  if _STACK.value:
    stack = read_stack_folder(Path(_STACK.value), max_side=_MAX_SIDE.value)
    errors = border_errors(model, stack.images, stack.focus)
    print(f'{_STACK.value}, {stack.images.shape}, {Path(model.name).name}, jax {jax.__version__}')
    print('| px from the border | largest error beyond, of the depth range | overlap with this margin, px |')
    print('| ---: | ---: | ---: |')
    for distance in range(0, len(errors), 32):
      print(f'| {distance} | {errors[distance]:.1e} | {2 * distance / (1 - RAMP):.0f} |')
  if _SHAPE.value:
    frames, height, width = map(int, _SHAPE.value)
    images = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)
    before, began = peak_bytes(), time.perf_counter()
    fov = np.linspace(1.04, 1, frames)
    sizes = {'tile_px': _TILE_PX.value, 'overlap_px': _OVERLAP_PX.value}
    model.predict(images, np.arange(frames), fov, 'network', **sizes)
    seconds = time.perf_counter() - began
    print(
      f'{images.shape}, tiles of {_TILE_PX.value or "default"} px, overlap {_OVERLAP_PX.value} px: {seconds:.0f} s,'
    )
    print(f'peak of the process {peak_bytes() / 2**30:.2f} GiB, {before / 2**30:.2f} before')


if __name__ == '__main__':
  app.run(main)
