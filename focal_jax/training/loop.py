"""Training: `train_and_evaluate(config, workdir)` runs a config to its last step, continuing an earlier run."""

import collections
import contextlib
import logging
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from focal_jax import backend, losses
from focal_jax.config import check_fields
from focal_jax.data.sources import parse_sources
from focal_jax.errors import InputError, RunError, Stopped, disk_full
from focal_jax.files.shipped import shipped_file
from focal_jax.losses import LossSettings, loss_settings
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.npz_file import check_weights, load_weights, save_weights
from focal_jax.models.registry import complete, make_model
from focal_jax.stack import FocalStack
from focal_jax.training import parallel
from focal_jax.training.checkpoints import Checkpoints, claim_workdir, record_config
from focal_jax.training.data import TrainingData
from focal_jax.training.optimizer import make_optimizer, make_schedule
from focal_jax.training.parallel import Devices
from focal_jax.training.signals import StopSignals
from focal_jax.training.step import StepSettings, TrainState, averaged_variables, init_state, make_train_step
from focal_jax.training.validation import Validation
from focal_jax.training.writers import Progress, Writer, memory_gb

log = logging.getLogger(__name__)

WEIGHTS_FILE, BEST_FILE = 'weights.npz', 'best.npz'


def train_and_evaluate(config: ConfigDict, workdir: str | Path, profile: tuple[int, int] | None = None) -> Path:
  """Trains to `config.steps` on all devices of all processes; returns the weights file, `workdir`/weights.npz (flat,
  float32).

  Also writes best.npz (the weights with the lowest `config.best_metric`), config.json, checkpoints, metrics.jsonl,
  TensorBoard files and validation pictures. A second call on the same folder continues from the newest checkpoint, with
  the data and random numbers of an uninterrupted run.

  Args:
    config: a recipe, see `focal_jax.config`.
    workdir: folder of the run; created if it does not exist.
    profile: first and last step of a trace for `jax.profiler`, written to the folder `profile`.

  Raises:
    InputError: an invalid config value, or a folder of another model; before anything is written.
    RunError: the disk is full, or too many consecutive steps were not finite. The run can be continued.
    Stopped: SIGTERM or SIGINT was received; a checkpoint was written first.
  """
  backend.keep_freed_memory()
  workdir = Path(workdir)
  devices = Devices(config.parallel)
  _check(config, devices)
  model = model_of(config)
  loss = loss_settings(config.loss)
  settings = StepSettings(config.networks, loss, config.accumulate, float(config.ema_decay))
  schedule = make_schedule(config.optimizer, config.steps)
  tx = make_optimizer(config.optimizer)
  data = TrainingData(config, devices)
  if config.networks == 'alignment' and not data.motion_known:
    raise InputError(
      f"networks is 'alignment', but the motion is not known in all of data.source '{config.data.source}'"
    )
  _check_trained(config.networks, loss, data.motion_known)
  validation = Validation(config, model, devices, workdir)
  variables = initial_variables(model, config)
  if config.networks != 'alignment':
    _check_loss(model, variables, data.example(), loss)
  state = init_state(variables, tx, settings, config.seed, schedule)
  train_step = devices.run(make_train_step(model, tx, data.make_batch, settings), outputs=(False, False), training=True)

  with _disk_errors(workdir), StopSignals() as stop, contextlib.ExitStack() as opened:
    if jax.process_index() == 0:
      claim_workdir(workdir, config.to_dict())
    run = _Run(config, workdir, state, stop, opened)
    run.go(devices, train_step, data, validation, profile)
    return run.finish()


class _Run:
  """State of a run, and its output. Only the first process writes."""

  def __init__(
    self, config: ConfigDict, workdir: Path, state: TrainState, stop: StopSignals, opened: contextlib.ExitStack
  ):
    """Replaces `state` by the newest checkpoint, if there is one; files are closed with `opened`."""
    self._config, self._workdir, self._stop = config, workdir, stop
    self._schedule = jax.device_get(state.schedule)  # a copy: the first step reuses the memory of the state
    saved, self._checkpoints, self._writer = state.saved(), None, None
    # stacks: position in the data; validated: last step whose validation is done; best: its step and value; unlogged:
    # number of steps since the last line of metrics, and the sums of their metrics.
    note = {'stacks': 0, 'validated': None, 'best': None, 'unlogged': (0, {}), 'config': None}
    if jax.process_index() == 0:
      self._checkpoints = opened.enter_context(contextlib.closing(Checkpoints(workdir, config.keep_checkpoints)))
      restored = self._checkpoints.restore(saved)
      if restored is not None:
        saved, note = restored[0], note | restored[1]  # checkpoints of earlier versions have fewer entries
        log.info('continuing from step %d', saved.step)
      record_config(workdir, config.to_dict())
      self._writer = opened.enter_context(contextlib.closing(Writer(workdir, int(saved.step))))
    saved, self._note = parallel.from_first_process(saved, note)
    self._state = TrainState.of(saved, self._schedule)
    self._note['config'] = config.to_dict()
    # All data used for the weights, because a run may continue with other data.
    self._note['data'] = sorted({*self._note.get('data', ()), *data_names(config)})
    self._step = int(self._state.step)

  def go(
    self,
    devices: Devices,
    train_step: Any,
    data: TrainingData,
    validation: Validation,
    profile: tuple[int, int] | None,
  ) -> None:
    """Runs the steps up to the last one of the config.

    Raises:
      Stopped: a signal was received; the state is saved.
    """
    config, first = self._config, self._step
    # In the form that the step returns; otherwise its second call would compile again.
    self._state = devices.replicate(self._state)
    inputs = data.inputs(math.ceil(self._note['stacks'] / config.batch_size))
    progress = Progress(first, config.steps)
    # On accelerators the next step starts before the metrics of this one are fetched. More steps in flight can deadlock
    # several devices on a CPU.
    unread, lag = collections.deque(), int(devices.platform != 'cpu')

    def read(lag=0):
      while len(unread) > lag:
        self._report(*unread.popleft(), progress)

    if self._is_due(config.validation_every) and self._note['validated'] != self._step:
      self._validate(validation)
    if self._step < config.steps:
      log.info('compiling the training step for %d device(s)', devices.count)
    trace = contextlib.ExitStack()
    while self._step < config.steps and not self._stop.requested(self._step):
      if profile and self._step + 1 == profile[0]:
        trace.enter_context(jax.profiler.trace(str(self._workdir / 'profile')))
      self._state, metrics = train_step(self._state, next(inputs))
      self._step += 1
      self._note['stacks'] += config.batch_size
      unread.append((self._step, metrics))
      if self._step == first + 1:
        read()
        progress = Progress(self._step, config.steps)  # compilation is over
      read(lag)
      if profile and self._step == profile[1]:
        read()
        trace.close()
      if self._is_due(config.validation_every):
        read()
        self._validate(validation)
      if self._is_due(config.checkpoint_every):
        read()
        self._save()
      if self._is_due(config.validation_every) or self._is_due(config.checkpoint_every):
        progress.resume(self._step)
    read()
    trace.close()
    self._save()
    if self._checkpoints:
      self._checkpoints.wait()
    if self._step < config.steps or self._note['validated'] != self._step:
      name = signal.Signals(self._stop.signal).name
      raise Stopped(
        f'{self._workdir}: stopped by {name} after step {self._step} of {config.steps}, which is saved; the same '
        'command continues from there',
        self._stop.signal,
      )

  def _is_due(self, every: int) -> bool:
    return self._step == self._config.steps or (self._step > 0 and self._step % every == 0)

  def _report(self, step: int, metrics: Any, progress: Progress) -> None:
    """Waits for the metrics of a step, and when due logs their means over the steps since the last line, skipped ones
    left out.

    Raises:
      RunError: too many consecutive steps were not finite.
    """
    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
    config, in_row = self._config, int(metrics.pop('skipped_in_row'))
    if in_row:
      log.warning('step %d was skipped: loss %g, gradient norm %g', step, metrics['loss'], metrics['gradient_norm'])
    if in_row >= config.max_skipped:
      raise RunError(
        f'{self._workdir}: the loss or gradient of {in_row} steps in a row, up to step {step}, was not finite '
        '(max_skipped); none of them changed the weights. A lower optimizer.learning_rate or optimizer.clip_norm helps'
      )
    skipped = metrics.pop('skipped')
    count, sums = self._note['unlogged']
    if not in_row:
      count, sums = count + 1, {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
    due = step % config.log_every == 0 or step == config.steps
    self._note['unlogged'] = (0, {}) if due else (count, sums)
    if not due:
      return
    if count:
      metrics = {name: total / count for name, total in sums.items()}
    metrics['skipped'] = skipped
    seconds, taken = progress.seconds_per_step(step), step - 1 - int(skipped)
    first_of_update = taken - taken % config.optimizer.steps_per_update
    rates = {'learning_rate': float(self._schedule(first_of_update)), 'step_seconds': seconds}
    rates |= {'stacks_per_second': config.batch_size / seconds, **memory_gb()}
    numbers = ', '.join(f'{name} {value:.4g}' for name, value in (metrics | rates).items())
    log.info('step %d/%d: %s, %s left', step, config.steps, numbers, progress.time_left(step))
    if self._writer:
      self._writer.write_scalars(step, metrics | rates)

  def _validate(self, validation: Validation) -> None:
    # All processes take part and must stop together, which they agree on only between steps.
    alone = jax.process_count() == 1
    result = validation(self._state, self._step, lambda: alone and self._stop.requested(self._step))
    if result is None:
      return  # told to stop: the validation is repeated when the run continues
    scalars, picture = result
    self._note['validated'] = self._step
    log.info('validation at step %d: %s', self._step, ', '.join(f'{n} {v:.4g}' for n, v in scalars.items()))
    self._write_weights(WEIGHTS_FILE)
    value, best = scalars[f'validation/{self._config.best_metric}'], self._note['best']
    if math.isfinite(value) and (best is None or value < best['value']):
      self._note['best'] = {'step': self._step, 'value': value}
      self._write_weights(BEST_FILE)
    if self._writer:
      self._writer.write_scalars(self._step, scalars)
      self._writer.write_image(self._step, 'validation', picture)

  def _save(self) -> None:
    if self._checkpoints:
      self._checkpoints.save(self._step, self._state.saved(), self._note)

  def _write_weights(self, name: str) -> Path:
    path, model = self._workdir / name, self._config.model.to_dict()
    if jax.process_index() == 0:
      data = self._note['data']
      description = {'model': complete(model), 'steps': self._step, 'data': data}
      save_weights(path, jax.device_get(averaged_variables(self._state)), description)
    return path

  def finish(self) -> Path:
    path = self._write_weights(WEIGHTS_FILE)
    if best := self._note['best']:
      metric = self._config.best_metric
      log.info('best %s %.4g at step %d: %s', metric, best['value'], best['step'], self._workdir / BEST_FILE)
    log.info('wrote %s', path)
    return path


@contextlib.contextmanager
def _disk_errors(workdir: Path) -> Iterator[None]:
  """Turns errors of a full disk into one line."""
  try:
    yield
  except OSError as error:
    if (reason := disk_full(error)) is None:
      raise
    raise RunError(
      f'{workdir}: cannot be written ({reason}); the checkpoints there are intact: make room and start again'
    ) from error


def _check(config: ConfigDict, devices: Devices) -> None:
  """Raises InputError if fields that no other part of the run checks are invalid."""
  check_fields(config)
  choices = {'networks': ('both', 'depth', 'alignment'), 'compute_dtype': ('float32', 'bfloat16')}
  for field, allowed in (choices | {'precision': ('default', 'high', 'highest')}).items():
    if config[field] not in allowed:
      raise InputError(f"{field} is '{config[field]}', expected one of {', '.join(allowed)}")
  lowest = {'log_every': 1, 'checkpoint_every': 1, 'validation_every': 1, 'keep_checkpoints': 2, 'max_skipped': 1}
  for field, low in {'steps': 0, 'accumulate': 1, 'batch_size': 1, **lowest}.items():
    if config[field] < low:
      raise InputError(f'{field} is {config[field]}, expected at least {low}')
  if config.batch_size % (devices.count * config.accumulate):
    raise InputError(
      f'batch_size is {config.batch_size}, expected a multiple of the number of devices, {devices.count}, times '
      f'accumulate, {config.accumulate}'
    )
  per_update = config.optimizer.steps_per_update
  if per_update < 1:
    raise InputError(f'optimizer.steps_per_update is {per_update}, expected at least 1')
  if config.steps % per_update:  # the last steps would have no effect
    raise InputError(f'steps is {config.steps}, expected a multiple of optimizer.steps_per_update, {per_update}')
  if not 0 <= config.ema_decay < 1:
    raise InputError(f'ema_decay is {config.ema_decay}, expected at least 0 and below 1')


def _check_trained(networks: str, loss: LossSettings, motion_known: bool) -> None:
  """Raises InputError if no part of the loss depends on what is trained; otherwise the gradient would silently be 0."""
  if networks == 'alignment' and not loss.motion_weight:
    raise InputError(f"loss.motion_weight is {loss.motion_weight}, expected more than 0 where networks is 'alignment'")
  depth_counts = any(loss.pyramid_weights) or len(loss.weights) > 1  # besides 'depth', that of the pyramid
  motion_counts = networks == 'both' and motion_known and loss.motion_weight > 0
  if networks != 'alignment' and not depth_counts and not motion_counts:
    raise InputError(
      f'loss.pyramid_weights is {loss.pyramid_weights}, expected one above 0, for no other part of the loss counts: '
      f"networks is '{networks}' and the motion is {'' if motion_known else 'not '}known"
    )


def _check_loss(model: nn.Module, variables: dict, example: FocalStack, loss: LossSettings) -> None:
  """Raises InputError if the loss needs something that the model or the data lack; nothing is computed."""

  def check(variables, stack):
    losses.check_parts(model.apply(variables, stack, align=False), stack, loss)

  jax.eval_shape(check, variables, example)


def data_names(config: ConfigDict) -> list[str]:
  """Training data of a run's weights: names of its sources, without the user's folders, and those recorded in the
  weights that it starts from.
  """
  names = set()
  if config.steps:
    names.update(name for name, _ in parse_sources(config.data.source))
    if config.data.rgbd:
      names.add(config.data.rgbd)
    if config.data.raytraced:
      names.add('raytraced')
  for path in config.init.values():
    if path:
      names.update(load_weights(shipped_file(path))[1].get('data', ()))
  return sorted({name.partition(':')[0] for name in names})


def model_of(config: ConfigDict) -> nn.Module:
  """The config's model, for the training step."""
  runtime = {'dtype': np.dtype(config.compute_dtype), 'precision': config.precision, 'remat': config.remat}
  return make_model(config.model.to_dict(), axis_name=parallel.AXIS, **runtime)


def initial_variables(model: nn.Module, config: ConfigDict) -> dict:
  """Random variables; networks for which `config.init` names a weights file are read from it."""
  variables = init_variables(model, config.seed)
  for network, path in config.init.items():
    if path:
      loaded, _ = load_weights(shipped_file(path))
      # The file's other network may be another variant.
      taken, wanted = (
        {collection: {network: tree.get(collection, {}).get(network, {})} for collection in variables}
        for tree in (loaded, variables)
      )
      check_weights(path, taken, wanted)
      variables = {collection: {**variables[collection], **taken[collection]} for collection in variables}
  return variables
