"""Time of one prediction after compilation, alignment on and off.

python -m benchmarks.predict
python -m benchmarks.predict --frames=10 --height=384 --width=576
"""

import time

import jax
import numpy as np
from absl import app, flags

import focal_jax

_FRAMES = flags.DEFINE_integer('frames', 10, 'Frames of the stack.')
_HEIGHT = flags.DEFINE_integer('height', 224, 'px.')
_WIDTH = flags.DEFINE_integer('width', 224, 'px.')
_REPEATS = flags.DEFINE_integer('repeats', 7, 'Timed calls.')
_WEIGHTS = flags.DEFINE_string('weights', None, 'Weights file; default: shipped.')


def main(argv: list[str]) -> None:
  del argv
  model = focal_jax.load(_WEIGHTS.value)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (_FRAMES.value, _HEIGHT.value, _WIDTH.value, 3), np.uint8)
  focus = np.linspace(0.0, 1.0, _FRAMES.value)
  print(f'{images.shape}, {jax.devices()[0]}, jax {jax.__version__}; host to host')
  print('| align | first call, s | median, s | fastest, s | slowest, s |\n| --- | ---: | ---: | ---: | ---: |')
  for align in (True, False):
    seconds = []
    for _ in range(_REPEATS.value + 1):
      start = time.perf_counter()
      model.predict(images, focus, align=align)  # returns numpy arrays, so the device is done
      seconds.append(time.perf_counter() - start)
    first, *rest = seconds
    print(f'| {align} | {first:.2f} | {np.median(rest):.3f} | {min(rest):.3f} | {max(rest):.3f} |')


if __name__ == '__main__':
  app.run(main)
