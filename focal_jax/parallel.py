"""The training step of one device, and how it runs on several: `jax.pmap` with a replicated state."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from focal_jax import losses
from focal_jax.stack import FocalStack

AXIS = 'batch'


@flax.struct.dataclass
class TrainState:
  """Everything a run needs to go on, besides the position in the data."""

  step: Any  # int32 scalar: an array, or its shape where a checkpoint is restored
  params: Any
  batch_stats: Any
  opt_state: Any


Networks = Literal['both', 'depth', 'alignment']
MakeBatch = Callable[[PRNGKeyArray, Any], FocalStack]


def init_state(variables: dict, tx: optax.GradientTransformation) -> TrainState:
  """The state of a run's first step, from variables {'params', 'batch_stats'}."""
  params, batch_stats = variables['params'], variables['batch_stats']
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats=batch_stats, opt_state=tx.init(params))


def local_mesh() -> Mesh:
  """All local devices in a row."""
  return jax.make_mesh((jax.local_device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def ahead(inputs: Iterable[Any], size: int = 2) -> Iterator[Any]:
  """The same inputs, with a leading axis of local devices, on these devices `size` steps before they are asked for.

  Transfers run while the devices compute.
  """
  sharding = NamedSharding(local_mesh(), PartitionSpec(AXIS))
  inputs, waiting = iter(inputs), collections.deque()
  for one in itertools.islice(inputs, size):
    waiting.append(jax.device_put(one, sharding))
  while waiting:
    yield waiting.popleft()
    for one in itertools.islice(inputs, 1):
      waiting.append(jax.device_put(one, sharding))


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  make_batch: MakeBatch,
  seed: int,
  pyramid_weights: tuple[float, ...],
  motion_weight: float,
  networks: Networks,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
  """step(state, inputs) -> (state, metrics) on all local devices.

  `inputs` has a leading device axis; `make_batch(key, inputs)` turns a device's share into a batch of stacks, on the
  device. The key is the seed's, folded with the step and then the device's index, so that a resumed run draws what it
  would have. `model` must have `axis_name` = AXIS. Sums and counts are added over the devices before they are divided,
  so that the gradient is that of the whole batch, however its valid pixels are spread.
  """

  def loss_fn(params, batch_stats, stack):
    unit = losses.unit_focus(stack)
    apply = functools.partial(
      model.apply, {'params': params, 'batch_stats': batch_stats}, unit, train=True, mutable=['batch_stats']
    )
    loss, parts = 0.0, {}
    if networks == 'alignment':
      motion, updates = apply(method='estimate_motion')
    else:
      prediction, updates = apply(align=networks == 'both')
      motion = prediction.motion
      total, count = losses.pyramid_loss(prediction.pyramid, unit.target, unit.valid, pyramid_weights)
      count = jnp.maximum(jax.lax.psum(count, AXIS), 1.0)
      squared, _ = losses.masked_squared_error(prediction.depth, unit.target, unit.valid)
      loss = total / count
      parts = {'depth_loss': loss, 'mse': squared / count}
    if networks != 'depth' and stack.motion is not None:
      error = losses.motion_error(motion, stack.motion, *stack.images.shape[2:4])
      parts['motion_px'] = jnp.mean(error) / jax.lax.axis_size(AXIS)
      loss += motion_weight * parts['motion_px']
    return loss, ({'loss': loss, **parts}, updates['batch_stats'])

  def step(state: TrainState, inputs: Any):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    stack = make_batch(key, inputs)
    gradient, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params, state.batch_stats, stack)
    # Each device holds its share of one sum.
    gradient, metrics = jax.lax.psum((gradient, metrics), AXIS)
    metrics['gradient_norm'] = optax.tree.norm(gradient)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), metrics

  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0)
