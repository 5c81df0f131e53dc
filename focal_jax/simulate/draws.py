"""Random scalars, many from one call: a random call for each number would make compiling the simulator take minutes."""

import jax.numpy as jnp
from jax import random
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray


class Draws:
  """Up to `count` scalars from one key, in the order in which they are asked for."""

  def __init__(self, key: PRNGKeyArray, count: int):
    # Away from 0 and 1, where the normal distribution's quantiles are infinite.
    self._numbers = iter(random.uniform(key, (count,), minval=1e-6, maxval=1 - 1e-6))

  def uniform(self, low=0.0, high=1.0) -> Float[Array, '']:
    return low + (high - low) * next(self._numbers)

  def log_uniform(self, low, high) -> Float[Array, '']:
    if low == high == 0:  # none; a number is used up all the same, so that what is drawn after it does not change
      return self.uniform(0.0, 0.0)
    return jnp.exp(self.uniform(jnp.log(low), jnp.log(high)))

  def normal(self) -> Float[Array, '']:
    return ndtri(next(self._numbers))
