"""Compiles the project's programs ahead of time for TPUs and GPUs that need not be present; nothing is run.

  python -m benchmarks.aot --platform=tpu --topology=v5e:2x2
  python -m benchmarks.aot --platform=tpu --topology=v5e:2x2 --only=train --chips=1,4 --level=O0
  python -m benchmarks.aot --platform=tpu --topology=v5e:2x2 --only=predict,layers --dtype=bfloat16 --form=native
  python -m benchmarks.aot --platform=cuda --target=h100_sxm.txtpb

Reports for each program whether it compiles and in what time, the memory it needs relative to the chip's, operations
and bytes as counted by XLA, all-reduces, and for TPUs XLA's own estimate of cycles and the padding by layer. None of
this is measured on a chip. XLA uses the cycles to rank its choices, and they can only serve as a hint for ranking
programs. Loop bodies count once.

TPUs need the package libtpu (`pip install "jax[tpu]"`). CUDA needs jax-cuda12-plugin (`pip install "jax[cuda12]"`) and
a description of the GPU (`--target`: a text proto from XLA's folder xla/backends/gpu/target_config/specs, of the XLA
version that jaxlib uses). No chip or driver is needed. Every program is compiled in its own process. With
`--out=docs/compiled` results are stored there as JSON, with a table; recompiled programs replace their results, the
others are kept.
"""

import dataclasses
import datetime
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks import program_text, report
from focal_jax.command_line import run_program
from focal_jax.errors import InputError

FLAGS = flags.FLAGS if __name__ == '__main__' else flags.FlagValues()
PARTS = ('predict', 'train', 'simulator', 'layers')
TRAINED = ('both', 'depth', 'simulated', 'refined')
_PLATFORM = flags.DEFINE_enum('platform', 'tpu', ('tpu', 'cuda'), 'Platform to compile for.', flag_values=FLAGS)
_TOPOLOGY = flags.DEFINE_string(
  'topology',
  '',
  'Chips, as named by libtpu: v5e:2x2 (the default), v5e:2x4, v4:2x2x1, v5p:2x2x1, v6e:2x2, tpu7x:2x2x1. For GPUs: '
  '1x1 x their number, 1x1x4 by default.',
  flag_values=FLAGS,
)
_TARGET = flags.DEFINE_string(
  'target', '', "File that describes the GPU, XLA's GpuTargetConfigProto.", flag_values=FLAGS
)
_ONLY = flags.DEFINE_list('only', list(PARTS), f'Parts to compile: {", ".join(PARTS)}.', flag_values=FLAGS)
_NETWORKS = flags.DEFINE_list('networks', [], 'Depth networks for predictions; default: all.', flag_values=FLAGS)
_SIZES = flags.DEFINE_list(
  'sizes', ['224x224', '384x576'], 'Sizes of predicted frames, height x width, px.', flag_values=FLAGS
)
_TRAINED = flags.DEFINE_list(
  'trained',
  list(TRAINED),
  'What is trained: both networks, only depth, both on stacks simulated in the step, as in configs/simulated.py, or '
  'refined, the depth network of configs/shipped.py with its loss.',
  flag_values=FLAGS,
)
_CHIPS = flags.DEFINE_list(
  'chips', ['1', '4', '8'], 'Numbers of chips to train on, up to those available.', flag_values=FLAGS
)
_STACKS = flags.DEFINE_list('stacks', ['1', '4'], 'Numbers of stacks per chip.', flag_values=FLAGS)
_PARALLEL = flags.DEFINE_list('parallel', ['pmap', 'shard_map'], 'How a step runs on several chips.', flag_values=FLAGS)
_FRAMES = flags.DEFINE_integer('frames', 10, 'Frames per stack.', lower_bound=2, flag_values=FLAGS)
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ('float32', 'bfloat16'), 'Type of activations.', flag_values=FLAGS)
_REMAT = flags.DEFINE_bool('remat', False, 'Recompute blocks in the backward pass.', flag_values=FLAGS)
_FORM = flags.DEFINE_enum(
  'form',
  'chosen',
  ('chosen', 'native', 'planes', 'packed'),
  'Form of convolutions; see models.conv.',
  flag_values=FLAGS,
)
_LEVEL = flags.DEFINE_enum(
  'level',
  'default',
  ('default', 'O0', 'O1', 'O2', 'O3'),
  'Optimisation level. O0 compiles a step in minutes, but its figures are pessimistic: compare only within a level.',
  flag_values=FLAGS,
)
_MINUTES = flags.DEFINE_integer('minutes', 60, 'Time limit for each compilation.', lower_bound=1, flag_values=FLAGS)
_OUT = flags.DEFINE_string('out', '', 'Folder for the results; default: print them.', flag_values=FLAGS)
_CASE = flags.DEFINE_string('case', '', 'Internal: the case for a child process.', flag_values=FLAGS)

_PACKAGES = {'tpu': ('libtpu', 'libtpu', 'jax[tpu]'), 'cuda': ('jax_cuda12_plugin', 'jax-cuda12-plugin', 'jax[cuda12]')}
# Memory of a device, GiB: v5e's from its compiler's out-of-memory error, H100's from XLA's description, others nominal.
MEMORY_GIB = {
  'TPU v5 lite': 15.75,
  'TPU v4': 32,
  'TPU v5': 95,
  'TPU v6 lite': 32,
  'TPU7x': 96,
  'NVIDIA H100 80GB HBM3': 79,
}
_GIB = 2**30
_WORST = 6  # number of layers listed with their padding
# Layers of the depth network at full resolution: [in, out] channels and what differs from 3 x 3 x 3, stride 1.
LAYERS = {
  'stem, 9 x 9, dilation 2, 3 to 8': ((1, 9, 9), 3, 8, {'dilation': 2}, 1),
  'plane, 8 to 8': ((1, 3, 3), 8, 8, {}, 1),
  'cube, 8 to 8': ((3, 3, 3), 8, 8, {}, 1),
  'cube, 16 to 8': ((3, 3, 3), 16, 8, {}, 1),
  'cube, stride 2, 8 to 16': ((3, 3, 3), 8, 16, {'stride': 2}, 1),
  'cube, transposed, 16 to 8': ((3, 3, 3), 16, 8, None, 2),
  'cube, 32 to 32, at 1/4': ((3, 3, 3), 32, 32, {}, 4),
  'cube, 64 to 64, at 1/8': ((3, 3, 3), 64, 64, {}, 8),
}


@dataclasses.dataclass(frozen=True)
class Case:
  """A program to compile. Fields that do not apply to a part have their default."""

  part: str
  name: str  # the network, what is trained, or the layer
  size: str = ''
  chips: int = 1
  stacks: int = 1
  parallel: str = ''
  dtype: str = 'float32'
  remat: bool = False
  form: str = 'chosen'
  level: str = 'default'

  def text(self) -> str:
    words = [self.part, self.name, self.size]
    if self.part == 'train':
      words += [_count(self.chips, 'chip'), f'{_count(self.stacks, "stack")} each', self.parallel, 'remat' * self.remat]
    if self.form != 'chosen':
      words.append(f'{self.form} form')
    return ', '.join([word for word in words if word] + [self.dtype, f'level {self.level}'])


def _count(number: int, what: str) -> str:
  return f'{number} {what}{"s" * (number > 1)}'


def cases(available: int) -> Iterator[Case]:
  """The cases selected by the flags, for this number of available chips."""
  same = {'dtype': _DTYPE.value, 'form': _FORM.value, 'level': _LEVEL.value}
  if 'predict' in _ONLY.value:
    from focal_jax.models.registry import DEPTH

    for name in _NETWORKS.value or DEPTH:
      yield from (Case('predict', name, size, **same) for size in _SIZES.value)
  if 'train' in _ONLY.value:
    for name in _TRAINED.value:
      for chips in sorted(int(count) for count in _CHIPS.value if int(count) <= available):
        for stacks in map(int, _STACKS.value):
          for parallel in _PARALLEL.value:
            yield Case('train', name, '224x224', chips, stacks, parallel, remat=_REMAT.value, **same)
  if 'simulator' in _ONLY.value:
    yield Case('simulator', 'configs/simulated.py', '224x224', stacks=4, level=_LEVEL.value)
  if 'layers' in _ONLY.value:
    yield from (Case('layers', name, '224x224', **same) for name in LAYERS)


def describe_chips() -> list[Any]:
  """The devices of a topology. Needs the compiler for the platform."""
  if _PLATFORM.value == 'tpu':
    topology = _TOPOLOGY.value or 'v5e:2x2'
    # By default eight v5e chips are two hosts, for which lowering is not possible here.
    more = {'chips_per_host_bounds': (2, 4, 1)} if topology in ('v5e:2x4', 'v6e:2x4') else {}
    return list(topologies.get_topology_desc(platform='tpu', topology_name=topology, **more).devices)
  target = Path(_TARGET.value).read_text()
  topology = _TOPOLOGY.value or '1x1x4'
  return list(topologies.get_topology_desc(platform='cuda', target_config=target, topology=topology).devices)


def lower(case: Case, devices: list[Any]) -> jax.stages.Lowered:
  """Lowers the program of a case for the first of the devices."""
  from focal_jax.models import conv

  if case.form != 'chosen':
    conv.FORM_ON |= dict.fromkeys(('tpu', 'cuda'), case.form)
  mesh = Mesh(np.array(devices[: case.chips]), ('batch',), axis_types=(AxisType.Auto,))

  def placed(tree, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  return {'predict': _lower_predict, 'train': _lower_train, 'simulator': _lower_simulator, 'layers': _lower_layer}[
    case.part
  ](case, placed, devices)


def _lower_predict(case, placed, devices):
  from benchmarks.training import empty_stack
  from focal_jax.models.end_to_end import variable_shapes
  from focal_jax.models.registry import make_model

  network = make_model({'depth': {'name': case.name}}, dtype=np.dtype(case.dtype))
  height, width = map(int, case.size.split('x'))
  stack = empty_stack((1, _FRAMES.value, height, width)).replace(target=None, valid=None, motion=None)
  return jax.jit(network.apply).lower(placed(variable_shapes(network)), placed(stack))


def training_config(case: Case) -> Any:
  """The config of a training step."""
  from focal_jax.recipes import shipped, simulated

  config = shipped.get_config('depth_large') if case.name == 'refined' else simulated.get_config()
  config.networks = 'depth' if case.name in ('depth', 'refined') else 'both'
  config.update(compute_dtype=case.dtype, remat=case.remat, batch_size=case.chips * case.stacks)
  config.simulator.num_frames = _FRAMES.value
  return config


def _lower_train(case, placed, devices):
  from benchmarks.training import empty_stack
  from focal_jax.losses import loss_settings
  from focal_jax.models.end_to_end import variable_shapes
  from focal_jax.training import loop
  from focal_jax.training.data import TrainingData
  from focal_jax.training.optimizer import make_optimizer, make_schedule
  from focal_jax.training.parallel import AXIS, Devices
  from focal_jax.training.step import StepSettings, init_state, make_train_step

  config = training_config(case)
  shared = Devices(case.parallel, devices[: case.chips])
  model = loop.model_of(config)
  settings = StepSettings(config.networks, loss_settings(config.loss))
  tx, schedule = make_optimizer(config.optimizer), make_schedule(config.optimizer, config.steps)
  index = jax.ShapeDtypeStruct((case.chips, case.stacks), jnp.int32)
  if case.name == 'simulated':
    make_batch, inputs = TrainingData(config, shared).make_batch, ()
  else:
    stack = empty_stack((case.stacks, _FRAMES.value, 224, 224))
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((case.chips, *x.shape), x.dtype), stack)
    make_batch = lambda keys, stack: stack  # noqa: E731
  step = shared.run(make_train_step(model, tx, make_batch, settings), outputs=(False, False), training=True)
  state = jax.eval_shape(lambda variables: init_state(variables, tx, settings, 0, schedule), variable_shapes(model))
  return step.lower(placed(state), placed((index, inputs), AXIS))


def _lower_simulator(case, placed, devices):
  from focal_jax.recipes import simulated
  from focal_jax.simulate.stacks import settings_from_config, simulate_batch

  settings = settings_from_config(simulated.get_config().simulator)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), case.stacks))
  return jax.jit(lambda keys: simulate_batch(keys, settings)).lower(placed(keys))


def _lower_layer(case, placed, devices):
  """Convolution, normalisation and activation, with gradients with respect to stack and kernel."""
  from focal_jax.models import conv

  kernel, inputs, features, options, factor = LAYERS[case.name]

  def loss(x, kernel, cotangent):
    y = conv.conv_transpose(x, kernel) if options is None else conv.conv(x, kernel, **options)
    y = jax.nn.standardize(y, axis=(0, 1, 2, 3), epsilon=1e-5)
    return jnp.sum(jax.nn.relu(y) * cotangent)

  x = jax.ShapeDtypeStruct((1, _FRAMES.value, 224 // factor, 224 // factor, inputs), case.dtype)
  weights = jax.ShapeDtypeStruct((*kernel, inputs, features), case.dtype)
  out = jax.eval_shape(
    lambda x, k: conv.conv(x, k, **(options or {})) if options is not None else conv.conv_transpose(x, k), x, weights
  )
  return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*placed((x, weights, out)))


def compile_case(case: Case) -> dict[str, Any]:
  """Compiles a case; returns its results, JSON-able."""
  devices = describe_chips()
  began = time.perf_counter()
  lowered = lower(case, devices)
  found = {'device': devices[0].device_kind, 'lower_s': time.perf_counter() - began}
  if case.level != 'default':
    jax.config.update('jax_optimization_level', case.level)
  began = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = program_text.out_of_memory(str(error))
    if needed is None:
      raise
    return found | {'compile_s': time.perf_counter() - began, 'does_not_fit': needed}
  found['compile_s'] = time.perf_counter() - began
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  for name in ('temp', 'argument', 'output', 'alias', 'generated_code'):
    found[f'{name}_bytes'] = int(getattr(memory, f'{name}_size_in_bytes'))
  found |= {'flops': cost.get('flops'), 'bytes': cost.get('bytes accessed')}
  text = compiled.as_text()
  count, size = program_text.all_reduces(text)
  found |= {'cycles': program_text.cycles(text), 'all_reduces': count, 'all_reduce_bytes': size}
  return found | ({'stored': program_text.stored(text)} if _PLATFORM.value == 'tpu' else {})


def needed_bytes(row: dict[str, Any]) -> int:
  """Device memory needed; aliased arguments and results are counted once."""
  parts = ('temp', 'argument', 'output', 'generated_code')
  return sum(row[f'{part}_bytes'] for part in parts) - row['alias_bytes']


def markdown(document: dict[str, Any]) -> str:
  """The document of `main` as one table per part."""
  lines = [f'# Compiled, not run: {document["topology"]}', '']
  lines += [
    'Made by `python -m benchmarks.aot`; see its docstring. Results of compiling for these chips; nothing was run. '
    'Memory is that of one chip. Cycles are estimates by XLA, a hint for ranking; loop bodies '
    'count once. Operations include zeros of banded kernels. Figures of level O0 '
    'are pessimistic: compare only within a level. Convolutions have the form of the platform unless another '
    'is named (`models.conv.FORM_ON`).',
  ]
  for part in PARTS:
    rows = [row for row in document['rows'] if row['case']['part'] == part]
    if not rows:
      continue
    lines += ['', f'## {part}', '']
    lines += [
      '| program | memory, GiB | of the chip | temporary, GiB | Mcycles | GFLOP | GB accessed | all-reduces '
      '| compiled in, s | with | on |',
      '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |',
    ]
    lines += [_line(row) for row in sorted(rows, key=lambda row: tuple(map(str, row['case'].values())))]
  if rows := [row for row in document['rows'] if row.get('stored')]:
    lines += [
      '',
      '## Padding',
      '',
      'Arrays that a program writes, and the memory that they take in tiles of 8 x 128 values, in total and in the '
      'layers that waste most.',
      '',
      '| program | values, GB | memory, GB | layers: values / memory, MB |',
      '| --- | ---: | ---: | --- |',
    ]
    lines += [_padding_line(row) for row in sorted(rows, key=lambda row: tuple(map(str, row['case'].values())))]
  return '\n'.join(lines) + '\n'


def _padding_line(row: dict[str, Any]) -> str:
  layers = row['stored']
  values, memory = (report.number(sum(sizes) / 1e9) for sizes in zip(*layers.values(), strict=True))
  worst = sorted(layers.items(), key=lambda layer: layer[1][0] - layer[1][1])[:_WORST]
  named = ', '.join(f'{name or "others"}: {values / 1e6:.0f} / {memory / 1e6:.0f}' for name, (values, memory) in worst)
  return f'| {Case(**row["case"]).text()} | {values} | {memory} | {named} |'


def _line(row: dict[str, Any]) -> str:
  name = Case(**row['case']).text().partition(', ')[2]
  if 'does_not_fit' in row or 'error' in row:
    why = f'does not fit: {row["does_not_fit"]}' if 'does_not_fit' in row else row['error']
    return f'| {name} | {why} | | | | | | | {report.number(row.get("compile_s"))} | {row["versions"]} | {row["date"]} |'
  needed, chip = needed_bytes(row) / _GIB, MEMORY_GIB.get(row['device'])
  reduced = (
    f'{row["all_reduces"]}, {report.number(row["all_reduce_bytes"] / 1e6)} MB' if row['case']['chips'] > 1 else ''
  )
  cells = [
    report.number(needed),
    f'{needed / chip:.0%}' if chip else '',
    report.number(row['temp_bytes'] / _GIB),
    report.number(row['cycles'] and row['cycles'] / 1e6),
    report.number(row['flops'] and row['flops'] / 1e9),
    report.number(row['bytes'] and row['bytes'] / 1e9),
    reduced,
    report.number(row['compile_s']),
    row['versions'],
    row['date'],
  ]
  return f'| {name} | {" | ".join(cells)} |'


def _versions() -> str:
  names = ['jax', 'jaxlib', _PACKAGES[_PLATFORM.value][1]]
  return ', '.join(f'{name} {metadata.version(name)}' for name in names)


def _compile_in_subprocess(case: Case, arguments: list[str]) -> dict[str, Any]:
  """Compiles in a separate process, which may crash."""
  # libtpu allows only one process at a time by default, and queries a metadata server for its identity.
  environment = {'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': 'false', 'TPU_SKIP_MDS_QUERY': '1'}
  environment |= {'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
  environment |= {'TPU_ACCELERATOR_TYPE': 'v5litepod-4', 'TF_CPP_MIN_LOG_LEVEL': '2'}
  command = [sys.executable, '-m', 'benchmarks.aot', *arguments, f'--case={json.dumps(dataclasses.asdict(case))}']
  began = time.perf_counter()
  try:
    done = subprocess.run(
      command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60 * _MINUTES.value
    )
  except subprocess.TimeoutExpired:
    return {'error': f'not compiled after {_MINUTES.value} minutes', 'compile_s': time.perf_counter() - began}
  if done.returncode == 0:
    return json.loads(done.stdout.splitlines()[-1])
  said = [line for line in done.stderr.splitlines() if line.strip()]
  error = next((line for line in reversed(said) if re.match(r'[\w.]+(Error|Exception)\b', line)), '')
  return {'error': (error or f'status {done.returncode}')[:200]}


def _check_compiler() -> None:
  """Raises InputError if there is no compiler for the platform."""
  module, _, package = _PACKAGES[_PLATFORM.value]
  if importlib.util.find_spec(module) is None:
    raise InputError(
      f'no compiler for --platform={_PLATFORM.value} here, expected the package: pip install "{package}"'
    )
  if _PLATFORM.value == 'cuda' and not Path(_TARGET.value).is_file():
    raise InputError(
      f"--target is '{_TARGET.value}', expected a file that describes the GPU, such as h100_sxm.txtpb in XLA's folder "
      'xla/backends/gpu/target_config/specs'
    )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  _check_compiler()
  if _CASE.value:
    print(json.dumps(compile_case(Case(**json.loads(_CASE.value)))))
    return
  for flag, allowed in ((_ONLY, PARTS), (_TRAINED, TRAINED), (_PARALLEL, ('pmap', 'shard_map'))):
    for value in flag.value:
      if value not in allowed:
        raise InputError(f'--{flag.name}: {value!r}, expected some of {", ".join(allowed)}')
  topology = _TOPOLOGY.value or {'tpu': 'v5e:2x2', 'cuda': '1x1x4'}[_PLATFORM.value]
  if _PLATFORM.value == 'cuda':
    topology = f'{Path(_TARGET.value).stem} {topology}'
  available = math.prod(int(n) for n in re.findall(r'\d+', topology.split(' ')[-1].rpartition(':')[2]))
  path = Path(_OUT.value or '.') / (re.sub(r'\W+', '_', topology) + '.json')
  document = {'topology': topology, 'rows': []}
  if _OUT.value and path.exists():
    document = json.loads(path.read_text())
  arguments = [argument for argument in sys.argv[1:] if not argument.startswith(('--out', '--only'))]
  for case in cases(available):
    print(f'compiling {case.text()}', file=sys.stderr, flush=True)
    found = _compile_in_subprocess(case, arguments)
    found |= {'case': dataclasses.asdict(case), 'versions': _versions(), 'date': str(datetime.date.today())}
    print(_line(found), flush=True)
    document['rows'] = [row for row in document['rows'] if row['case'] != found['case']] + [found]
    if _OUT.value:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps(document, indent=1) + '\n')
      path.with_suffix('.md').write_text(markdown(document))
  if not _OUT.value:
    print(markdown(document))


if __name__ == '__main__':
  run_program(main, 'benchmarks.aot')
