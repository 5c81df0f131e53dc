"""Sweeps: `python -m focal_jax.sweep --config=configs/ablations/X.py --workdir=DIR` trains the variants of a recipe.

The config file has, beside `get_config`, a function `sweep(add)`:

  def sweep(add):
    add({'model.detection': 'plane'}, label='2-D block only')
    stage = add(networks='depth', steps=add.config.steps // 2, report=False)
    add({'init.depth': stage.weights}, label='from a trained depth network')

`add` takes fields of the config with their values. `add.config` is the recipe as the command line has it; `.weights` is
what another variant trained, with the same seed; `report=False` trains a variant that is a step only. Each variant is
trained with seeds from the recipe's on, `--seeds` of them.

  DIR/NAME,seed=0/     a run of `focal_jax.train`, named by what it overrides
  DIR/logs/            what the runs say
  DIR/configs/         what they are trained with
  DIR/table.md, table.csv, plot.png    mean and spread over the seeds, at the last step
  DIR/runs.csv         a row a run

Finished runs are kept and interrupted ones go on, so that the same command may be given any number of times. Exit
status: 0; 1 if a run failed; 2 for bad input; 130 or 143 if interrupted.
"""

import contextlib
import copy
import csv
import dataclasses
import fcntl
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from focal_jax.errors import InputError, RunError, flag_message, one_line
from focal_jax.models.npz_file import load_weights
from focal_jax.writers import format_seconds, show_progress

log = logging.getLogger('focal_jax.sweep')  # `__name__` is another one when this is the program

SEEDS = 3
_LONGEST_NAME = 150  # characters; file systems allow 255, with what is added to it
_POLL_S = 0.1
_WEIGHTS, _METRICS, _CONFIG = 'weights.npz', 'metrics.jsonl', 'config.json'  # of a run of `focal_jax.train`
_VALIDATION = 'validation/'
_TITLES = {
  'mse': 'depth, MSE (focus range²)',
  'mae': 'depth, MAE (focus range)',
  'motion_px': 'motion error (px)',
  'unmoved_px': 'motion error of the crop alone (px)',
}
_SAME_FOR_ALL = ('unmoved_px',)  # not worth a picture

# --- What a sweep is made of


@dataclasses.dataclass(frozen=True)
class Weights:
  """The weights file of another variant's run with the same seed, as the value of a field."""

  variant: 'Variant'

  def __str__(self):
    return f'weights of {self.variant.label}'


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """Changes to the recipe; `name` is theirs, safe for files."""

  overrides: dict[str, Any]
  label: str
  name: str
  report: bool

  @property
  def weights(self) -> Weights:
    return Weights(self)

  @property
  def text(self) -> str:
    return ', '.join(f'{field}={value}' for field, value in self.overrides.items())


class Add:
  """The argument of `sweep(add)`; what it was called with is in `variants`."""

  def __init__(self, config: ConfigDict):
    self.config = FrozenConfigDict(config)
    self.variants: list[Variant] = []
    self._base = config

  def __call__(
    self, overrides: Mapping[str, Any] | None = None, /, *, label: str = '', report: bool = True, **more: Any
  ) -> Variant:
    """Declares a variant: fields, dotted where they are in sections, with their values; none: the recipe as it is.

    Args:
      label: what the table calls it; default: the overrides.
      report: whether it is in the table.

    Raises:
      InputError: a field that the config has not, a value of another type, or a variant that was declared before.
    """
    given = {**(overrides or {}), **more}
    config, values = copy.deepcopy(self._base), {}
    for field in sorted(given):
      if field == 'seed':
        raise InputError(f'{field} is {given[field]!r} in a variant, expected none: seeds are those of --seeds')
      value = given[field]
      if isinstance(value, Weights):
        if value.variant not in self.variants:
          raise InputError(f'{field} is the weights of a variant of another sweep, expected one of this sweep')
        override(config, field, '')
        values[field] = value
      else:
        values[field] = override(config, field, value)
    variant = Variant(values, '', variant_name(values), report)
    variant = dataclasses.replace(variant, label=label or variant.text or 'as it is')
    for other in self.variants:
      if other.name == variant.name or self._resolved(other) == self._resolved(variant):
        raise InputError(f"variant '{variant.label}' is the same as '{other.label}', expected each once")
      if other.label == variant.label:
        raise InputError(f"two variants have the label '{variant.label}', expected one of its own for each")
    self.variants.append(variant)
    return variant

  def _resolved(self, variant):
    config = copy.deepcopy(self._base)
    for field, value in variant.overrides.items():
      override(config, field, f'?{value.variant.name}' if isinstance(value, Weights) else value)
    return config.to_dict()


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A variant with a seed, in a folder of its own."""

  variant: Variant
  seed: int
  config: ConfigDict
  workdir: Path
  needs: tuple['Run', ...]  # whose weights it starts from

  @property
  def name(self) -> str:
    return self.workdir.name


def override(config: ConfigDict, field: str, value: Any) -> Any:
  """Sets a dotted field; returns the value as the config has it, an int for a float made one.

  Raises:
    InputError: there is no such field, or it has another type.
  """
  *sections, name = field.split('.')
  section = config
  for part in (*sections, name):
    if not isinstance(section, ConfigDict) or part not in section:
      raise InputError(f"no field '{field}' in the config; expected one of those in the config file")
    parent, section = section, section[part]
  if isinstance(section, ConfigDict):
    raise InputError(f"'{field}' is a section of the config, expected one of its fields: {', '.join(section)}")
  try:
    if None not in (section, value) and isinstance(section, bool) != isinstance(value, bool):  # a bool is an int
      raise TypeError
    parent[name] = value
  except TypeError:
    raise InputError(f'{field} is {value!r}, expected a value of type {type(section).__name__}') from None
  return parent[name]


def variant_name(overrides: Mapping[str, Any]) -> str:
  """Name for folders: the same for the same overrides in any order; letters, digits and `=,._+-~`."""
  name = ','.join(f'{field}={_value_name(overrides[field])}' for field in sorted(overrides)) or 'base'
  return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 9]}~{_digest(name)}'


def _value_name(value: Any) -> str:
  if isinstance(value, Weights):
    return value.variant.name.replace('=', '-').replace(',', '+')
  text = '+'.join(map(str, value)) if isinstance(value, tuple | list) else str(value)
  safe = re.sub(r'[^A-Za-z0-9._+-]+', '-', text)
  return safe if text and safe == text else f'{safe}~{_digest(repr(value))}'


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def declared_variants(config: ConfigDict, sweep: Callable[[Add], None]) -> list[Variant]:
  """What `sweep(add)` declares.

  Raises:
    InputError: see `Add`; or it declares nothing to report, or raises, with the line where it did.
  """
  add = Add(config)
  try:
    sweep(add)
  except InputError:
    raise
  except Exception as error:  # config files are programs
    frame = traceback.extract_tb(error.__traceback__)[1:2] or traceback.extract_tb(error.__traceback__)
    raise InputError(
      f'{frame[0].filename}, line {frame[0].lineno}: sweep(add) raised {type(error).__name__}: {one_line(error)}'
    ) from error
  if not any(variant.report for variant in add.variants):
    raise InputError('sweep(add) declares no variant for the table, expected at least one')
  return add.variants


def make_runs(config: ConfigDict, variants: Sequence[Variant], workdir: Path, seeds: int) -> list[Run]:
  """All variants with the first seed, then with the next; each after those that it needs."""
  if not isinstance(config.get('seed'), int):
    raise InputError('the config has no field seed, expected a whole number')
  runs = []
  for seed in range(config.seed, config.seed + seeds):
    by_variant = {}
    for variant in variants:
      run_config, needs = copy.deepcopy(config), []
      for field, value in variant.overrides.items():
        if isinstance(value, Weights):
          needs.append(by_variant[value.variant])
          value = str(needs[-1].workdir / _WEIGHTS)
        override(run_config, field, value)
      run_config.seed = seed
      by_variant[variant] = Run(variant, seed, run_config, workdir / f'{variant.name},seed={seed}', tuple(needs))
    runs += by_variant.values()
  return runs


# --- How far runs are


@dataclasses.dataclass(frozen=True)
class State:
  """How far a run is: `metrics` of the validation at its last step, or None; of a run that has begun, its step."""

  metrics: dict[str, float] | None = None
  step: int | None = None

  def describe(self, steps: int) -> str:
    if self.metrics is not None:
      return 'finished'
    return 'to do' if self.step is None else f'interrupted at step {self.step} of {steps}'


def find_state(run: Run) -> State:
  """Reads a run's folder.

  Raises:
    InputError: the folder is not a run's, or a run's of another config.
  """
  if not run.workdir.exists():
    return State()
  if not run.workdir.is_dir():
    raise InputError(f'{run.workdir}: is a file, expected the folder of a run or nothing')
  path = run.workdir / _CONFIG
  if not path.exists():
    if {entry.name for entry in run.workdir.iterdir()} - {_CONFIG + '.partial'}:  # of a run killed at its beginning
      raise InputError(f'{run.workdir}: not a folder of a run (it has no {_CONFIG}); expected one, or nothing')
    return State()
  try:
    found = json.loads(path.read_text())
  except ValueError:
    raise InputError(f'{path}: not the config of a run; move {run.workdir.name} away to train it anew') from None
  moved = [field for field, value in run.variant.overrides.items() if isinstance(value, Weights)]
  difference = _first_difference(found, _plain(run.config), moved)
  if difference:
    field, before, now = difference
    raise InputError(
      f'{run.workdir}: trained with {field} {before}, expected {now}; choose another --workdir, or move the folder away'
    )
  metrics = _last_validation(run.workdir / _METRICS, run.config.steps)
  steps = [int(entry.name) for entry in run.workdir.glob('checkpoints/*') if entry.name.isdecimal()]
  return State(metrics if (run.workdir / _WEIGHTS).exists() else None, max(steps, default=0))


def find_states(runs: Sequence[Run]) -> dict[Run, State]:
  """Of all runs.

  Raises:
    InputError: as `find_state`; or a run has begun with the weights of one that is not finished.
  """
  states = {run: find_state(run) for run in runs}
  for run in runs:
    unfinished = [need.name for need in run.needs if states[need].metrics is None]
    if states[run].step is not None and unfinished:
      raise InputError(f'{run.workdir}: began with weights of {unfinished[0]}, which is not finished; move it away')
  return states


def _last_validation(path: Path, step: int) -> dict[str, float] | None:
  """Metrics, by their names without `validation/`, of the newest line of that step that has some."""
  found = None
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      numbers = json.loads(line)
    except ValueError:  # a run was killed while it wrote it
      continue
    if isinstance(numbers, dict) and numbers.get('step') == step:
      metrics = {name: value for name, value in numbers.items() if name.startswith(_VALIDATION)}
      found = {name.removeprefix(_VALIDATION): value for name, value in metrics.items()} or found
  return found


def _plain(config: ConfigDict) -> dict[str, Any]:
  """As it is after a way through JSON."""
  try:
    return json.loads(json.dumps(config.to_dict()))
  except TypeError as error:
    raise InputError(
      f'the config does not fit into JSON ({one_line(error)}), expected numbers, text and tuples'
    ) from None


def _first_difference(found: Any, wanted: Any, moved: Sequence[str], field: str = '') -> tuple[str, str, str] | None:
  """Dotted field, what it was and what it is; None if there is none. Of `moved` fields, paths, only the ends count."""
  if isinstance(found, dict) and isinstance(wanted, dict):
    for name in [*wanted, *(name for name in found if name not in wanted)]:
      inner = f'{field}.{name}' if field else name
      if name not in wanted:
        return inner, repr(found[name]), 'no such field'
      if name not in found:
        return inner, 'not known', repr(wanted[name])
      difference = _first_difference(found[name], wanted[name], moved, inner)
      if difference:
        return difference
    return None
  if field in moved and Path(str(found)).parts[-2:] == Path(str(wanted)).parts[-2:]:
    return None
  return None if found == wanted else (field, repr(found), repr(wanted))


# --- Devices


@dataclasses.dataclass(frozen=True, eq=False)
class Device:
  """Where one run at a time is trained; the environment shows a process this device alone."""

  name: str
  environment: dict[str, str]


def make_devices(kind: str, names: Sequence[str]) -> list[Device]:
  """Devices of a kind as JAX calls it: gpu, tpu or cpu, of which there is one."""
  if kind == 'gpu':
    return [Device(f'GPU {name}', {'CUDA_VISIBLE_DEVICES': name}) for name in names]
  if kind == 'tpu':  # one chip a process, none of which knows of the others; not tried
    whole = {'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1', 'TPU_PROCESS_BOUNDS': '1,1,1'}
    ports = {name: str(8476 + index) for index, name in enumerate(names)}
    return [
      Device(
        f'TPU {name}',
        {
          **whole,
          'TPU_VISIBLE_CHIPS': name,
          'TPU_MESH_CONTROLLER_ADDRESS': f'localhost:{port}',
          'TPU_MESH_CONTROLLER_PORT': port,
        },
      )
      for name, port in ports.items()
    ]
  return [Device('CPU', {})]


_ASK = """
import json, jax
chips = {str(getattr(device, 'coords', device.id)) for device in jax.local_devices()}  # a TPU's may have two cores
print(json.dumps([jax.default_backend(), len(chips)]))
"""


def find_devices(chosen: Sequence[str] = ()) -> list[Device]:
  """The chosen GPUs or TPU chips, or all; else the CPU.

  Another process asks JAX for them: this one would take the accelerators, and its runs would find none.

  Raises:
    InputError: JAX does not start, or the choice makes no sense.
  """
  if len(set(chosen)) != len(chosen) or not all(chosen):
    raise InputError(f'--devices is {",".join(chosen)}, expected each device once')
  environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  answer = subprocess.run([sys.executable, '-c', _ASK], capture_output=True, text=True, check=False, env=environment)
  if answer.returncode:
    raise InputError(f'jax finds no devices: {_last_line(answer.stderr)}')
  kind, count = json.loads(answer.stdout.splitlines()[-1])
  if kind == 'cpu' and chosen:
    raise InputError(f'--devices is {",".join(chosen)}, but jax finds no GPU or TPU here')
  visible = os.environ.get('CUDA_VISIBLE_DEVICES') if kind == 'gpu' else None
  names = [name.strip() for name in visible.split(',')][:count] if visible else [str(index) for index in range(count)]
  return make_devices(kind, chosen or names)


# --- Running


@dataclasses.dataclass
class _Job:
  run: Run
  process: subprocess.Popen
  started: float  # on the monotonic clock, s

  @property
  def seconds(self) -> float:
    return time.monotonic() - self.started


class _Stop:
  """Takes note of SIGINT and SIGTERM, which runs then get, too."""

  def __init__(self):
    self.number, self.times = 0, 0

  def _note(self, number, _):
    self.number, self.times = self.number or number, self.times + 1

  def __enter__(self):
    self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)


def train_command(config: Path, workdir: Path) -> list[str]:
  """Trains one run, in a process of its own."""
  return [sys.executable, '-m', 'focal_jax.sweep', f'--train={config}', f'--workdir={workdir}']


def train_one(config: Path, workdir: Path) -> None:
  """What a sweep's process does: trains with a config of `DIR/configs`."""
  from focal_jax.train import train_and_evaluate

  def tuples(value):  # JSON has lists only, configs have tuples only
    if isinstance(value, dict):
      return {name: tuples(one) for name, one in value.items()}
    return tuple(tuples(one) for one in value) if isinstance(value, list) else value

  train_and_evaluate(ConfigDict(tuples(json.loads(config.read_text()))), workdir)


def run_sweep(
  config: ConfigDict,
  sweep: Callable[[Add], None],
  workdir: Path,
  *,
  title: str = 'sweep',
  seeds: int = SEEDS,
  devices: Sequence[Device] | None = None,
  chosen_devices: Sequence[str] = (),
  dry_run: bool = False,
  command: Callable[[Path, Path], list[str]] = train_command,
) -> int:
  """Trains what `sweep` declares, as far as it is not, and writes tables and plot; see the module.

  Args:
    config: the recipe.
    title: of table and plot.
    devices: default: `find_devices(chosen_devices)`, asked for if there is anything to train.
    dry_run: only says what there is to do.
    command: from the file with a run's config and its folder to the command that trains it.

  Returns:
    The exit status.

  Raises:
    InputError: bad variants, or a folder with something else or with runs of another recipe; before anything is
      written.
  """
  if seeds < 1:
    raise InputError(f'--seeds is {seeds}, expected at least 1')
  if workdir.exists() and not workdir.is_dir():
    raise InputError(f'{workdir}: is a file, expected a folder for the sweep')
  variants = declared_variants(config, sweep)
  runs = make_runs(config, variants, workdir, seeds)
  plain = {run: _plain(run.config) for run in runs}
  states = find_states(runs)
  if dry_run:
    for run in runs:
      print(f'{states[run].describe(run.config.steps):<12}  {run.name}')
    return 0

  if devices is None and any(states[run].metrics is None for run in runs):
    devices = find_devices(chosen_devices)
  with _locked(workdir) as lock:
    states = find_states(runs)  # another sweep may have been at work before
    to_do = [run for run in runs if states[run].metrics is None]
    log.info('%s: %d runs, %d of them finished', title, len(runs), len(runs) - len(to_do))
    failed, stopped_by = {}, 0
    if to_do:
      for folder in ('logs', 'configs'):
        (workdir / folder).mkdir(exist_ok=True)
      for run in to_do:
        _config_file(run).write_text(json.dumps(plain[run], indent=2) + '\n')
      failed, stopped_by = _train_all(runs, states, devices, command, lock)
      states = find_states(runs)
    missing = {run: failed.get(run, 'not finished') for run in runs if states[run].metrics is None}
    if len(missing) < len(runs):
      write_report(runs, states, workdir, title, missing)
      print((workdir / 'table.md').read_text())
      log.info('wrote %s and %s', workdir / 'table.md', workdir / 'plot.png')
  for run, reason in failed.items():
    where = f'; see {_log_file(run)}' if _log_file(run).exists() else ''
    print(f'{run.name}: {reason}{where}', file=sys.stderr)
  if stopped_by:
    print(f'interrupted, {len(runs) - len(missing)} of {len(runs)} runs finished; the same command goes on from here')
    return 128 + stopped_by
  return 1 if missing else 0


def _config_file(run: Run) -> Path:
  return run.workdir.parent / 'configs' / f'{run.name}.json'


def _log_file(run: Run) -> Path:
  return run.workdir.parent / 'logs' / f'{run.name}.txt'


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[int]:
  """Holds the sweep's folder; runs inherit the file, so that one that has outlived its sweep still holds it."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / 'lock').open('w')
  except OSError as error:
    raise InputError(f'{workdir}: cannot be written to ({error.strerror}), expected a writable folder') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(f'{workdir}: a sweep, or a run of one, is at work here; wait for it or end it') from None
    yield file.fileno()


def _train_all(
  runs: Sequence[Run],
  states: Mapping[Run, State],
  devices: Sequence[Device],
  command: Callable[[Path, Path], list[str]],
  lock: int,
) -> tuple[dict[Run, str], int]:
  """Trains the runs that are not finished, one a device at a time; returns why those failed that did, and the number of
  the signal that stopped it, or 0.
  """
  workdir = runs[0].workdir.parent
  waiting = [run for run in runs if states[run].metrics is None]
  done = {run for run in runs if states[run].metrics is not None}
  kept, failed, jobs, speeds = len(done), {}, {}, []
  seconds = _read_seconds(workdir)
  # Each run compiles what those with the same shapes compile.
  cache = {'JAX_COMPILATION_CACHE_DIR': str((workdir / 'compilation_cache').resolve()), **os.environ}

  def start(run, device):
    steps = run.config.steps
    where = states[run].describe(steps)
    log.info('%s: starts on %s%s', run.name, device.name, f', {where}' if states[run].step else '')
    with _log_file(run).open('a') as file:
      file.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S")}, on {device.name}\n')
      file.flush()
      process = subprocess.Popen(
        command(_config_file(run), run.workdir),
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={**cache, **device.environment},
        pass_fds=(lock,),
        start_new_session=True,  # a terminal's Ctrl-C is the sweep's, which hands it on
      )
    return _Job(run, process, time.monotonic())

  def end(job):
    run, status = job.run, job.process.returncode
    seconds[run.name] = seconds.get(run.name, 0.0) + job.seconds
    _write_whole(workdir / 'seconds.json', json.dumps(seconds, indent=2) + '\n')
    if status == 0 and find_state(run).metrics is not None:
      done.add(run)
      speeds.append((job.seconds, _work(run, states[run])))
      left = _time_left(speeds, [(one, states[one]) for one in waiting], jobs.values(), states, len(devices))
      log.info('%s: finished in %s, %d of %d%s', run.name, format_seconds(job.seconds), len(done), len(runs), left)
    elif stop.times:
      log.info('%s: stopped', run.name)
    else:
      what = f'ended with status {status}' if status else 'ended without a validation at its last step'
      failed[run] = f'failed: {what}: {_last_line(_log_file(run).read_text(errors="replace"))}'
      log.info('%s: %s', run.name, failed[run])

  told = 0
  with _Stop() as stop:
    try:
      while jobs or waiting:
        for run in list(waiting):
          blocked = next((need for need in run.needs if need in failed), None)
          if blocked is not None:
            waiting.remove(run)
            failed[run] = f'not run: it needs {blocked.name}'
        for device in devices:
          run = next((run for run in waiting if done.issuperset(run.needs)), None)
          if device not in jobs and run is not None and not stop.times:
            waiting.remove(run)
            jobs[device] = start(run, device)
        time.sleep(_POLL_S)
        if stop.times > told:
          if not told:
            log.info('stopping: runs write what they have; once more ends them at once')
          for job in jobs.values():
            with contextlib.suppress(ProcessLookupError):
              os.killpg(job.process.pid, signal.SIGKILL) if told else job.process.terminate()
          told = stop.times
          waiting.clear()
        for device in [device for device, job in jobs.items() if job.process.poll() is not None]:
          end(jobs.pop(device))
    finally:
      for job in jobs.values():  # this process itself has failed
        job.process.kill()
        job.process.wait()
  if not stop.times and kept < len(runs):
    log.info('%d of %d runs finished', len(done), len(runs))
  return failed, stop.number


def _work(run: Run, state: State) -> int:
  """Steps that are to do; at least one, for what a run without any costs."""
  return max(run.config.steps - (state.step or 0), 1)


def _time_left(speeds, waiting, jobs, states, devices: int) -> str:
  """From the time that runs of this call took a step."""
  a_step = sum(taken for taken, _ in speeds) / sum(work for _, work in speeds)
  left = sum(a_step * _work(run, state) for run, state in waiting)
  left += sum(max(a_step * _work(job.run, states[job.run]) - job.seconds, 0.0) for job in jobs)
  return f', about {format_seconds(left / devices)} left' if waiting or jobs else ''


def _read_seconds(workdir: Path) -> dict[str, float]:
  """Of each run, over all its beginnings."""
  path = workdir / 'seconds.json'
  return json.loads(path.read_text()) if path.exists() else {}


def _write_whole(path: Path, text: str) -> None:
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text)
  partial.replace(path)


def _last_line(text: str) -> str:
  return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), 'no message')


# --- Tables and plot


@dataclasses.dataclass(frozen=True)
class Row:
  """A variant's runs that are finished: values of each metric, in the order of the seeds."""

  variant: Variant
  seeds: list[int]
  values: dict[str, list[float]]
  parameters: int | None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
  """Mean, and sample standard deviation, which one value has not."""
  return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def format_value(values: Sequence[float], expected: int) -> str:
  """0.01230 ± 0.00056; with their number where it is not the expected one: a value that was not finite is not there."""
  if not values:
    return ''
  mean, spread = mean_and_spread(values)
  text = f'{mean:#.4g}'.rstrip('.') + ('' if spread is None else f' ± {spread:#.2g}'.rstrip('.'))
  return text if len(values) == expected else f'{text} ({len(values)} of {expected})'


def write_report(
  runs: Sequence[Run], states: Mapping[Run, State], workdir: Path, title: str, missing: Mapping[Run, str]
) -> None:
  """table.md, table.csv, runs.csv and plot.png, of the runs that are finished."""
  finished = [run for run in runs if states[run].metrics is not None]
  parameters = {run: _count_parameters(run.workdir / _WEIGHTS) for run in finished}
  names = list(dict.fromkeys(name for run in finished if run.variant.report for name in states[run].metrics))
  rows = []
  for variant in dict.fromkeys(run.variant for run in runs if run.variant.report):
    own = [run for run in finished if run.variant is variant]
    metrics = [states[run].metrics for run in own]
    values = {name: [one[name] for one in metrics if name in one] for name in names}
    rows.append(Row(variant, [run.seed for run in own], values, parameters[own[0]] if own else None))

  seeds = sorted({run.seed for run in runs})
  _write_whole(workdir / 'table.md', markdown_table(rows, names, title, seeds, missing))
  header = ['variant', 'overrides', 'seeds', 'parameters']
  header += [f'{name}_{statistic}' for name in names for statistic in ('mean', 'sd')]
  lines = []
  for row in rows:
    numbers = [mean_and_spread(row.values[name]) if row.values[name] else (None, None) for name in names]
    line = [
      row.variant.label,
      row.variant.text,
      len(row.seeds),
      row.parameters,
      *(one for pair in numbers for one in pair),
    ]
    lines.append(line)
  _write_csv(workdir / 'table.csv', header, lines)
  seconds, everything = (
    _read_seconds(workdir),
    list(dict.fromkeys(name for run in finished for name in states[run].metrics)),
  )
  _write_csv(
    workdir / 'runs.csv',
    ['variant', 'overrides', 'seed', 'step', *everything, 'seconds', 'parameters', 'folder'],
    [
      [
        *(run.variant.label, run.variant.text, run.seed, run.config.steps),
        *(states[run].metrics.get(name) for name in everything),
        *(round(seconds[run.name], 1) if run.name in seconds else None, parameters[run], run.name),
      ]
      for run in finished
    ],
  )
  if names:
    draw_plot(workdir / 'plot.png', [row for row in rows if row.seeds], names, title)


def markdown_table(
  rows: Sequence[Row], names: Sequence[str], title: str, seeds: Sequence[int], missing: Mapping[Run, str]
) -> str:
  """A row for each variant, a column for each metric; below it, the runs that are missing."""
  header = ['variant', 'seeds', 'parameters', *(_TITLES.get(name, name) for name in names)]
  lines = [f'# {title}', '', '| ' + ' | '.join(header) + ' |', '| --- |' + ' ---: |' * (len(header) - 1)]
  for row in rows:
    count = str(len(row.seeds)) if len(row.seeds) == len(seeds) else f'{len(row.seeds)} of {len(seeds)}'
    cells = [row.variant.label.replace('|', '\\|'), count, '' if row.parameters is None else f'{row.parameters:,}']
    cells += [format_value(row.values[name], len(row.seeds)) for name in names]
    lines.append('| ' + ' | '.join(cells) + ' |')
  spread = ' ± sample standard deviation' if len(seeds) > 1 else ''
  named = f'seeds {seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else f'seed {seeds[0]}'
  lines += ['', f'Validation at the last step, mean{spread}, {named}.']
  if missing:
    lines += ['', 'Missing:', '', *(f'* {run.name}: {reason}' for run, reason in missing.items())]
  return '\n'.join(lines) + '\n'


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)


def _count_parameters(path: Path) -> int | None:
  """None where the file cannot be read."""
  try:
    variables, _ = load_weights(path)
  except (InputError, ValueError, zipfile.BadZipFile):
    return None

  def count(tree):
    return sum(map(count, tree.values())) if isinstance(tree, dict) else int(tree.size)

  return count(variables.get('params', {}))


def draw_plot(path: Path, rows: Sequence[Row], names: Sequence[str], title: str) -> None:
  """A panel for each metric: means with their spread and the single seeds; over the number, where variants are numbers
  of one field, else a line a variant.
  """
  names = [name for name in names if name not in _SAME_FOR_ALL] or names
  field, numbers = _numbers(rows)
  labels = [textwrap.fill(row.variant.label, 28, break_on_hyphens=False, break_long_words=False) for row in rows]
  if field:
    size = (4.2 * len(names), 3.6)
  else:
    size = (2.2 + 3.2 * len(names), 1.5 + sum(0.22 + 0.2 * (label.count('\n') + 1) for label in labels))
  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(1, len(names), squeeze=False, sharey=not field)[0]
  for name, axis in zip(names, axes, strict=True):
    places = numbers if field else range(len(rows))
    shown = [
      (place, row.values[name]) for place, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
    ]
    shown = [(place, values) for place, values in shown if values]
    dots = [(place, value) for place, values in shown for value in values]
    means = [(place, *mean_and_spread(values)) for place, values in shown]
    at, mean = [place for place, _, _ in means], [value for _, value, _ in means]
    spread = [0.0 if value is None or math.isnan(value) else value for _, _, value in means]
    many = any(len(values) > 1 for _, values in shown)
    style = {'color': 'C0', 'markersize': 6, 'capsize': 4, 'zorder': 3}
    dot = {'s': 14, 'color': '0.55', 'linewidths': 0, 'zorder': 4, 'label': 'one seed'}
    if field:
      axis.errorbar(at, mean, yerr=spread if many else None, fmt='o-', label='mean ± sd', **style)
      if many:
        beside = offset_copy(axis.transData, figure, x=7, units='points')  # of the bar
        axis.scatter(*zip(*dots, strict=True), transform=beside, **dot)
      axis.set_xticks(numbers, [f'{number:g}' for number in numbers])
      axis.set_xlabel(field)
      axis.set_ylabel(_TITLES.get(name, name))
    else:
      axis.errorbar(mean, at, xerr=spread if many else None, fmt='o', label='mean ± sd', **style)
      if many:
        below = offset_copy(axis.transData, figure, y=-7, units='points')
        axis.scatter([value for _, value in dots], [place for place, _ in dots], transform=below, **dot)
      axis.set_yticks(range(len(rows)), labels)
      axis.set_ylim(len(rows) - 0.5, -0.5)
      axis.set_xlabel(_TITLES.get(name, name))
      axis.locator_params(axis='x', nbins=4)
    axis.grid(color='0.9')
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
  if many:
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc='outside lower right', ncols=2, fontsize=8, frameon=False)
  figure.suptitle(title, fontsize=11)
  figure.savefig(path, dpi=150)


def _numbers(rows: Sequence[Row]) -> tuple[str, list[float]]:
  """The one field that all variants override with a number, and the numbers; '' if it is not so."""
  overrides = [list(row.variant.overrides.items()) for row in rows]
  pairs = [one[0] for one in overrides if len(one) == 1]
  numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in pairs)
  if len(pairs) < len(rows) or len(rows) < 2 or len({field for field, _ in pairs}) > 1 or not numeric:
    return '', []
  return pairs[0][0], [value for _, value in pairs]


# --- Command line


def _load_sweep(path: str) -> Callable[[Add], None]:
  """The function `sweep` of a config file; a variant may follow the file's name."""
  path = path.split(':', 1)[0]
  specification = importlib.util.spec_from_file_location('sweep_config', path)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  if not callable(getattr(module, 'sweep', None)):
    raise InputError(f'{path}: has no function sweep(add), expected one as in configs/ablations')
  return module.sweep


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise InputError(f'unexpected argument {argv[1]!r}; expected flags only, see --help')
  show_progress()
  options = flags.FLAGS
  if options.workdir is None:
    raise InputError('expected --workdir')
  if options.train is not None:
    train_one(Path(options.train), Path(options.workdir))
    return 0
  if options.config is None:
    raise InputError('expected --config')
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  return run_sweep(
    options.config,
    _load_sweep(path),
    Path(options.workdir),
    title=path,
    seeds=options.seeds,
    chosen_devices=options.devices,
    dry_run=options.dry_run,
  )


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; whatever is wrong with them, or with the config file, becomes one line."""
  try:
    rest = flags.FLAGS(argv)
    if flags.FLAGS.config is not None:
      flags.FLAGS.config.to_dict()  # a file that could not be loaded only says so when it is used
    return rest
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    raise InputError(flag_message(error)) from None


def run() -> None:
  """Entry point: an InputError or RunError is printed as one line and exits with its status."""
  # Here and not on import: other programs have a --config too.
  config_flags.DEFINE_config_file(
    'config', None, 'Recipe with a function sweep(add), of configs/ablations or of yours.'
  )
  flags.DEFINE_string('workdir', None, 'Folder of the sweep; made, or continued.')
  flags.DEFINE_integer('seeds', SEEDS, 'Runs of each variant, with seeds from that of the config on.')
  flags.DEFINE_list('devices', [], 'Numbers of the GPUs or TPU chips to use. Default: all.')
  flags.DEFINE_bool('dry_run', False, 'Only list the runs and how far they are.')
  flags.DEFINE_string('train', None, "For the sweep's own processes: the file with the config to train --workdir with.")
  try:
    app.run(main, flags_parser=_parse)
  except (InputError, RunError) as error:
    print(f'focal_jax.sweep: error: {error}', file=sys.stderr)
    sys.exit(error.status)
  except KeyboardInterrupt:  # while there was no run to hand it on to
    sys.exit(130)


if __name__ == '__main__':
  run()
