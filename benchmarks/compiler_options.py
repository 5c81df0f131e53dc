"""Times of predictions and training steps with other options of XLA than those `focal_jax.backend` chooses for CPUs.

  python -m benchmarks.compiler_options
  python -m benchmarks.compiler_options --only='training step, refined' --rounds=9

For a new version of jaxlib, this shows whether its options should still be chosen as they are. All programs of a
network are compiled first, then run in turns. Options that jaxlib does not know, or ignores, change nothing.
"""

import functools

import jax
import jaxlib
import numpy as np
from absl import app, flags

from benchmarks.harness import OURS, Call, Case, compile_ahead, measure, ratios
from benchmarks.settings import shape_text
from benchmarks.summary import median_and_range
from benchmarks.training import Option, Shape, Step, make_stack, refined
from focal_jax.backend import compiler_options
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.registry import make_model

_FRAMES = flags.DEFINE_integer('frames', 10, 'Frames per stack.')
_SIDE = flags.DEFINE_integer('side_px', 224, 'Side of the frames, a multiple of 32.')
_BATCH = flags.DEFINE_integer('batch_size', 2, 'Stacks in a training step; a prediction has one.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Timed calls of each program.')
_ONLY = flags.DEFINE_multi_string('only', [], 'Programs to measure, such as "training step, refined"; default: all.')

_ONEDNN, _YNNPACK = 'xla_cpu_experimental_onednn_custom_call', 'xla_cpu_experimental_ynn_fusion_type'
_CHOSEN = 'as chosen'


def _ynnpack(*kinds: str) -> str:
  return ','.join(f'LIBRARY_FUSION_TYPE_{kind}' for kind in kinds)


# Options that replace chosen ones.
VARIANTS = {
  _CHOSEN: {},
  "oneDNN's convolutions": {_ONEDNN: 'True'},
  "YNNPACK's convolutions": {_YNNPACK: _ynnpack('INDIVIDUAL_DOT', 'INDIVIDUAL_CONVOLUTION')},
  "without YNNPACK's sums": {_YNNPACK: _ynnpack('INDIVIDUAL_DOT')},
  "with YNNPACK's sums": {_YNNPACK: _ynnpack('INDIVIDUAL_DOT', 'REDUCE')},
}
DEPTH = {'published': Option(), 'refined': refined()}


def _prediction(option: Option, shape: Shape, options: dict[str, str]) -> Call:
  network = make_model(option.model)
  predict = lambda variables, stack: network.apply(variables, stack, align=False).depth  # noqa: E731
  return compile_ahead(predict, init_variables(network, 0), make_stack((1, *shape[1:])), options=options)


def _training_step(option: Option, shape: Shape, options: dict[str, str]) -> Call:
  return Step(option, shape, 'depth', options)


PROGRAMS = {
  f'{what}, {name}': (make, option, training)
  for name, option in DEPTH.items()
  for what, make, training in (('prediction', _prediction, False), ('training step', _training_step, True))
}


def main(argv: list[str]) -> None:
  del argv
  shape = (_BATCH.value, _FRAMES.value, _SIDE.value, _SIDE.value)
  unknown = [name for name in _ONLY.value if name not in PROGRAMS]
  if unknown:
    raise app.UsageError(f"--only: unknown program '{unknown[0]}', expected {', '.join(PROGRAMS)}")
  print(f'jaxlib {jaxlib.__version__}, {jax.devices()[0].device_kind}, {(*shape, 3)}, {_ROUNDS.value} rounds\n')
  print('| program | options | ms (range) | against chosen |')
  print('| --- | --- | ---: | ---: |', flush=True)
  for title in _ONLY.value or PROGRAMS:
    make, option, training = PROGRAMS[title]
    chosen = compiler_options(training=training)
    cases = [
      Case(title, name, OURS, shape_text((*shape, 3)), functools.partial(make, option, shape, options))
      for name, options in VARIANTS.items()
      if name == _CHOSEN or chosen | options != chosen
    ]
    results = measure(cases, _ROUNDS.value)
    for result in results:
      ms, ratio = median_and_range(1e3 * np.array(result.seconds)), np.median(ratios(result, results[0]))
      print(f'| {title} | {result.case.name} | {ms} | {ratio:.2f} |', flush=True)


if __name__ == '__main__':
  app.run(main)
