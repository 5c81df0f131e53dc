"""Scenes from photographs with depth, cut into layers, so that defocus is correct where one object occludes another.

A photograph does not show what its foreground occludes. Each layer is opaque on its own pixels and extends a little
behind nearer layers, with colour and position filled in from its own pixels; this part shows through the blurred edge
in front.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from focal_jax.errors import InputError
from focal_jax.focus.fill import fill
from focal_jax.simulate.scenes import POSITION_LIMITS, Scene
from focal_jax.simulate.sensor import GAMMA
from focal_jax.warp import shift

PERCENTILES = (0.5, 99.5)  # of inverse depth, at the ends of the sweep, so that outliers do not stretch the scene
EDGE_PX = 1.0  # width of the soft edge of a layer
# How far a layer extends behind nearer ones: about the diameter of the largest blur in front. The farthest layer is
# opaque everywhere.
REACH_PX = 16
OVERLAP = 0.5  # share of its thickness by which a layer extends into the next nearer one, so that seams do not show
HOLE_PRIOR = 1e-9  # far below the weight of a single pixel, so that known pixels decide, however few


def scene_from_rgbd(
  rgb: Float[Array, 'H W 3'],
  depth_m: Float[Array, 'H W'],
  known: Bool[Array, 'H W'] | Float[Array, 'H W'],
  num_layers: int = 4,
) -> Scene:
  """The layers of a photograph, far to near. Composited without blur they reproduce the photograph.

  Position is linear in inverse depth (`relative_position`), and layer boundaries are evenly spaced in it. Unknown depth
  is filled in smoothly.

  Args:
    rgb: display values, 0 .. 1; linear light is their power of 2.2.
    depth_m: along the optical axis, metres; only ratios matter. Values that are not finite or not above 0 count as
      unknown.
    known: where above 0, depth is known.
    num_layers: number of layers, K.

  Raises:
    InputError: `num_layers` is below 1.
  """
  if num_layers < 1:
    raise InputError(f'num_layers is {num_layers}, expected at least 1')
  known = (known > 0) & jnp.isfinite(depth_m) & (depth_m > 0)
  position = relative_position(jnp.where(known, depth_m, 1.0), known, PERCENTILES)
  # Position is linear in inverse depth, so filling in one fills in the other.
  position = fill_holes(jnp.clip(position, *POSITION_LIMITS)[None], known)[0]
  colour, alpha, position = _layers(jnp.moveaxis(rgb, -1, 0) ** GAMMA, position, num_layers, EDGE_PX, REACH_PX)
  return Scene(colour=colour, alpha=alpha, position=position, known=known.astype(position.dtype))


def relative_position(
  depth_m: Float[Array, 'H W'], known: Bool[Array, 'H W'], percentiles: tuple[float, float]
) -> Float[Array, 'H W']:
  """Position, linear in inverse depth: 0 and 1 at two percentiles of its known values; (0, 100) are their extremes."""
  inverse = 1.0 / depth_m
  low, high = _extremes(inverse, known)
  far, near = (_percentile(inverse, known, low, high, percentile) for percentile in percentiles)
  return (inverse - far) / jnp.maximum(near - far, 1e-6)


def _extremes(values, known):
  return jnp.min(values, where=known, initial=jnp.inf), jnp.max(values, where=known, initial=-jnp.inf)


def _percentile(values, known, low, high, percentile: float) -> Float[Array, '']:
  """Percentile by bisection on the count of smaller values, which takes a fraction of the time of sorting."""
  target = percentile / 100 * jnp.sum(known)

  def halve(_, ends):
    middle = (ends[0] + ends[1]) / 2
    below = jnp.sum(known & (values <= middle)) <= target
    return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

  low, high = lax.fori_loop(0, 20, halve, (low, high))
  return low if percentile < 50 else high  # makes 0 and 100 the exact extremes


def fill_holes(values: Float[Array, '*B C H W'], known: Bool[Array, '*B H W']) -> Float[Array, '*B C H W']:
  """`fill` of C channels that keeps known values exactly; all 0 if nothing is known."""
  known = known[..., None, :, :]
  # Unknown values may be NaN, which a weight of 0 would not remove.
  values = jnp.where(known, values, 0.0)
  return jnp.where(known, values, fill(values, known.astype(values.dtype), HOLE_PRIOR, smooth=True))


def _layers(image, position, num_layers: int, edge_px: float, reach_px: int):
  """Colour, alpha and position of the layers of an image [3, H, W] with known position everywhere."""
  low, high = jnp.min(position), jnp.max(position)
  depth = (position - low) / jnp.maximum(high - low, 1e-6) * num_layers  # layer l spans l .. l + 1
  layer = jnp.arange(num_layers)[:, None, None]
  nearer = depth >= layer  # this layer or one before it
  # Where a surface continues into the next layer, this one keeps a part of it, so that nothing needs to be filled in
  # there.
  holds = nearer & (depth < layer + 1 + OVERLAP)

  reaches = _dilate(holds, reach_px).astype(image.dtype)
  alpha = _soften(nearer.astype(image.dtype), edge_px) * reaches
  # `top_position` takes the nearest layer that covers more than half of a pixel. Make that the pixel's own layer,
  # however thin.
  alpha = jnp.where(nearer, jnp.maximum(alpha, 0.51 * reaches), jnp.minimum(alpha, 0.49))
  alpha = alpha.at[0].set(1.0)

  # All visible parts of a layer, including soft edges, have the photograph's colour, so the composite is the
  # photograph. A layer is visible where no nearer one is opaque.
  clear = [jnp.ones_like(position)]
  for nearer_alpha in alpha[:0:-1]:
    clear.append(clear[-1] * (1.0 - nearer_alpha))
  shown = alpha * jnp.stack(clear[::-1]) > 0
  stacked = jnp.broadcast_to(jnp.concatenate([image, position[None]]), (num_layers, 4, *position.shape))
  filled = fill_holes(stacked, holds)
  return jnp.where(shown[:, None], image, filled[:, :3]), alpha, filled[:, 3]


def _soften(mask: Float[Array, '*B H W'], edge_px: float) -> Float[Array, '*B H W']:
  """Blurs a mask so that its edges are about `edge_px` wide, by the variance of a box of that width, edge_px^2 / 12."""
  passes = math.ceil(edge_px**2 / 6)
  for _ in range(passes):
    for axis in (-2, -1):
      share = edge_px**2 / (24 * passes)
      mask = (1 - 2 * share) * mask + share * (shift(mask, 1, axis) + shift(mask, -1, axis))
  return mask


def _dilate(mask: Bool[Array, '*B H W'], reach_px: int) -> Bool[Array, '*B H W']:
  """Dilation by a square of 2 reach_px + 1 pixels in few steps: each step triples the span."""
  for axis in (-2, -1):
    span = 0
    while span < reach_px:
      step = min(2 * span + 1, reach_px - span)
      mask = mask | shift(mask, step, axis) | shift(mask, -step, axis)
      span += step
  return mask
