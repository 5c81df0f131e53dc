"""Random scalars, many from one call: with one call per number the simulator would take minutes to compile."""

import jax.numpy as jnp
from jax import random
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray


class Draws:
  """Up to `count` random scalars from one key, in the order of the calls."""

  def __init__(self, key: PRNGKeyArray, count: int):
    # Not quite 0 or 1, where the quantiles of the normal distribution are infinite.
    self._numbers = iter(random.uniform(key, (count,), minval=1e-6, maxval=1 - 1e-6))

  def uniform(self, low=0.0, high=1.0) -> Float[Array, '']:
    return low + (high - low) * next(self._numbers)

  def log_uniform(self, low, high) -> Float[Array, '']:
    if low == high == 0:  # switched off; still uses up a number, so that later draws do not change
      return self.uniform(0.0, 0.0)
    return jnp.exp(self.uniform(jnp.log(low), jnp.log(high)))

  def normal(self) -> Float[Array, '']:
    return ndtri(next(self._numbers))
