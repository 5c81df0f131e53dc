"""Benchmarks of time and memory, each next to its peer and its theoretical minimum, in one run.

  python -m benchmarks.run --out=runs/benchmarks
  python -m benchmarks.run --only=inference,depth
  python -m benchmarks.run --only=stages --dtype=bfloat16 --nopeer

The network's peer is its PyTorch version (`torch_peer.py`) with the same weights and inputs; it is skipped if PyTorch
is not installed. Beside a peer each implementation runs in a process of its own (`contenders.py`): PyTorch as it comes,
with oneDNN's convolutions, and each of them with freed memory kept, as focal_jax does in training. The cases of a part
are compiled first, then run in turns, each waiting for the device; ratios are the relevant result. The ceilings of the
machine (a large matrix product and a large copy) are measured in the same run, before and after everything else. The
compilation cache is not used.
"""

import dataclasses
import functools
import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
from absl import flags

from benchmarks import cases, harness, report, stages
from benchmarks.contenders import KEPT, Contender, Contest
from benchmarks.harness import OURS, Case, Result
from benchmarks.settings import Settings, shape_text
from focal_jax import backend
from focal_jax.command_line import run_program, show_progress
from focal_jax.errors import InputError
from focal_jax.files.outputs import check_output, result_folder

log = logging.getLogger('focal_jax.benchmarks')

# Flag values of the benchmark's own, because an importing program may have flags with the same names.
FLAGS = flags.FLAGS if __name__ == '__main__' else flags.FlagValues()
_ONLY = flags.DEFINE_list('only', [], f'Parts: {", ".join(report.TITLES)}. Default: all.', flag_values=FLAGS)
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Timed calls of each case.', lower_bound=1, flag_values=FLAGS)
_OUT = flags.DEFINE_string(
  'out', None, 'Folder for results.json, table.md and plot.png. Default: only print the table.', flag_values=FLAGS
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace existing results in --out.', flag_values=FLAGS)
_FRAMES = flags.DEFINE_integer('frames', 10, 'Frames per stack.', lower_bound=2, flag_values=FLAGS)
_HEIGHT = flags.DEFINE_integer('height', 224, 'Height, px, a multiple of 32.', lower_bound=32, flag_values=FLAGS)
_WIDTH = flags.DEFINE_integer('width', 224, 'Width, px, a multiple of 32.', lower_bound=32, flag_values=FLAGS)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Type of the computations; PyTorch uses autocast.', flag_values=FLAGS
)
_PEER = flags.DEFINE_bool('peer', True, 'Also measure PyTorch and tf.data.', flag_values=FLAGS)
_COMPILE_PEER = flags.DEFINE_bool('compile_peer', False, 'Also measure PyTorch with torch.compile.', flag_values=FLAGS)
_MEMORY = flags.DEFINE_float(
  'memory_gib', 16, 'memory: limit for the largest training step.', lower_bound=0, flag_values=FLAGS
)

PIPELINE_BATCHES = 40
OF_NETWORK: dict[str, Callable[[cases.Networks], Iterable[list[Case]]]] = {
  'inference': lambda networks: [cases.inference(networks)],
  'depth': lambda networks: [cases.depth(networks)],
  'alignment': lambda networks: [cases.alignment(networks)],
  'train_step': cases.train_step,
  'warp': lambda networks: [cases.warps(networks)],
  'stages': lambda networks: [stages.stages(networks)],
  'stages_train': lambda networks: [stages.stages(networks, train=True)],
  'scaling': cases.scaling,
}


def simulator_cases(settings: Settings) -> list[Case]:
  from benchmarks import simulator

  chosen = simulator.make_settings(*settings.shape()[1:])

  def prepare(call):
    jax.block_until_ready(call())  # compiles
    return lambda: jax.block_until_ready(call())

  found = []
  for name, (call, stacks) in simulator.make_calls(chosen).items():
    text = shape_text((*settings.shape(stacks), 3))
    found.append(Case('simulator', name, OURS, text, lambda call=call: prepare(call)))
  if settings.peer:
    text = shape_text((*settings.shape(), 3))
    call = simulator.make_published(chosen)
    found.append(Case('simulator', simulator.PHOTOGRAPH, 'published method', text, lambda: call))
  return found


def pipeline_results(settings: Settings) -> tuple[list[Result], list[str]]:
  """Seconds per stack of every round, and notes."""
  from benchmarks import pipeline

  crop = settings.height
  size = pipeline.Size(height=round(crop * 383 / 224), width=round(crop * 552 / 224), crop=crop)  # DDFF-12's for 224
  with tempfile.TemporaryDirectory() as folder:
    pipeline.make_data(Path(folder), size)
    figures = pipeline.measure(Path(folder), size, settings.rounds, PIPELINE_BATCHES, settings.peer)
  results, costs = [], []
  for name, rounds in figures.items():
    case = Case(
      'pipeline', f'cropped to {crop} px', name, shape_text((pipeline.FRAMES, size.height, size.width, 3)), None
    )
    results.append(Result(case, seconds=[f.seconds / f.stacks for f in rounds]))
    costs.append(f'{name} {1e3 * sum(f.cpu_seconds for f in rounds) / sum(f.stacks for f in rounds):.1f}')
  notes = [f'Input pipeline, CPU time in ms a stack: {", ".join(costs)}.']
  if settings.peer and len(figures) == 1:
    notes.append('TensorFlow is not installed: the input pipeline has no peer.')
  return results, notes


def groups(part: str, settings: Settings, variables: dict | None) -> Iterable[list[Case]]:
  """The cases of a part in the process of a contender, which has its own networks."""
  return OF_NETWORK[part](cases.Networks(settings, variables))


def network_results(networks: cases.Networks, part: str) -> Iterator[Result]:
  """Results of a part; beside PyTorch, each implementation runs in a process of its own."""
  settings, trains = networks.settings, part in ('train_step', 'stages_train')
  if not networks.peer:
    if trains:
      backend.keep_freed_memory()  # as in a training run
    for group in OF_NETWORK[part](networks):
      yield from harness.measure(group, settings.rounds, log.info)
    return
  theirs = dataclasses.replace(settings, counted=False)  # the main process counts
  ours, variables = dataclasses.replace(theirs, peer=False), jax.device_get(networks.variables)
  contenders = [Contender(OURS, functools.partial(groups, part, ours, variables), trains)]
  make = functools.partial(groups, part, theirs, None)
  names = networks.peer.plain if part in ('warp', 'train_step') else networks.peer.variants
  contenders += [Contender(name, make, name.endswith(KEPT)) for name in names]
  with Contest(contenders) as contest:
    yield from contest.measure(OF_NETWORK[part](networks), settings.rounds, log.info)


def benchmark(settings: Settings, parts: Sequence[str]) -> report.Document:
  """Runs the parts in the order of `report.TITLES`; JSON-able."""
  notes, results, agreement, memory, scaling = [], [], None, None, {}
  if settings.peer and not settings.torch:
    notes.append('PyTorch is not installed: the network and the warp have no peer.')
  ceilings = harness.measure_ceilings(settings.dtype)
  networks = None
  if any(part in OF_NETWORK for part in parts):
    networks = cases.Networks(settings)
    if networks.peer and set(parts) & {'inference', 'depth', 'alignment', 'train_step', 'scaling'}:
      agreement = networks.agreement()
      log.info('largest difference of D4 to PyTorch: %s', agreement)
  for part in (part for part in report.TITLES if part in parts):
    if part == 'memory':
      from benchmarks.memory import measure_memory

      memory = measure_memory(settings, log.info)
    elif part == 'pipeline':
      found, said = pipeline_results(settings)
      results += found
      notes += said
    elif part == 'simulator':
      results += harness.measure(simulator_cases(settings), settings.rounds, log.info)
    else:
      results += network_results(networks, part)
    if part == 'scaling':
      scaling = {
        title: [{'value': value, 'name': shape_text(shape)} for value, shape in points]
        for title, points in cases.scaling_lines(settings).items()
      }
  ceilings = harness.best(ceilings, harness.measure_ceilings(settings.dtype))
  for result in results:
    if result.error:
      case = result.case
      notes.append(f'{case.part}, {case.name}: {case.implementation} does not run here ({result.error}).')
  return {
    'machine': harness.machine_facts(),
    'settings': {field: getattr(settings, field) for field in settings.__dataclass_fields__},
    'ceilings': {'flops_per_s': ceilings.flops_per_s, 'bytes_per_s': ceilings.bytes_per_s},
    'agreement': agreement,
    'notes': notes,
    'rows': harness.rows(results, ceilings),
    'scaling': scaling,
    'memory': memory,
  }


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  unknown = [part for part in _ONLY.value if part not in report.TITLES]
  if unknown:
    raise InputError(f'--only: no part {unknown[0]!r}, expected some of {", ".join(report.TITLES)}')
  for flag in (_HEIGHT, _WIDTH):
    if flag.value % 32:
      raise InputError(f'--{flag.name} is {flag.value}, expected a multiple of 32')
  settings = Settings(
    frames=_FRAMES.value,
    height=_HEIGHT.value,
    width=_WIDTH.value,
    dtype=_DTYPE.value,
    rounds=_ROUNDS.value,
    peer=_PEER.value,
    torch=importlib.util.find_spec('torch') is not None,
    compile_peer=_COMPILE_PEER.value,
    memory_gib=_MEMORY.value,
  )
  show_progress()
  out = Path(_OUT.value) if _OUT.value else None
  if out:
    check_output(out, _OVERWRITE.value)
  document = benchmark(settings, _ONLY.value or list(report.TITLES))
  print(report.markdown(document))
  if out:
    with result_folder(out, _OVERWRITE.value) as folder:
      report.write(folder, document)


def run() -> None:
  """Entry point."""
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # the peer needs the GPU's memory too
  jax.config.update('jax_enable_compilation_cache', False)  # compilation is part of the results
  run_program(main, 'benchmarks.run')


if __name__ == '__main__':
  run()
