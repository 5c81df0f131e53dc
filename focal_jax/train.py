"""Training: `train_and_evaluate(config, workdir)` runs a config to its last step, going on where an earlier run
stopped.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, UInt8
from ml_collections import ConfigDict

from focal_jax import losses, parallel, pictures
from focal_jax.checkpoints import Checkpoints, claim_workdir
from focal_jax.data import pipeline, sources
from focal_jax.data.augment import augment_batch
from focal_jax.data.rgbd import open_rgbd
from focal_jax.errors import InputError
from focal_jax.models.end_to_end import EndToEnd, init_variables, variable_shapes
from focal_jax.models.npz_file import check_weights, load_weights, save_weights
from focal_jax.simulate.stacks import SimulatorSettings, settings_from, simulate, simulate_batch, simulate_rgbd
from focal_jax.stack import FocalStack
from focal_jax.writers import Progress, Writer

log = logging.getLogger(__name__)

WEIGHTS_FILE = 'weights.npz'


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> Path:
  """Trains to `config.steps` on all local devices; returns the weights file, `workdir`/weights.npz (flat, float32).

  Besides it the folder gets config.json, checkpoints, metrics.jsonl, TensorBoard files and validation pictures. Called
  again on the same folder it continues from the newest checkpoint, with the data and random numbers that it would have
  had.

  Raises:
    InputError: a config value that makes no sense, or a folder of another model; before anything is written.
  """
  workdir = Path(workdir)
  devices = jax.local_device_count()
  if config.batch_size % devices:
    raise InputError(f'batch_size is {config.batch_size}, expected a multiple of the number of devices, {devices}')
  if config.networks not in ('both', 'depth', 'alignment'):
    raise InputError(f"networks is '{config.networks}', expected 'both', 'depth' or 'alignment'")
  model = make_model(config.model)
  tx = make_optimizer(config.optimizer, config.steps)
  data = TrainingData(config, devices)
  variables = initial_variables(model, config)
  claim_workdir(workdir, config.to_dict())

  with (
    contextlib.closing(Checkpoints(workdir, config.keep_checkpoints)) as checkpoints,
    contextlib.closing(Writer(workdir)) as writer,
  ):
    state = parallel.init_state(variables, tx)
    restored = checkpoints.restore(state)
    if restored is not None:
      state = restored
      log.info('continuing from step %d', state.step)
    # As the step returns it: else its second call would compile again.
    state = jax.device_put(state, NamedSharding(parallel.local_mesh(), PartitionSpec()))
    state = _train(config, model, tx, data, state, Validation(config, model, workdir), checkpoints, writer)

  description = {'model': config.model.name, 'arguments': model_arguments(config.model), 'steps': int(state.step)}
  path = workdir / WEIGHTS_FILE
  save_weights(path, jax.device_get({'params': state.params, 'batch_stats': state.batch_stats}), description)
  log.info('wrote %s', path)
  return path


def _train(
  config: ConfigDict,
  model: EndToEnd,
  tx: optax.GradientTransformation,
  data: 'TrainingData',
  state: parallel.TrainState,
  validate: 'Validation',
  checkpoints: Checkpoints,
  writer: Writer,
) -> parallel.TrainState:
  """The steps from `state` to the config's last."""
  model = model.clone(axis_name=parallel.AXIS)
  weights, motion_weight = tuple(config.loss.pyramid_weights), config.loss.motion_weight
  train_step = parallel.make_train_step(
    model, tx, data.make_batch, config.seed, weights, motion_weight, config.networks
  )
  first, last = int(state.step), config.steps
  inputs = data.inputs(first)
  log.info('compiling the training step for %d device(s)', jax.local_device_count())
  progress = Progress(first, last)
  for step in range(first + 1, last + 1):
    state, metrics = train_step(state, next(inputs))
    # Fetching a number each step keeps one step in flight: more of them can deadlock several devices on a CPU.
    metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if step == first + 1:
      progress = Progress(step, last)  # compilation is over
    if step % config.log_every == 0 or step == last:
      speed = config.batch_size / max(progress.seconds_a_step(step), 1e-9)
      numbers = ', '.join(f'{name} {value:.4g}' for name, value in metrics.items())
      log.info('step %d/%d: %s, %.2f stacks/s, %s left', step, last, numbers, speed, progress.time_left(step))
      writer.write_scalars(step, {**metrics, 'stacks_per_second': speed})
    if step % config.checkpoint_every == 0 or step == last:
      checkpoints.save(state)
    if step % config.validation_every == 0 or step == last:
      scalars, picture = validate(state, step)
      log.info('validation at step %d: %s', step, ', '.join(f'{name} {value:.4g}' for name, value in scalars.items()))
      writer.write_scalars(step, scalars)
      writer.write_image(step, 'validation', picture)
  return state


def model_arguments(config: ConfigDict) -> dict[str, Any]:
  return {name: config[name] for name in ('channels', 'padding', 'motion_side_px')}


def make_model(config: ConfigDict) -> EndToEnd:
  if config.name != 'end_to_end':
    raise InputError(f"model.name is '{config.name}', expected 'end_to_end'")
  for field, allowed in (('channels', ('RGB', 'BGR')), ('padding', ('edge', 'black'))):
    if config[field] not in allowed:
      raise InputError(f"model.{field} is '{config[field]}', expected one of {', '.join(allowed)}")
  return EndToEnd(**model_arguments(config))


def initial_variables(model: EndToEnd, config: ConfigDict) -> dict:
  """Random variables, with each network that `config.init` names a weights file for as it is in that file."""
  variables = init_variables(model, config.seed)
  for network, path in config.init.items():
    if path:
      loaded, _ = load_weights(path)
      check_weights(path, loaded, variable_shapes(model))
      for collection in variables:
        variables[collection][network] = loaded[collection][network]
  return variables


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
  """Adam, with a linear warm-up to the learning rate and a constant or cosine rest."""
  if config.schedule not in ('constant', 'cosine'):
    raise InputError(f"optimizer.schedule is '{config.schedule}', expected 'constant' or 'cosine'")
  after = max(steps - config.warmup_steps, 1)
  rest = (
    optax.constant_schedule(config.learning_rate)
    if config.schedule == 'constant'
    else optax.cosine_decay_schedule(config.learning_rate, after)
  )
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.adam(optax.join_schedules([warmup, rest], [config.warmup_steps]), config.b1, config.b2)


class TrainingData:
  """What the host hands to each device every step, and what the device makes of it.

  Simulated stacks alone are rendered on the device, which needs nothing but the key and, for stacks of photographs, the
  photographs; everything else is read, cropped and mixed on the host (`data.pipeline`) and augmented on the device.
  """

  def __init__(self, config: ConfigDict, devices: int):
    data = config.data
    self._config, self._devices = config, devices
    self._simulator = settings_from(config.simulator)
    self._batches = None
    if not 0 <= data.rgbd_share <= 1:
      raise InputError(f'data.rgbd_share is {data.rgbd_share}, expected a number from 0 to 1')
    if data.rgbd and data.source != 'simulated':
      raise InputError(f"data.rgbd is '{data.rgbd}' and data.source '{data.source}', expected data.source 'simulated'")
    if data.rgbd:
      self._batches = pipeline.rgbd_batches(
        open_rgbd(data.rgbd, data.data_dir),
        self._simulator.canvas,
        batch_size=config.batch_size,
        seed=config.seed,
        num_threads=data.num_threads,
        devices=devices,
      )
    elif data.source != 'simulated':
      names = sources.parse_sources(data.source)
      opened = [(sources.open_source(name, 'train', data.data_dir, self._simulator), weight) for name, weight in names]
      settings = pipeline.BatchSettings(
        batch_size=config.batch_size,
        crop_px=data.crop_px,
        min_valid=data.min_valid,
        num_frames=tuple(data.num_frames) or None,
        seed=config.seed,
        num_threads=data.num_threads,
      )
      self._batches = pipeline.stack_batches(opened, settings, devices=devices)
      if config.networks == 'alignment' and not pipeline.motion_known([source for source, _ in opened]):
        raise InputError(f"networks is 'alignment', but the motion is not known in all of data.source '{data.source}'")

  def inputs(self, first_step: int) -> Iterator[Any]:
    if self._batches is None:
      return itertools.repeat(np.zeros((self._devices,), np.int32))
    return parallel.ahead(self._batches.iterate(first_step))

  def make_batch(self, key: jax.Array, inputs: Any) -> FocalStack:
    if self._batches is None:
      return simulate_batch(key, self._config.batch_size // self._devices, self._simulator)
    if self._config.data.rgbd:
      return simulate_mixture(key, inputs['rgb'], inputs['depth_m'], self._config.data.rgbd_share, self._simulator)
    stack = inputs.replace(images=inputs.images.astype(jnp.float32) / 255)
    return augment_batch(key, stack) if self._config.data.augment else stack


def simulate_mixture(
  key: PRNGKeyArray,
  rgb: UInt8[Array, 'B H W 3'],
  depth_m: Float[Array, 'B H W'],
  share: float,
  settings: SimulatorSettings,
) -> FocalStack:
  """As many stacks as photographs: each of its photograph with probability `share`, else of a procedural scene.

  Procedural stacks are those of `simulate_batch`.
  """
  size = len(rgb)
  # Of a number that none of the stacks' keys has.
  chosen = jax.random.bernoulli(jax.random.fold_in(key, size), share, (size,))

  def one(inputs):
    key, chosen, rgb, depth_m = inputs
    return jax.lax.cond(
      chosen,
      lambda: simulate_rgbd(key, rgb.astype(jnp.float32) / 255, depth_m, settings),
      lambda: simulate(key, settings),
    )

  # One after the other, so that only one of both is computed: for a whole batch, `cond` would become a choice.
  return jax.lax.map(one, (jax.random.split(key, size), chosen, rgb, depth_m))


class Validation:
  """Error of depth, and of motion where it is known, on a fixed set of stacks, and a picture of the first of them.

  The set: the first stacks in the split `val` of the first source that is not simulated; or stacks simulated from a key
  that no step has. Depth errors are in units of the sweep's focus range, motion errors in px.
  """

  def __init__(self, config: ConfigDict, model: EndToEnd, workdir: Path):
    self._config, self._workdir = config, workdir
    self._source = None
    measured = next((name for name, _ in sources.parse_sources(config.data.source) if name != 'simulated'), None)
    if measured:
      self._source = sources.open_source(measured, 'val', config.data.data_dir)
    settings = settings_from(config.simulator)
    self._simulate = jax.jit(lambda key: simulate_batch(key, config.batch_size, settings))

    @jax.jit
    def measure(variables, stack):
      stack = losses.unit_focus(stack)
      prediction = model.apply(variables, stack, align=config.networks != 'depth')
      error = jnp.abs(prediction.depth - stack.target) * stack.valid
      sums = {'mae': (error.sum(), stack.valid.sum()), 'mse': ((error**2).sum(), stack.valid.sum())}
      if stack.motion is not None and config.networks != 'depth':
        for name, motion in (('motion_px', prediction.motion), ('unmoved_px', jnp.zeros_like(stack.motion))):
          px = losses.motion_error(motion, stack.motion, *stack.images.shape[2:4])
          sums[name] = (px.sum(), jnp.asarray(px.size, px.dtype))
      return sums, stack, prediction.depth

    self._measure = measure

  def _batch(self, index: int) -> FocalStack:
    if self._source is None:
      key = jax.random.fold_in(jax.random.key(self._config.seed), 2**31 - 1)
      return self._simulate(jax.random.fold_in(key, index))
    first = index * self._config.batch_size
    examples = [self._source[i % len(self._source)] for i in range(first, first + self._config.batch_size)]
    fields = ('images', 'focus', 'fov', 'target', 'valid')
    stack = FocalStack(**{name: np.stack([example[name] for example in examples]) for name in fields})
    return stack.replace(images=stack.images.astype(np.float32) / 255)

  def __call__(self, state: parallel.TrainState, step: int) -> tuple[dict[str, float], np.ndarray]:
    # Off the devices' mesh: validation runs on one.
    variables = jax.device_get({'params': state.params, 'batch_stats': state.batch_stats})
    totals, picture = None, None
    for index in range(self._config.validation_batches):
      sums, stack, depth = jax.device_get(self._measure(variables, self._batch(index)))
      totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
      if picture is None:
        panels = zip(stack.images, depth, stack.target, stack.valid, strict=True)
        picture = np.concatenate([pictures.training_panel(*panel, 0.0, 1.0) for panel in panels])
    folder = self._workdir / 'pictures'
    folder.mkdir(exist_ok=True)
    pictures.save_image(folder / f'validation_{step:07}.png', picture)
    return {f'validation/{name}': float(total / count) for name, (total, count) in totals.items()}, picture
