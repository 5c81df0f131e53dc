"""Time and memory of a training step with each option of the config, relative to the step without any.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --networks=both --crop_px=64 --rounds=9
  python -m benchmarks.train_step --depth=refined

All steps are compiled first, then run in turns (`benchmarks.harness`), so that noise of the machine affects all alike;
ratios are the relevant result. The batch is made once and stays on the device; data pipeline and simulator have their
own benchmarks. Times are medians over the rounds. Memory is what XLA allocates for the step in addition to its
arguments.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.harness import OURS, Case, measure, ratios
from benchmarks.settings import shape_text
from benchmarks.summary import median_and_range
from benchmarks.training import Option, Step, refined
from focal_jax.losses import LossSettings

_NETWORKS = flags.DEFINE_enum('networks', 'depth', ('both', 'depth', 'alignment'), 'What is trained.')
_DEPTH = flags.DEFINE_enum(
  'depth', 'published', ('published', 'refined'), 'The depth network; refined is the one that ships, with its loss.'
)
_CROP = flags.DEFINE_integer('crop_px', 64, 'Side of the frames, a multiple of 32.')
_FRAMES = flags.DEFINE_integer('frames', 5, 'Frames per stack.')
_BATCH = flags.DEFINE_integer('batch_size', 4, 'Stacks per step, on one device.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Turns of each option.')
_ONLY = flags.DEFINE_list('only', [], 'Options to measure; default: all.')


PLAIN = 'plain'


def options(base: Option) -> dict[str, Option]:
  """The options, each a change of `base`."""

  def changed(settings: dict | None = None, **fields: Any) -> Option:
    return dataclasses.replace(base, settings=base.settings | (settings or {}), **fields)

  def loss(**fields: Any) -> dict[str, LossSettings]:
    return {'loss': dataclasses.replace(base.settings.get('loss', LossSettings()), **fields)}

  return {
    PLAIN: base,
    'parallel=shard_map': changed(kind='shard_map'),
    'compute_dtype=bfloat16': changed(dtype='bfloat16'),
    'remat=True': changed(remat=True),
    'accumulate=2': changed({'accumulate': 2}),
    'ema_decay=0.999': changed({'ema_decay': 0.999}),
    'optimizer.clip_norm=1': changed(clip_norm=1.0),
    'loss.penalty=charbonnier': changed(loss(penalty='charbonnier')),
    'loss.gradient_weight=0.5': changed(loss(gradient_weight=0.5)),
  }


def main(argv: list[str]) -> None:
  del argv
  chosen = options(refined() if _DEPTH.value == 'refined' else Option())
  names = [PLAIN, *(name for name in chosen if name != PLAIN and (not _ONLY.value or name in _ONLY.value))]
  shape = (_BATCH.value, _FRAMES.value, _CROP.value, _CROP.value)
  steps: dict[str, Step] = {}

  def prepare(name: str) -> Step:
    steps[name] = Step(chosen[name], shape, _NETWORKS.value)
    print(f'compiled {name} in {steps[name].compile_s:.0f} s', flush=True)
    return steps[name]

  size = shape_text((*shape, 3))
  cases = [Case('train_step', name, OURS, size, functools.partial(prepare, name)) for name in names]
  results = measure(cases, _ROUNDS.value)
  device = jax.devices()[0].device_kind
  what = f"networks '{_NETWORKS.value}', {_DEPTH.value}, {size}"
  print(f'\n{what}, {device}, jax {jax.__version__}, {_ROUNDS.value} rounds\n')
  print('| option | step, ms (range) | against plain | memory, MB | against plain |')
  print('| --- | ---: | ---: | ---: | ---: |')
  for result in results:
    name, memory = result.case.name, steps[result.case.name].memory_mb
    ms, ratio = median_and_range(1e3 * np.array(result.seconds)), np.median(ratios(result, results[0]))
    print(f'| `{name}` | {ms} | {ratio:.2f} | {memory:.0f} | {memory / steps[PLAIN].memory_mb:.2f} |')


if __name__ == '__main__':
  app.run(main)
