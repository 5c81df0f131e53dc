"""Photographs as textures: crops from a fixed set of square tiles, at any scale, rotated and mirrored."""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from focal_jax.simulate.draws import Draws

SCALE = (0.7, 1.4)  # canvas px per tile px; spans a factor of 2, because tiles come at reductions 2 apart
GAIN = (0.4, 1.2)  # of linear light
TINT = (0.8, 1.25)  # further gain of each channel


@flax.struct.dataclass
class Textures:
  """T tiles of S x S px. Passed to compiled functions as an argument, because they are far too large for constants."""

  # 255 times the square root of linear light: about as fine as display values in 8 bits, and squared for linear light.
  tiles: UInt8[Array | np.ndarray, '*D T 3 S S']
  share: Float[Array | np.ndarray, '*D']  # share of surfaces that show a photograph, 0 .. 1


def draw_texture(
  key: PRNGKeyArray, textures: Textures, height: int, width: int
) -> tuple[Bool[Array, ''], Float[Array, '3 H W']]:
  """Whether a surface shows a photograph, and a random crop of one in linear light."""
  draw = Draws(key, 16)
  is_carried = draw.uniform() < textures.share
  count, _, side, _ = textures.tiles.shape
  # Tiles are enlarged if the canvas is larger.
  low = max(SCALE[0], max(height, width) / side)
  window = min(side, math.ceil(max(height, width) / low))
  tile = jnp.floor(draw.uniform(0.0, count)).astype(jnp.int32)
  top, left = (jnp.floor(draw.uniform(0.0, side - window + 1)).astype(jnp.int32) for _ in range(2))
  crop = lax.dynamic_slice(textures.tiles, (tile, 0, top, left), (1, 3, window, window))[0]
  crop = jnp.where(draw.uniform() < 0.5, crop.swapaxes(1, 2), crop)
  crop = jnp.where(draw.uniform() < 0.5, crop[:, ::-1], crop)
  crop = jnp.where(draw.uniform() < 0.5, crop[:, :, ::-1], crop)

  scale = draw.log_uniform(low, max(SCALE[1], low))
  # The filter widens where tiles are reduced, to avoid aliasing.
  light = jax.image.scale_and_translate(
    (crop.astype(jnp.float32) / 255) ** 2,
    (3, height, width),
    (1, 2),
    jnp.stack([scale, scale]),
    -jnp.stack([draw.uniform() * (scale * window - length) for length in (height, width)]),
    'cubic',
    precision=lax.Precision.HIGHEST,
  )
  gain = draw.log_uniform(*GAIN) * jnp.stack([draw.log_uniform(*TINT) for _ in range(3)])
  return is_carried, jnp.maximum(light, 0.0) * gain[:, None, None]
