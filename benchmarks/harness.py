"""Measures cases in turns, so that noise of the machine affects all alike."""

import dataclasses
import functools
import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from focal_jax import backend

OURS = 'focal_jax'
TURN_S = 0.2
Call = Callable[[], None]
Turn = Callable[[float], float]  # of the least seconds to take; returns the seconds of a call


@dataclasses.dataclass(frozen=True)
class Case:
  """One thing to measure, in one implementation.

  Attributes:
    part: part of the benchmark, as in --only.
    name: what is computed; cases with the same part and name are compared.
    implementation: 'focal_jax', 'PyTorch eager' and so on.
    shape: of the input, as text.
    prepare: compiles, and returns the function to time, which returns when the device is done.
    flops: minimum floating-point operations; None if unknown.
    bytes: minimum memory traffic: inputs, parameters and results, once each; None if unknown.
    optional: failure to run is noted instead of being an error.
  """

  part: str
  name: str
  implementation: str
  shape: str
  prepare: Callable[[], Call]
  flops: float | None = None
  bytes: float | None = None
  optional: bool = False


@dataclasses.dataclass
class Result:
  """Seconds of every round. `compile_s`: time of `prepare`. `error`: why there are none."""

  case: Case
  compile_s: float | None = None
  seconds: list[float] = dataclasses.field(default_factory=list)
  error: str | None = None


@dataclasses.dataclass(frozen=True)
class Ceilings:
  """Best performance of the device: FLOP/s of a large matrix product, bytes/s read and written by a large copy."""

  flops_per_s: float
  bytes_per_s: float


def take_turn(call: Call, least_s: float) -> float:
  """Median seconds of calls for at least this time, and at least of one, after a call that does not count.

  Later calls are representative of a run, in which one step follows another: during other cases' turns, memory may have
  been returned to the system, and getting it back is slower than reusing it.
  """
  call()
  seconds, start = [], time.perf_counter()
  while not seconds or time.perf_counter() - start < least_s:
    began = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - began)
  return float(np.median(seconds))


def prepare(case: Case) -> tuple[float, Turn]:
  """Seconds of `case.prepare`, and the function that takes a turn; calls it once."""
  began = time.perf_counter()
  call = case.prepare()
  seconds = time.perf_counter() - began
  call()
  return seconds, functools.partial(take_turn, call)


def measure(
  cases: Sequence[Case],
  rounds: int,
  log: Callable[[str], None] = lambda text: None,
  prepare: Callable[[Case], tuple[float, Turn]] = prepare,
) -> list[Result]:
  """Prepares all cases, then runs them `rounds` times in turns of `TURN_S`, every second round in reverse order."""
  results, turns = [Result(case) for case in cases], []
  for result in results:
    case = result.case
    try:
      result.compile_s, turn = prepare(case)
    except Exception as error:
      if not case.optional:
        raise
      result.error = getattr(error, 'kind', type(error).__name__)  # messages may contain paths
      continue
    turns.append((result, turn))
    log(f'{case.part}: {case.name}, {case.implementation} prepared in {result.compile_s:.1f} s')
  for number in range(rounds):
    log(f'{cases[0].part}: round {number + 1} of {rounds}')
    for result, turn in reversed(turns) if number % 2 else turns:
      result.seconds.append(turn(TURN_S))
  for result, _ in turns:
    case = result.case
    log(f'{case.part}: {case.name}, {case.implementation}: {1e3 * np.median(result.seconds):.4g} ms')
  turns.clear()
  gc.collect()
  return results


def ratios(result: Result, base: Result) -> Float64[np.ndarray, 'R']:
  """Seconds of a result over those of another in the same round."""
  return np.array(result.seconds) / np.array(base.seconds)


def rows(results: Sequence[Result], ceilings: Ceilings) -> list[dict[str, Any]]:
  """Rows of the report, one per case that ran.

  `ratio` is the median over the rounds of its time over that of focal_jax in the same round: 3 means three times as
  long; `ratio_range` are the smallest and the largest of them. `floor_s` is the longer of FLOPs and bytes over their
  ceilings, `over_floor` the median time over it.
  """
  ours = {(r.case.part, r.case.name): r for r in results if r.case.implementation == OURS}
  found = []
  for result in results:
    case, seconds = result.case, np.array(result.seconds)
    if result.error:
      continue
    median = float(np.median(seconds))
    base = ours.get((case.part, case.name))
    ratio = ratio_range = None
    if case.implementation != OURS and base and len(base.seconds) == len(seconds):
      relative = ratios(result, base)
      ratio, ratio_range = float(np.median(relative)), [float(relative.min()), float(relative.max())]
    floors = []
    if case.flops:
      floors.append(case.flops / ceilings.flops_per_s)
    if case.bytes:
      floors.append(case.bytes / ceilings.bytes_per_s)
    floor = max(floors, default=None)
    found.append(
      {
        'part': case.part,
        'name': case.name,
        'implementation': case.implementation,
        'shape': case.shape,
        'compile_s': result.compile_s,
        'median_s': median,
        'fastest_s': float(seconds.min()),
        'slowest_s': float(seconds.max()),
        'seconds': [float(s) for s in seconds],
        'ratio': ratio,
        'ratio_range': ratio_range,
        'flops': case.flops,
        'bytes': case.bytes,
        'gflops_per_s': case.flops / median / 1e9 if case.flops else None,
        'gbytes_per_s': case.bytes / median / 1e9 if case.bytes else None,
        'floor_s': floor,
        'over_floor': median / floor if floor else None,
      }
    )
  return found


def compile_ahead(
  function: Callable, *arguments: Any, training: bool = False, options: Mapping[str, str] | None = None
) -> Call:
  """Compiles function(*arguments) with the backend's options for a prediction or a training step, and `options`, which
  replace them; calls wait for the device.
  """
  given, structure = jax.tree.flatten(arguments)  # flat arguments have less call overhead

  def flat(*given):
    return jax.tree.leaves(function(*jax.tree.unflatten(structure, given)))

  chosen = backend.compiler_options(training=training) | dict(options or {})
  compiled = jax.jit(flat, compiler_options=chosen).lower(*given).compile()
  return lambda: jax.block_until_ready(compiled(*given))


def size_in_bytes(*trees: Any) -> float:
  """Total size of all arrays, or of their shapes."""
  return float(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(trees)))


def min_traffic(function: Callable, *arguments: Any) -> float:
  """Bytes that function(*arguments) must read and return, once each."""
  returned = jax.eval_shape(lambda *arguments: jax.tree.leaves(function(*arguments)), *arguments)
  return size_in_bytes(arguments, returned)


def measure_ceilings(dtype: str, repeats: int = 5) -> Ceilings:
  """The best of several repeats, on JAX's default device, in the benchmarked type."""
  on_cpu = jax.default_backend() == 'cpu'
  side, copied = (2048, 2**26) if on_cpu else (8192, 2**30)
  x = jnp.ones((side, side), dtype)
  product = compile_ahead(jnp.matmul, x, x)
  scale = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place, because new memory has its own cost
  y = jax.block_until_ready(scale(jnp.zeros(copied // 4, jnp.float32)))
  products, copies = [], []
  product()
  for _ in range(repeats):
    began = time.perf_counter()
    product()
    middle = time.perf_counter()
    y = jax.block_until_ready(scale(y))
    products.append(middle - began)
    copies.append(time.perf_counter() - middle)
  return Ceilings(2.0 * side**3 / min(products), 2.0 * copied / min(copies))


def best(*ceilings: Ceilings) -> Ceilings:
  return Ceilings(max(c.flops_per_s for c in ceilings), max(c.bytes_per_s for c in ceilings))


def machine_facts() -> dict[str, Any]:
  """Facts that results depend on; nothing that identifies the machine."""
  facts = {'cpu': _cpu_model(), 'cores': _cores(), 'memory_gib': _memory_gib()}
  facts |= {'backend': jax.default_backend(), 'device': jax.devices()[0].device_kind, 'devices': jax.device_count()}
  facts['python'] = platform.python_version()
  for package in ('jax', 'flax', 'torch'):
    try:
      facts[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
      facts[package] = None
  return facts


def _cpu_model() -> str:
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  return models[0] if models else platform.machine()


def _cores() -> int | None:
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def _memory_gib() -> float | None:
  try:
    return round(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30, 1)
  except (AttributeError, ValueError, OSError):
    return None
