"""`focal-jax sweep --config=configs/ablations/X.py --workdir=DIR` trains the variants of a recipe.

In addition to `get_config`, the config file has a function `sweep(add)`:

  def sweep(add):
    add({'model.depth.detection': 'plane'}, label='2-D block only')
    stage = add(networks='depth', steps=add.config.steps // 2, report=False)
    add({'init.depth': stage.weights}, label='from a trained depth network')

`add` takes config fields with their values. `add.config` is the recipe with the flags of the command line applied.
`.weights` stands for the weights that another variant trains with the same seed. `report=False` leaves a variant out of
the table, for intermediate stages. Each variant is trained with `--seeds` consecutive seeds, from the recipe's.

  DIR/NAME,seed=0/     a run of `focal_jax.training.loop`, named by its overrides
  DIR/logs/            output of the runs
  DIR/configs/         configs of the runs
  DIR/table.md, table.csv, plot.png    mean and spread over the seeds, at the last step
  DIR/runs.csv         one row per run

The same command again keeps finished runs and continues interrupted ones. Exit status: 0; 1 if a run
failed; 2 for bad input; 130 or 143 if interrupted.
"""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from focal_jax.errors import InputError
from focal_jax.files.outputs import write_whole
from focal_jax.sweeps.devices import Device, find_devices, last_line
from focal_jax.sweeps.tables import write_report
from focal_jax.sweeps.variants import (
  Add,
  Run,
  State,
  declared_variants,
  find_state,
  find_states,
  make_runs,
  plain_config,
)
from focal_jax.training.writers import format_seconds

try:
  import fcntl
except ImportError:  # Windows: nothing keeps two sweeps apart
  fcntl = None

log = logging.getLogger(__name__)

SEEDS = 3
_POLL_S = 0.1


@dataclasses.dataclass
class _Job:
  run: Run
  process: subprocess.Popen
  started: float  # on the monotonic clock, s

  @property
  def seconds(self) -> float:
    return time.monotonic() - self.started


class _Stop:
  """Records SIGINT and SIGTERM, which are then forwarded to the runs."""

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
  """The command that trains one run in its own process."""
  return [sys.executable, '-m', 'focal_jax.sweeps.train_one', str(config), str(workdir)]


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
  """Trains the runs declared by `sweep` that are not finished, and writes tables and plot; see the module.

  Args:
    config: the recipe.
    sweep: declares the variants.
    workdir: folder of the sweep.
    seeds: number of seeds.
    title: of table and plot.
    devices: default: `find_devices(chosen_devices)`, called if there is anything to train.
    chosen_devices: numbers of the GPUs or TPU chips to use; empty: all.
    dry_run: only print what there is to do.
    command: returns the command that trains a run, from the file with its config and its folder.

  Returns:
    The exit status.

  Raises:
    InputError: invalid variants, or a folder with something else or with runs of another recipe; before anything is
      written.
  """
  if seeds < 1:
    raise InputError(f'--seeds is {seeds}, expected at least 1')
  if workdir.exists() and not workdir.is_dir():
    raise InputError(f'{workdir}: is a file, expected a folder for the sweep')
  variants = declared_variants(config, sweep)
  runs = make_runs(config, variants, workdir, seeds)
  plain = {run: plain_config(run.config) for run in runs}
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
      write_report(runs, states, workdir, title, missing, _read_seconds(workdir))
      print((workdir / 'table.md').read_text(encoding='utf-8'))
      log.info('wrote %s and %s', workdir / 'table.md', workdir / 'plot.png')
  for run, reason in failed.items():
    where = f'; see {_log_file(run)}' if _log_file(run).exists() else ''
    print(f'{run.name}: {reason}{where}', file=sys.stderr)
  if stopped_by:
    print(f'interrupted, {len(runs) - len(missing)} of {len(runs)} runs finished; the same command continues from here')
    return 128 + stopped_by
  return 1 if missing else 0


def _config_file(run: Run) -> Path:
  return run.workdir.parent / 'configs' / f'{run.name}.json'


def _log_file(run: Run) -> Path:
  return run.workdir.parent / 'logs' / f'{run.name}.txt'


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[int]:
  """Locks the sweep's folder; runs inherit the file, so that a run that outlives its sweep still holds the lock."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / 'lock').open('w')
  except OSError as error:
    raise InputError(f'{workdir}: cannot be written to ({error.strerror}), expected a writable folder') from error
  with file:
    try:
      if fcntl is not None:
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
  """Trains the unfinished runs, one per device at a time; returns the reasons of failed runs, and the number of the
  signal that stopped it, or 0.
  """
  workdir = runs[0].workdir.parent
  waiting = [run for run in runs if states[run].metrics is None]
  done = {run for run in runs if states[run].metrics is not None}
  kept, failed, jobs, speeds = len(done), {}, {}, []
  seconds = _read_seconds(workdir)

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
        env={**os.environ, **device.environment},
        pass_fds=(lock,) if fcntl is not None else (),
        start_new_session=True,  # a terminal's Ctrl-C is the sweep's, which hands it on
      )
    return _Job(run, process, time.monotonic())

  def end(job):
    run, status = job.run, job.process.returncode
    seconds[run.name] = seconds.get(run.name, 0.0) + job.seconds
    write_whole(workdir / 'seconds.json', json.dumps(seconds, indent=2) + '\n')
    if status == 0 and find_state(run).metrics is not None:
      done.add(run)
      speeds.append((job.seconds, _work(run, states[run])))
      left = _time_left(speeds, [(one, states[one]) for one in waiting], jobs.values(), states, len(devices))
      log.info('%s: finished in %s, %d of %d%s', run.name, format_seconds(job.seconds), len(done), len(runs), left)
    elif stop.times:
      log.info('%s: stopped', run.name)
    else:
      what = f'ended with status {status}' if status else 'ended without a validation at its last step'
      failed[run] = f'failed: {what}: {last_line(_log_file(run).read_text(errors="replace"))}'
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
            log.info('stopping: runs save their state; press again to end them at once')
          for job in jobs.values():
            with contextlib.suppress(ProcessLookupError):
              _kill(job.process) if told else job.process.terminate()
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


def _kill(process: subprocess.Popen) -> None:
  """Kills a process and those that it started, on systems with process groups."""
  if hasattr(os, 'killpg'):
    os.killpg(process.pid, signal.SIGKILL)
  else:
    process.kill()


def _work(run: Run, state: State) -> int:
  """Number of remaining steps; at least one, which stands for the overhead of a run."""
  return max(run.config.steps - (state.step or 0), 1)


def _time_left(speeds, waiting, jobs, states, devices: int) -> str:
  """Estimate from the time per step of the runs in this call; empty if none of them says much about those to come."""
  works = [_work(run, state) for run, state in waiting]
  running = [(_work(job.run, states[job.run]), job.seconds) for job in jobs]
  longest = max(works + [work for work, _ in running], default=0)
  # Compilation and validation take most of the time of a run of few steps.
  speeds = [(taken, work) for taken, work in speeds if work >= longest / 10]
  if not longest or not speeds:
    return ''
  a_step = sum(taken for taken, _ in speeds) / sum(work for _, work in speeds)
  left = a_step * sum(works) + sum(max(a_step * work - taken, 0.0) for work, taken in running)
  return f', about {format_seconds(left / devices)} left'


def _read_seconds(workdir: Path) -> dict[str, float]:
  """Total run time of each run, including earlier calls."""
  path = workdir / 'seconds.json'
  return json.loads(path.read_text()) if path.exists() else {}


def load_sweep(path: str) -> Callable[[Add], None]:
  """The function `sweep` of a config file; a variant may follow the file's name."""
  path = path.partition(':')[0]
  specification = importlib.util.spec_from_file_location('sweep_config', path)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  if not callable(getattr(module, 'sweep', None)):
    raise InputError(f'{path}: has no function sweep(add), expected one as in configs/ablations')
  return module.sweep
