"""Adam and its learning rate."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from focal_jax.errors import InputError


@flax.struct.dataclass
class Schedule:
  """The learning rate by step: linear warm-up from 0, then constant or a cosine that falls to 0.

  Its numbers are arguments of the training step, not constants of the program, so that runs with other ones need not
  compile again.

  Attributes:
    learning_rate: after the warm-up.
    warmup_steps: length of the warm-up.
    steps: of the run: where the cosine ends.
    cosine: whether the rate falls after the warm-up.
  """

  learning_rate: Any  # scalars
  warmup_steps: Any
  steps: Any
  cosine: bool = flax.struct.field(pytree_node=False)

  def __call__(self, step: int | Int[Array, '']) -> Float[Array, '']:
    after = step - self.warmup_steps
    rest = 1.0
    if self.cosine:
      rest = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip(after / jnp.maximum(self.steps - self.warmup_steps, 1), 0, 1))
    return self.learning_rate * jnp.where(after < 0, step / jnp.maximum(self.warmup_steps, 1), rest)


def make_schedule(config: ConfigDict, steps: int) -> Schedule:
  """The schedule of `config.optimizer` for a run of `steps` steps.

  Raises:
    InputError: `schedule` is neither 'constant' nor 'cosine'.
  """
  if config.schedule not in ('constant', 'cosine'):
    raise InputError(f"optimizer.schedule is '{config.schedule}', expected 'constant' or 'cosine'")
  cosine = config.schedule == 'cosine'
  return Schedule(jnp.float32(config.learning_rate), jnp.int32(config.warmup_steps), jnp.int32(steps), cosine)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
  """Adam; gradients of a norm above `clip_norm` are scaled down to it first. `update` needs the `schedule`.

  With `steps_per_update` > 1 it updates the weights once in that many steps, from the mean of their gradients, at the
  learning rate that the schedule has for the first of them.
  """
  steps = config.steps_per_update
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  adam = optax.chain(optax.scale_by_adam(config.b1, config.b2), _scale_by_learning_rate(steps))
  tx = optax.chain(clip, adam)
  if steps == 1:
    return tx
  multi = optax.MultiSteps(tx, steps)  # its `gradient_transformation` would not pass the schedule on
  return optax.GradientTransformationExtraArgs(multi.init, multi.update)


def _scale_by_learning_rate(steps_per_update: int) -> optax.GradientTransformationExtraArgs:
  """Like `optax.scale_by_learning_rate`, but the schedule is an argument of `update`."""

  def init(params):
    del params
    return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

  def update(updates, state, params=None, *, schedule: Schedule, **others):
    del params, others
    rate = schedule(state.count * steps_per_update)
    updates = jax.tree.map(lambda x: -rate * x, updates)
    return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init, update)
