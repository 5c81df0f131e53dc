"""Time and memory of a training step with each option of the config, against the step without any.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --networks=both --crop_px=64 --rounds=9

All steps are compiled first, then taken in turns, so that a noisy machine is noisy for all of them alike; what counts
are the ratios. The batch is made once and lies on the device; the data pipeline and the simulator have benchmarks of
their own. Times are medians over the rounds, each step waited for. Memory is what XLA allots to the step beyond its
arguments.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from configs import default
from focal_jax import parallel
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.registry import make_model
from focal_jax.stack import FocalStack
from focal_jax.step import StepSettings, init_state, make_train_step
from focal_jax.train import make_optimizer, make_schedule

_NETWORKS = flags.DEFINE_enum('networks', 'depth', ('both', 'depth', 'alignment'), 'What is trained.')
_CROP = flags.DEFINE_integer('crop_px', 64, 'Side of the frames, a multiple of 32.')
_FRAMES = flags.DEFINE_integer('frames', 5, 'Of a stack.')
_BATCH = flags.DEFINE_integer('batch_size', 4, 'Stacks a step, on one device.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Steps of each kind that are timed.')
_ONLY = flags.DEFINE_list('only', [], 'Of the options, those to measure; default: all.')


@dataclasses.dataclass(frozen=True)
class Option:
  """What differs from the plain step: fields of the step's settings, the optimiser, the model, the devices."""

  settings: dict
  clip_norm: float = 0.0
  dtype: str = 'float32'
  remat: bool = False
  kind: str = 'pmap'


PLAIN = 'plain'
OPTIONS = {
  PLAIN: Option({}),
  'parallel=shard_map': Option({}, kind='shard_map'),
  'compute_dtype=bfloat16': Option({}, dtype='bfloat16'),
  'remat=True': Option({}, remat=True),
  'accumulate=2': Option({'accumulate': 2}),
  'ema_decay=0.999': Option({'ema_decay': 0.999}),
  'optimizer.clip_norm=1': Option({}, clip_norm=1.0),
  'loss.penalty=charbonnier': Option({'loss': LossSettings(penalty='charbonnier')}),
  'loss.gradient_weight=0.5': Option({'loss': LossSettings(gradient_weight=0.5)}),
}


def make_stack(size: int) -> FocalStack:
  rng = np.random.default_rng(0)
  frames, side = _FRAMES.value, _CROP.value
  return FocalStack(
    images=jnp.asarray(rng.random((size, frames, side, side, 3)), jnp.float32),
    focus=jnp.tile(jnp.linspace(0, 1, frames), (size, 1)),
    fov=jnp.tile(jnp.linspace(1.04, 1, frames), (size, 1)),
    target=jnp.asarray(rng.random((size, side, side)), jnp.float32),
    valid=jnp.ones((size, side, side)),
    motion=jnp.zeros((size, frames, 3)),
  )


class Step:
  """One kind of step, compiled."""

  def __init__(self, option: Option):
    devices = parallel.Devices(option.kind, jax.local_devices()[:1])
    optimizer = default.get_config().optimizer
    optimizer.clip_norm = option.clip_norm
    tx = make_optimizer(optimizer, make_schedule(optimizer, 1000))
    settings = StepSettings(**{'networks': _NETWORKS.value, 'loss': LossSettings(), **option.settings})
    runtime = {'axis_name': parallel.AXIS, 'dtype': np.dtype(option.dtype), 'remat': option.remat}
    model = make_model('end_to_end', {}, **runtime)
    function = make_train_step(model, tx, lambda keys, stack: stack, settings)
    step = devices.run(function, outputs=(False, False), donate=True)
    self._state = devices.replicate(init_state(init_variables(model, 0), tx, settings, 0))
    share = (np.arange(_BATCH.value, dtype=np.int32), make_stack(_BATCH.value))
    self._inputs = devices.share(jax.tree.map(lambda x: x[None], share))
    began = time.perf_counter()
    self._step = step.lower(self._state, self._inputs).compile()
    self.compile_s = time.perf_counter() - began
    self.memory_mb = self._step.memory_analysis().temp_size_in_bytes / 1e6

  def __call__(self) -> float:
    """Takes a step; returns the seconds it took."""
    began = time.perf_counter()
    self._state, metrics = self._step(self._state, self._inputs)
    jax.block_until_ready((self._state, metrics))
    return time.perf_counter() - began


def main(argv: list[str]) -> None:
  del argv
  names = [PLAIN, *(name for name in OPTIONS if name != PLAIN and (not _ONLY.value or name in _ONLY.value))]
  steps = {}
  for name in names:
    steps[name] = Step(OPTIONS[name])
    print(f'compiled {name} in {steps[name].compile_s:.0f} s', flush=True)
  for step in steps.values():
    step()
  seconds = {name: [] for name in names}
  for _ in range(_ROUNDS.value):
    for name, step in steps.items():
      seconds[name].append(step())
  device, shape = jax.devices()[0].device_kind, (_BATCH.value, _FRAMES.value, _CROP.value, _CROP.value, 3)
  print(f"\nnetworks '{_NETWORKS.value}', {shape}, {device}, jax {jax.__version__}, {_ROUNDS.value} rounds\n")
  print('| option | step, ms (range) | against plain | memory, MB | against plain |')
  print('| --- | ---: | ---: | ---: | ---: |')
  plain = np.array(seconds[PLAIN])
  for name, step in steps.items():
    ms = np.array(seconds[name]) * 1e3
    ratio = np.median(np.array(seconds[name]) / plain)  # of steps of one round
    memory = step.memory_mb
    print(
      f'| `{name}` | {np.median(ms):.0f} ({ms.min():.0f} to {ms.max():.0f}) | {ratio:.2f} | {memory:.0f} '
      f'| {memory / steps[PLAIN].memory_mb:.2f} |'
    )


if __name__ == '__main__':
  app.run(main)
