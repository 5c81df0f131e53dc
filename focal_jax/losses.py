"""Losses, as plain functions of arrays."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.stack import FocalStack


def unit_focus(stack: FocalStack) -> FocalStack:
  """The same stack with focus coordinates and target mapped to 0 .. 1 by its own range, as training wants them.

  A network's output is a mixture of the focus coordinates it is given, so this only scales the loss, alike for every
  unit.
  """
  low = jnp.min(stack.focus, axis=-1, keepdims=True)
  extent = jnp.max(stack.focus, axis=-1, keepdims=True) - low
  extent = jnp.where(extent > 0, extent, 1.0)  # all frames at one focus
  target = None if stack.target is None else (stack.target - low[..., None]) / extent[..., None]
  return stack.replace(focus=(stack.focus - low) / extent, target=target)


def masked_squared_error(
  prediction: Float[Array, '*B H W'], target: Float[Array, '*B H W'], valid: Float[Array, '*B H W']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """(sum, count): sum of valid (p - t)^2 and sum of valid, over everything."""
  return jnp.sum(valid * (prediction - target) ** 2), jnp.sum(valid)


def pyramid_loss(
  pyramid: Sequence[Float[Array, '*B H W']],
  target: Float[Array, '*B H W'],
  valid: Float[Array, '*B H W'],
  weights: Sequence[float] = (0.3, 0.5, 0.7, 1.0),
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """(sum, count) of the squared errors of D1 .. D4, the sums weighted: the published loss (Won and Jeon, section
  3.3).
  """
  total = sum(w * masked_squared_error(depth, target, valid)[0] for w, depth in zip(weights, pyramid, strict=True))
  return total, jnp.sum(valid)


def motion_error(
  estimate: Float[Array, '*B N 3'], truth: Float[Array, '*B N 3'], height: int, width: int
) -> Float[Array, '*B N']:
  """Root mean square over the image of the displacement error of `warp`, px.

  In closed form: the squares of the centred coordinates u and v average (n + 1) / (n - 1) / 3 over n pixels.
  """
  error = estimate - truth
  spread = ((width // 2) ** 2 * (width + 1) / (width - 1) + (height // 2) ** 2 * (height + 1) / (height - 1)) / 3
  square = spread * error[..., 0] ** 2 + error[..., 1] ** 2 + error[..., 2] ** 2
  return jnp.sqrt(square + 1e-12)  # the root has no finite slope at 0
