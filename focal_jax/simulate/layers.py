"""Scenes from a photograph with depth: cut into layers, so that defocus is right where one thing hides another.

A photograph shows nothing of what its foreground hides. Each layer is opaque on its own pixels and goes on for a little
behind nearer layers, where colour and position are filled in from its own; there a blurred edge in front lets it show.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from focal_jax.errors import InputError
from focal_jax.simulate.scenes import POSITION_LIMITS, Scene
from focal_jax.simulate.sensor import GAMMA

PUBLISHED_DEPTH_M = (0.1, 1.1)  # to which Won and Jeon (ECCV 2022) map the depth of each picture
PUBLISHED_ENDS_DPT = (1 / 0.9, 10.0)  # their sweeps: focused from 0.9 m to 0.1 m
OVERLAP = 0.5  # share of its thickness by which a layer reaches into the next nearer one, so that seams do not show
COARSEST_PX = 6  # longer side of the coarsest grid of a fill


def scene_from_rgbd(
  rgb: Float[Array, 'H W 3'],
  depth_m: Float[Array, 'H W'],
  known: Bool[Array, 'H W'] | Float[Array, 'H W'],
  num_layers: int = 4,
  edge_px: float = 1.0,
  *,
  reach_px: int = 16,
  mapping: Literal['relative', 'published'] = 'relative',
  percentiles: tuple[float, float] = (0.5, 99.5),
  ends_dpt: tuple[float, float] = PUBLISHED_ENDS_DPT,
  span: tuple[Float[Array, ''] | float, Float[Array, ''] | float] = (0.0, 1.0),
  trust_filled: bool = False,
) -> Scene:
  """The layers of a photograph, far to near. Composited without blur they are the photograph.

  Layer boundaries are evenly spaced in position. Where depth is not known, it is filled in smoothly.

  Args:
    rgb: display values, 0 .. 1; linear light is their power of 2.2.
    depth_m: along the optical axis, metres; only its proportions matter. Not finite or not above 0 counts as not known.
    known: where above 0, depth is known.
    num_layers: K.
    edge_px: width of the soft edge of a layer, px.
    reach_px: how far a layer goes on behind nearer ones, px; about the diameter of the largest blur in front. The
      farthest layer is opaque everywhere.
    mapping: 'relative': position is linear in inverse depth, 0 at the farthest and 1 at the nearest known pixel, as
      `relative_position`; 'published': as `published_position`.
    percentiles: of inverse depth, for `relative_position`.
    ends_dpt: focus of the first and the last frame, for `published_position`.
    span: positions that 0 and 1 become: a part of the sweep's range, say one drawn at random.
    trust_filled: whether filled pixels count as known, as in pictures whose holes are nearly none.

  Raises:
    InputError: a setting is out of its range.
  """
  for name, value, low in (('num_layers', num_layers, 1), ('reach_px', reach_px, 1), ('edge_px', edge_px, 0)):
    if not low <= value < math.inf:
      raise InputError(f'rgbd.{name} is {value}, expected at least {low}')
  if not 0 <= percentiles[0] < percentiles[1] <= 100:
    raise InputError(f'rgbd.percentiles is {percentiles}, expected two numbers from 0 to 100, the lower one first')
  if not 0 <= ends_dpt[0] < ends_dpt[1] < math.inf:
    raise InputError(f'rgbd.ends_dpt is {ends_dpt}, expected two numbers of at least 0, the lower one first')
  if mapping not in ('relative', 'published'):
    raise InputError(f"rgbd.mapping is {mapping!r}, expected 'relative' or 'published'")

  known = (known > 0) & jnp.isfinite(depth_m) & (depth_m > 0)
  depth_m = jnp.where(known, depth_m, 1.0)
  if mapping == 'relative':
    position = relative_position(depth_m, known, percentiles)
  else:
    position = published_position(depth_m, known, ends_dpt)
  # Inverse depth is linear in position, so that filling the one is filling the other.
  position = fill_holes(jnp.clip(position, *POSITION_LIMITS)[None], known)[0]
  position = span[0] + (span[1] - span[0]) * position
  colour, alpha, position = _layers(jnp.moveaxis(rgb, -1, 0) ** GAMMA, position, num_layers, edge_px, reach_px)
  known = jnp.ones_like(position[0]) if trust_filled else known.astype(position.dtype)
  return Scene(colour=colour, alpha=alpha, position=position, known=known)


def relative_position(
  depth_m: Float[Array, 'H W'], known: Bool[Array, 'H W'], percentiles: tuple[float, float]
) -> Float[Array, 'H W']:
  """Linear in inverse depth: 0 and 1 at two percentiles of its known values, (0, 100) for their extremes."""
  inverse = 1.0 / depth_m
  low, high = _extremes(inverse, known)
  far, near = (_percentile(inverse, known, low, high, percentile) for percentile in percentiles)
  return (inverse - far) / jnp.maximum(near - far, 1e-6)


def published_position(
  depth_m: Float[Array, 'H W'], known: Bool[Array, 'H W'], ends_dpt: tuple[float, float]
) -> Float[Array, 'H W']:
  """The rule of Won and Jeon: depth from its least to its greatest known value becomes 0.1 .. 1.1 m, and that the place
  between two focus distances in dioptres.
  """
  low, high = _extremes(depth_m, known)
  nearest, farthest = PUBLISHED_DEPTH_M
  scaled = nearest + (farthest - nearest) * (depth_m - low) / jnp.maximum(high - low, 1e-6)
  return (1.0 / jnp.where(known, scaled, 1.0) - ends_dpt[0]) / (ends_dpt[1] - ends_dpt[0])


def _extremes(values, known):
  return jnp.min(values, where=known, initial=jnp.inf), jnp.max(values, where=known, initial=-jnp.inf)


def _percentile(values, known, low, high, percentile: float) -> Float[Array, '']:
  """By bisection on the count of smaller values, which takes a fraction of the time of sorting."""
  target = percentile / 100 * jnp.sum(known)

  def halve(_, ends):
    middle = (ends[0] + ends[1]) / 2
    below = jnp.sum(known & (values <= middle)) <= target
    return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

  low, high = lax.fori_loop(0, 20, halve, (low, high))
  return low if percentile < 50 else high  # so that 0 and 100 are the extremes exactly


def fill_holes(values: Float[Array, '*B C H W'], known: Bool[Array, '*B H W']) -> Float[Array, '*B C H W']:
  """Fills what is not known smoothly from what is, coarse to fine: about the surface that a soap film would take.

  Push-pull (Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph", 1996): means over known pixels on ever coarser
  grids, which fill the holes of the finer ones and are smoothed there. All 0 where nothing at all is known.

  Args:
    values: C channels; what they are where not known plays no role.
    known: where they are known.
  """
  weight = known[..., None, :, :].astype(values.dtype)
  levels = [(jnp.where(weight > 0, values, 0.0), weight)]
  while max(levels[-1][0].shape[-2:]) > COARSEST_PX:
    values, weight = levels[-1]
    sums, total = _halve(values * weight), _halve(weight)
    levels.append((sums / jnp.maximum(total, 1e-6), jnp.minimum(total, 1.0)))
  values, weight = levels[-1]
  filled = jnp.sum(values * weight, (-2, -1), keepdims=True)
  filled = filled / jnp.maximum(jnp.sum(weight, (-2, -1), keepdims=True), 1e-6)
  for n, (values, weight) in reversed(list(enumerate(levels))):
    filled = jnp.where(weight > 0, values, filled)
    if n > 0:
      mean = (_shift(filled, 1, -2) + _shift(filled, -1, -2) + _shift(filled, 1, -1) + _shift(filled, -1, -1)) / 4
      filled = _double(jnp.where(weight > 0, values, mean), *levels[n - 1][0].shape[-2:])
  return filled


def _halve(x: Float[Array, '*B H W']) -> Float[Array, '*B h w']:
  """Sums of blocks of 2 x 2, an odd side filled up with zeros."""
  height, width = x.shape[-2:]
  x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, height % 2), (0, width % 2)])
  rows = x[..., ::2, :] + x[..., 1::2, :]
  return rows[..., ::2] + rows[..., 1::2]


def _double(x: Float[Array, '*B h w'], height: int, width: int) -> Float[Array, '*B H W']:
  """The inverse of `_halve` in size, by linear interpolation; beyond the outermost values they repeat."""
  # Along x by a matrix, for XLA takes long to interlace single values; whole rows it interlaces several times as fast.
  half = x.shape[-1]
  at = np.clip((np.arange(width) - 0.5) / 2, 0, half - 1)
  columns = np.maximum(1 - np.abs(at[:, None] - np.arange(half)), 0).astype(x.dtype)
  x = jnp.einsum('...hw,xw->...hx', x, columns, precision=lax.Precision.HIGHEST)
  pairs = jnp.stack([0.75 * x + 0.25 * _shift(x, 1, -2), 0.75 * x + 0.25 * _shift(x, -1, -2)], axis=-2)
  return pairs.reshape(*x.shape[:-2], -1, width)[..., :height, :]


def _shift(x: Shaped[Array, '*B H W'], step: int, axis: int) -> Shaped[Array, '*B H W']:
  """Moves values along an axis; its end repeats into the gap."""
  length = x.shape[axis]
  step = max(-length, min(step, length))
  keep = lax.slice_in_dim(x, max(-step, 0), length - max(step, 0), axis=axis)
  end = lax.slice_in_dim(x, 0, 1, axis=axis) if step > 0 else lax.slice_in_dim(x, length - 1, length, axis=axis)
  end = jnp.repeat(end, abs(step), axis=axis)
  return jnp.concatenate([end, keep] if step > 0 else [keep, end], axis=axis)


def _layers(image, position, num_layers: int, edge_px: float, reach_px: int):
  """Colour, alpha and position of the layers of an image [3, H, W] whose position is known everywhere."""
  low, high = jnp.min(position), jnp.max(position)
  depth = (position - low) / jnp.maximum(high - low, 1e-6) * num_layers  # layer l spans l .. l + 1
  layer = jnp.arange(num_layers)[:, None, None]
  nearer = depth >= layer  # this layer or one before it
  # Of a surface that goes on into the next layer, this one keeps a part, so that nothing need be invented there.
  holds = nearer & (depth < layer + 1 + OVERLAP)

  reaches = _dilate(holds, reach_px).astype(image.dtype)
  alpha = _soften(nearer.astype(image.dtype), edge_px) * reaches
  # The nearest layer that covers more than half of a pixel stays the pixel's own, however thin it is.
  alpha = jnp.where(nearer, jnp.maximum(alpha, 0.51 * reaches), jnp.minimum(alpha, 0.49))
  alpha = alpha.at[0].set(1.0)

  # Whatever can be seen of a layer has the photograph's colour, its edge too: the composite is the photograph.
  # A layer can be seen where all nearer ones are not opaque; layers are few.
  clear = [jnp.ones_like(position)]
  for nearer_alpha in alpha[:0:-1]:
    clear.append(clear[-1] * (1.0 - nearer_alpha))
  shown = alpha * jnp.stack(clear[::-1]) > 0
  stacked = jnp.broadcast_to(jnp.concatenate([image, position[None]]), (num_layers, 4, *position.shape))
  filled = fill_holes(stacked, holds)
  return jnp.where(shown[:, None], image, filled[:, :3]), alpha, filled[:, 3]


def _soften(mask: Float[Array, '*B H W'], edge_px: float) -> Float[Array, '*B H W']:
  """Makes the edges of a mask about as wide as said: its blur has the variance of a box, edge_px^2 / 12."""
  passes = math.ceil(edge_px**2 / 6)
  for _ in range(passes):
    for axis in (-2, -1):
      share = edge_px**2 / (24 * passes)
      mask = (1 - 2 * share) * mask + share * (_shift(mask, 1, axis) + _shift(mask, -1, axis))
  return mask


def _dilate(mask: Bool[Array, '*B H W'], reach_px: int) -> Bool[Array, '*B H W']:
  """Whether there is any of it within a square of 2 reach_px + 1: each step triples what the steps before it span."""
  for axis in (-2, -1):
    span = 0
    while span < reach_px:
      step = min(2 * span + 1, reach_px - span)
      mask = mask | _shift(mask, step, axis) | _shift(mask, -step, axis)
      span += step
  return mask
