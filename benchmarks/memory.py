"""Memory that XLA allocates for predictions and training steps, without running them; and peak memory of a predicting
process.

python -m benchmarks.memory FRAMES HEIGHT WIDTH    # such a process, for `benchmarks.run`
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.settings import Settings, multiple_of_32
from benchmarks.training import Option, StepProgram, empty_stack, refined
from focal_jax import backend
from focal_jax.models.end_to_end import init_variables, variable_shapes
from focal_jax.models.published import INPUT_CONVENTION
from focal_jax.models.registry import make_model
from focal_jax.prediction.network_predictor import NetworkPredictor

STEP_PX = 32
Shape = tuple[int, int, int, int]


def inference_bytes(settings: Settings, shape: Shape, model: dict[str, Any]) -> dict[str, int]:
  """Memory of an end-to-end prediction."""
  network = make_model(model, dtype=np.dtype(settings.dtype))
  stack = empty_stack(shape).replace(target=None, valid=None, motion=None)
  predict = jax.jit(network.apply, compiler_options=backend.compiler_options())
  return _allotted(predict.lower(variable_shapes(network), stack).compile())


def training_bytes(option: Option, shape: Shape, trained: str) -> dict[str, int]:
  """Memory of a training step."""
  program = StepProgram(option, shape, trained)
  return _allotted(program.compile(*program.shapes()))


def _allotted(compiled: jax.stages.Compiled) -> dict[str, int]:
  analysis = compiled.memory_analysis()
  parts = {name: int(getattr(analysis, f'{name}_size_in_bytes')) for name in ('temp', 'argument', 'output', 'alias')}
  # Donated arguments count among arguments and results.
  return parts | {'total': parts['temp'] + parts['argument'] + parts['output'] - parts['alias']}


KINDS: dict[str, Callable[[Settings, Shape], dict[str, int]]] = {
  'inference': lambda settings, shape: inference_bytes(settings, shape, INPUT_CONVENTION),
  'inference, shipped networks': lambda settings, shape: inference_bytes(settings, shape, refined().model),
  'training': lambda settings, shape: training_bytes(Option(dtype=settings.dtype), shape, 'both'),
  'training, remat': lambda settings, shape: training_bytes(Option(dtype=settings.dtype, remat=True), shape, 'both'),
  'training, refined': lambda settings, shape: training_bytes(refined(dtype=settings.dtype), shape, 'depth'),
}


def memory_shapes(settings: Settings) -> list[Shape]:
  """Shapes of one stack: half, full and 12/7 of the size, and fewer and more frames."""
  frames, height, width = settings.shape()[1:]
  sizes = [(multiple_of_32(height * share), multiple_of_32(width * share)) for share in (0.5, 1.0, 12 / 7)]
  shapes = {(1, frames, *size) for size in sizes}
  return sorted(shapes | {(1, max(round(frames * share), 2), height, width) for share in (0.5, 1.5)})


def largest_side(bytes_of: Callable[[int], float], limit: float, first: int) -> tuple[int, float]:
  """The largest multiple of 32 px whose bytes are within the limit, and its bytes; 0 if there is none.

  Bytes grow roughly with the square of the side, which gives the next side to try. In the end the result fits, and the
  next multiple does not.
  """
  fits, too_large = (0, 0.0), None
  side = max(first // STEP_PX, 1) * STEP_PX
  while True:
    found = bytes_of(side)
    if found <= limit:
      fits = (side, found)
    else:
      too_large = side
    if too_large is not None and too_large - fits[0] <= STEP_PX:
      return fits
    guess = int(side * (limit / found) ** 0.5) // STEP_PX * STEP_PX
    if found > limit and guess == fits[0]:
      guess += STEP_PX
    above = too_large - STEP_PX if too_large is not None else max(2 * side, guess)
    side = min(max(guess, fits[0] + STEP_PX), above)


def measure_memory(settings: Settings, log: Callable[[str], None]) -> dict[str, Any]:
  """{'allotted': rows, 'largest': rows, 'process': a row}, JSON-able."""
  allotted, largest = [], []
  for shape in memory_shapes(settings):
    for kind, bytes_of in KINDS.items():
      allotted.append({'kind': kind, 'shape': list(shape), **bytes_of(settings, shape)})
      log(f'memory: {kind} of {shape}: {allotted[-1]["total"] / 2**20:.0f} MiB')
  limit = settings.memory_gib * 2**30
  for kind in (kind for kind in KINDS if kind.startswith('training')):
    tried = {}

    def bytes_of(side, kind=kind, tried=tried):
      tried[side] = KINDS[kind](settings, (1, settings.frames, side, side))['total']
      log(f'memory: {kind} of {side} px: {tried[side] / 2**30:.2f} GiB')
      return tried[side]

    side, found = largest_side(bytes_of, limit, settings.height)
    largest.append({'kind': kind, 'limit_gib': settings.memory_gib, 'side': side, 'total': int(found)})
  return {'allotted': allotted, 'largest': largest, 'process': peak_of_process(settings)}


def peak_of_process(settings: Settings) -> dict[str, Any]:
  """Peak memory of a process that imports, compiles and predicts one stack, 12/7 x 18/7 of the size: 384 x 576 px for
  224.
  """
  shape = (settings.frames, multiple_of_32(settings.height * 12 / 7), multiple_of_32(settings.width * 18 / 7))
  command = [sys.executable, '-m', 'benchmarks.memory', *map(str, shape)]
  done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
  return {'shape': list(shape), **json.loads(done.stdout.splitlines()[-1])}


def _peak_bytes() -> int | None:
  """Peak resident size of this process; not `ru_maxrss`, which a child inherits from its parent."""
  try:
    lines = Path('/proc/self/status').read_text().splitlines()
  except OSError:
    return None
  found = [int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM:')]
  return found[0] if found else None


def main(argv: list[str]) -> None:
  frames, height, width = map(int, argv)
  jax.config.update('jax_enable_compilation_cache', False)
  network = make_model(INPUT_CONVENTION)
  model = NetworkPredictor('benchmark', network, init_variables(network, 0), {}, [])
  images = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)
  before = _peak_bytes()
  model.predict(images, np.linspace(0, 1, frames), np.linspace(1.04, 1, frames), 'network')
  print(json.dumps({'imported': before, 'peak': _peak_bytes()}))


if __name__ == '__main__':
  main(sys.argv[1:])
