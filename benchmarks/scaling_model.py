"""Model of the step time on 8 to 256 devices, from a measured step, the data that it exchanges, and the link speeds.

  python -m benchmarks.scaling_model --step_ms=250                      # of your own machine, one device
  python -m benchmarks.scaling_model --step_ms=250 --batch=4 --devices_a_host=4 --host_gbytes=25

docs/scaling.md describes the model and its omissions. The exchanged data is counted in the step's program, which is not
compiled, so this takes about ten seconds.
"""

import collections
import dataclasses
import math

import jax
from absl import flags

from benchmarks import report, training
from benchmarks.flops import inner_jaxprs
from focal_jax.command_line import run_program
from focal_jax.errors import InputError
from focal_jax.training.parallel import AXIS

FLAGS = flags.FLAGS if __name__ == '__main__' else flags.FlagValues()
_STEP = flags.DEFINE_float(
  'step_ms', None, 'Step time measured on one device with its share of a batch.', flag_values=FLAGS
)
_BATCH = flags.DEFINE_integer('batch', 4, 'Stacks per device.', lower_bound=1, flag_values=FLAGS)
_FRAMES = flags.DEFINE_integer('frames', 10, 'Frames per stack.', lower_bound=2, flag_values=FLAGS)
_SIDE = flags.DEFINE_integer('side', 224, 'Height and width, px, a multiple of 32.', lower_bound=32, flag_values=FLAGS)
_NETWORKS = flags.DEFINE_enum('networks', 'both', ('both', 'depth', 'alignment'), 'What is trained.', flag_values=FLAGS)
_DEVICES_PER_HOST = flags.DEFINE_integer('devices_a_host', 8, 'Devices per host.', lower_bound=1, flag_values=FLAGS)
_DEVICE_GBYTES = flags.DEFINE_float(
  'device_gbytes', 300, 'Links inside a host, GB/s per device and direction.', flag_values=FLAGS
)
_HOST_GBYTES = flags.DEFINE_float(
  'host_gbytes', 50, 'Links between hosts, GB/s per host and direction.', flag_values=FLAGS
)
_DEVICE_US = flags.DEFINE_float('device_us', 10, 'Time of the smallest reduction inside a host, us.', flag_values=FLAGS)
_HOP_US = flags.DEFINE_float('hop_us', 5, 'Time added by each doubling of the hosts, us.', flag_values=FLAGS)
_INPUT_STACKS_PER_SECOND = flags.DEFINE_float(
  'stacks_a_second', 349, 'Throughput of the input pipeline of a host.', flag_values=FLAGS
)

_SCALAR = 4  # bytes
COUNTS = (1, 8, 16, 32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Exchange:
  """What devices reduce in a step: the gradient, and small reductions that the step waits for."""

  gradient_bytes: int
  waits: int
  wait_bytes: int


@dataclasses.dataclass(frozen=True)
class Links:
  """Bandwidths in bytes/s and latencies in s; see the flags."""

  devices_a_host: int
  inside: float
  between: float
  inside_s: float
  hop_s: float


def count_exchange(networks: str, shape: training.Shape) -> Exchange:
  """Counts the exchange in the step's program, before a compiler merges reductions.

  There is one reduction for each tensor of the gradient and each scalar (counts and metrics), which a compiler merges.
  The others are those of batch normalisation, forward and backward, each of which the following operations wait for.
  """
  program = training.StepProgram(training.Option(kind='shard_map'), shape, networks)
  state, inputs = program.shapes()
  sizes = []

  def visit(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'psum' and AXIS in equation.params['axes']:
        # One reduction of several tensors in older versions of JAX, of one tensor in newer ones.
        sizes.extend(x.aval.size * x.aval.dtype.itemsize for x in equation.invars)
      for inner in inner_jaxprs(equation):
        visit(inner)

  visit(program.step.trace(state, inputs).jaxpr.jaxpr)
  gradient = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params)]
  small = collections.Counter(sizes) - collections.Counter(gradient)
  waits = [size for size in small.elements() if size > _SCALAR]
  return Exchange(gradient_bytes=sum(gradient), waits=len(waits), wait_bytes=sum(waits))


def reduction_s(size: float, devices: int, links: Links) -> float:
  """Time of an all-reduce: a ring sends 2 (n - 1) / n of the bytes over each link, inside the hosts and then between
  them.
  """
  inside = min(devices, links.devices_a_host)
  hosts = math.ceil(devices / links.devices_a_host)
  if devices == 1:
    return 0.0
  seconds = links.inside_s + 2 * (inside - 1) / inside * size / links.inside
  if hosts > 1:
    seconds += links.hop_s * math.log2(hosts) + 2 * (hosts - 1) / hosts * size / links.between
  return seconds


def step_times(step_s: float, batch: int, stacks_a_second: float, exchange: Exchange, links: Links) -> list[dict]:
  """A row for each of COUNTS, times in s. Nothing overlaps, so this is an upper limit."""
  rows = []
  for devices in COUNTS:
    gradient = reduction_s(exchange.gradient_bytes, devices, links)
    waits = exchange.waits * reduction_s(exchange.wait_bytes / max(exchange.waits, 1), devices, links)
    total = step_s + gradient + waits
    feed = batch * min(devices, links.devices_a_host) / stacks_a_second
    rows.append(
      {
        'devices': devices,
        'gradient': gradient,
        'waits': waits,
        'step': max(total, feed),
        'feed': feed,
        'efficiency': step_s / max(total, feed),
      }
    )
  return rows


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  if _STEP.value is None or _STEP.value <= 0:
    raise InputError(f'--step_ms is {_STEP.value}, expected the measured time of a step, above 0')
  if _SIDE.value % 32:
    raise InputError(f'--side is {_SIDE.value}, expected a multiple of 32')
  for flag in (_DEVICE_GBYTES, _HOST_GBYTES, _DEVICE_US, _HOP_US, _INPUT_STACKS_PER_SECOND):
    if flag.value <= 0:
      raise InputError(f'--{flag.name} is {flag.value}, expected above 0')
  shape = (_BATCH.value, _FRAMES.value, _SIDE.value, _SIDE.value)
  exchange = count_exchange(_NETWORKS.value, shape)
  links = Links(
    _DEVICES_PER_HOST.value,
    _DEVICE_GBYTES.value * 1e9,
    _HOST_GBYTES.value * 1e9,
    _DEVICE_US.value * 1e-6,
    _HOP_US.value * 1e-6,
  )
  print(
    f'{exchange.gradient_bytes / 1e6:.1f} MB of gradient; {exchange.waits} reductions that the step waits for, '
    f'{exchange.wait_bytes / 1e3:.0f} kB together\n'
  )
  print('| devices | step, ms | gradient, ms | waits, ms | input of a host, ms | efficiency | stacks/s |')
  print('| ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
  for row in step_times(_STEP.value / 1e3, _BATCH.value, _INPUT_STACKS_PER_SECOND.value, exchange, links):
    ms = [f'{1e3 * row[name]:.1f}' for name in ('step', 'gradient', 'waits', 'feed')]
    speed = _BATCH.value * row['devices'] / row['step']
    print(f'| {row["devices"]} | {" | ".join(ms)} | {row["efficiency"]:.2f} | {report.number(speed)} |')


if __name__ == '__main__':
  run_program(main, 'benchmarks.scaling_model')
