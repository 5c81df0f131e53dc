"""The training step of one device: loss, gradient, update. `parallel` runs it on several devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from focal_jax import losses
from focal_jax.losses import LossSettings
from focal_jax.stack import FocalStack
from focal_jax.training.optimizer import Schedule
from focal_jax.training.parallel import AXIS


@flax.struct.dataclass
class SavedState:
  """Everything needed to continue a run, except the position in the data.

  Attributes:
    step: number of steps, including skipped ones.
    seed: random seed of augmentation and simulation. Not a constant of the program, so that runs with other seeds need
      not compile again.
    ema: {'params', 'batch_stats'}, moving averages; None without averaging.
    skipped: number of steps without an update because loss or gradient was not finite.
    skipped_in_row: number of the most recent consecutive ones.
  """

  step: Any  # int32 scalar: an array, or its shape where a checkpoint is restored
  seed: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any
  skipped: Any
  skipped_in_row: Any


@flax.struct.dataclass
class TrainState(SavedState):
  """With what a continued run takes from its config.

  Attributes:
    schedule: of the learning rate; None for optimisers that need none.
  """

  schedule: Any = None

  @classmethod
  def of(cls, saved: SavedState, schedule: Schedule | None) -> 'TrainState':
    return cls(**_fields(saved), schedule=schedule)

  def saved(self) -> SavedState:
    return SavedState(**_fields(self))


def _fields(state: SavedState) -> dict[str, Any]:
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(SavedState)}


Networks = Literal['both', 'depth', 'alignment']
MakeBatch = Callable[[Array, Any], FocalStack]
Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
  """Settings of the step besides model and optimiser; see `focal_jax.config.Config`."""

  networks: Networks
  loss: LossSettings
  accumulate: int = 1
  ema_decay: float = 0.0


def init_state(
  variables: dict,
  tx: optax.GradientTransformation,
  settings: StepSettings,
  seed: int,
  schedule: Schedule | None = None,
) -> TrainState:
  """The state before the first step, from variables {'params', 'batch_stats'}."""
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  ema = {'params': params, 'batch_stats': batch_stats} if settings.ema_decay else None
  step, skipped, in_row = (jnp.zeros((), jnp.int32) for _ in range(3))
  state = TrainState(step, jnp.int32(seed), params, batch_stats, tx.init(params), ema, skipped, in_row, schedule)
  return jax.tree.map(jnp.array, state)  # separate copies, because a step donates each of them


def averaged_variables(state: TrainState) -> dict:
  """The variables to validate and to save: their moving average, if there is one."""
  return state.ema or {'params': state.params, 'batch_stats': state.batch_stats}


def make_train_step(
  model: nn.Module, tx: optax.GradientTransformation, make_batch: MakeBatch, settings: StepSettings
) -> Step:
  """step(state, (index, inputs)) -> (state, metrics), for one of the devices of AXIS.

  `index` [share] numbers the stacks of the whole batch, and `make_batch(keys, inputs)` makes the device's share of
  them. A stack's key is that of the seed, folded with the step and then with its index, so that random numbers do not
  depend on interruptions or on the number of devices. `model` must have `axis_name` = AXIS.

  Sums and counts are added over the devices before they are divided, so the gradient is that of the whole batch,
  however its valid pixels are distributed. With `accumulate` > 1 a device processes its share in this many parts, whose
  gradients add up to the same; batch normalisation uses one part at a time. A step whose loss or gradient is not finite
  changes nothing and is counted.
  """

  tx = optax.with_extra_args_support(tx)

  def loss_fn(params, batch_stats, stack, counts):
    variables, parts = {'params': params, 'batch_stats': batch_stats}, {}
    if settings.networks == 'alignment':
      motion, updates = model.apply(variables, stack, train=True, mutable=['batch_stats'], method='estimate_motion')
    else:
      align = settings.networks == 'both'
      prediction, updates = model.apply(variables, stack, align=align, train=True, mutable=['batch_stats'])
      motion = prediction.motion
      sums = losses.prediction_sums(prediction, stack, settings.loss)
      parts = {f'{name}_loss': sums[name] / counts[name] for name in sums}
      squared, _ = losses.masked_squared_error(prediction.depth, stack.target, stack.valid)
      parts['mse'] = squared / counts['depth']
    if settings.networks != 'depth' and stack.motion is not None:
      error = losses.motion_error(motion, stack.motion, *stack.images.shape[2:4])
      parts['motion_px'] = jnp.sum(error) / counts['motion']
    weights = {f'{name}_loss': weight for name, weight in settings.loss.weights.items()}
    weights['motion_px'] = settings.loss.motion_weight
    loss = sum(weights[name] * part for name, part in parts.items() if name in weights)
    return loss, ({'loss': loss, **parts}, updates.get('batch_stats', {}))

  def gradient_of(params, batch_stats, stack, counts):
    gradient, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(params, batch_stats, stack, counts)
    return gradient, metrics, batch_stats

  def accumulated(params, batch_stats, stack, counts):
    parts = jax.tree.map(lambda x: x.reshape(settings.accumulate, -1, *x.shape[1:]), stack)
    shapes = jax.eval_shape(gradient_of, params, batch_stats, jax.tree.map(lambda x: x[0], parts), counts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[:2])

    def add(carry, part):
      totals, batch_stats = carry
      gradient, metrics, batch_stats = gradient_of(params, batch_stats, part, counts)
      return (jax.tree.map(jnp.add, totals, (gradient, metrics)), batch_stats), None

    ((gradient, metrics), batch_stats), _ = jax.lax.scan(add, (zeros, batch_stats), parts)
    return gradient, metrics, batch_stats

  def step(state: TrainState, inputs: tuple[Array, Any]):
    index, inputs = inputs
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    stack = make_batch(jax.vmap(jax.random.fold_in, (None, 0))(key, index), inputs)
    stack = losses.training_stack(stack, settings.loss)
    counts = losses.prediction_counts(stack, settings.loss)
    counts['motion'] = jnp.asarray(stack.focus.size, jnp.float32)
    counts = jax.tree.map(lambda x: jnp.where(x > 0, x, 1.0), jax.lax.psum(counts, AXIS))

    gradient_fn = gradient_of if settings.accumulate == 1 else accumulated
    gradient, metrics, batch_stats = gradient_fn(state.params, state.batch_stats, stack, counts)
    # Each device holds its share of one sum.
    gradient, metrics = jax.lax.psum((gradient, metrics), AXIS)
    metrics['gradient_norm'] = optax.tree.norm(gradient)
    finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(metrics['gradient_norm'])

    updates, opt_state = tx.update(gradient, state.opt_state, state.params, schedule=state.schedule)
    params, ema = optax.apply_updates(state.params, updates), state.ema
    if ema is not None:
      # Early averages decay faster; otherwise they would consist mostly of the initial weights for a long time.
      decay = jnp.minimum(settings.ema_decay, (1.0 + state.step) / (10.0 + state.step))
      ema = optax.incremental_update({'params': params, 'batch_stats': batch_stats}, ema, 1.0 - decay)
    new, old = (params, batch_stats, opt_state, ema), (state.params, state.batch_stats, state.opt_state, state.ema)
    kept = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)
    bad = 1 - finite.astype(jnp.int32)
    skipped_in_row = bad * (state.skipped_in_row + 1)
    state = TrainState(state.step + 1, state.seed, *kept, state.skipped + bad, skipped_in_row, state.schedule)
    return state, metrics | {'skipped': state.skipped, 'skipped_in_row': state.skipped_in_row}

  return step
