"""Enlarges maps of a reduced image to full size, with edges aligned to those of the full-size image.

Joint bilateral upsampling: Kopf, Cohen, Lischinski and Uyttendaele, SIGGRAPH 2007. Each pixel is a mean of the 4 x 4
values around it, weighted by distance (a cubic B-spline, which preserves linear slopes) and by the similarity of their
colour in the reduced image to its own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped

CONTRAST = 0.05  # difference in colour, RGB 0 .. 1, above which weights fall off
STRENGTH = 4  # power of the fall-off


def enlarge(
  maps: Float[np.ndarray, 'K h w'], guide: Shaped[np.ndarray, 'h w 3'], picture: Shaped[np.ndarray, 'H W 3']
) -> Float32[np.ndarray, 'K H W']:
  """The maps enlarged to the size of the picture; values stay within the range of each map.

  Args:
    maps: finite values.
    guide: the picture reduced to the size of the maps; uint8 or float 0 .. 1.
    picture: the full-size image; uint8 or float 0 .. 1.
  """
  if guide.shape == picture.shape:
    return maps
  return np.asarray(_enlarge(maps, guide, picture))


@jax.jit
def _enlarge(
  maps: Float[Array, 'K h w'], guide: Shaped[Array, 'h w 3'], picture: Shaped[Array, 'H W 3']
) -> Float[Array, 'K H W']:
  kinds = maps.shape[0]
  limits = [limit(maps, axis=(1, 2))[:, None] for limit in (jnp.min, jnp.max)]
  small = jnp.concatenate([maps, jnp.moveaxis(_values(guide), -1, 0)])
  rows, along_y = _taps(guide.shape[0], picture.shape[0])
  columns, along_x = _taps(guide.shape[1], picture.shape[1])
  # Expanded to four times the width beforehand, because gathering single values in the loop below is slow. [h, K, 4, W]
  wide = jnp.moveaxis(jnp.pad(small, ((0, 0), (2, 2), (2, 2)), mode='edge'), 1, 0)[:, :, columns]

  def row(of: tuple[Shaped[Array, 'W 3'], Int[Array, ''], Float[Array, '4']]) -> Float[Array, 'K W']:
    pixels, first, weights = of
    near = jax.lax.dynamic_slice_in_dim(wide, first, 4)
    unlike = jnp.sum((near[:, kinds:] - _values(pixels).T[:, None]) ** 2, axis=1) / CONTRAST**2
    weight = weights[:, None, None] * along_x / (1 + unlike) ** STRENGTH
    values = jnp.sum(weight[:, None] * near[:, :kinds], axis=(0, 2)) / jnp.sum(weight, axis=(0, 1))
    return jnp.clip(values, *limits)  # which rounding may leave

  # Row by row; otherwise sixteen neighbours of every pixel of a photograph would be in memory at once.
  return jnp.moveaxis(jax.lax.map(row, (picture, rows[0], along_y.T)), 0, 1)


def _taps(length: int, to: int) -> tuple[Int[np.ndarray, '4 L'], Float[np.ndarray, '4 L']]:
  """For each pixel of an axis of `to` pixels, the four pixels around it on an axis of `length` (its ends repeated
  twice), and their weights.
  """
  place = (np.arange(to) + 0.5) * length / to + 1.5
  at = np.floor(place) + np.arange(-1, 3)[:, None]
  x = np.abs(place - at)
  weights = np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x) ** 3 / 6)
  return at.astype(np.int32), weights.astype(np.float32)


def _values(image: Shaped[Array, '*S']) -> Float[Array, '*S']:
  return image / jnp.float32(255) if image.dtype == jnp.uint8 else image.astype(jnp.float32)
