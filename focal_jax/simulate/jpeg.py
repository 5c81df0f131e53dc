"""Lossy JPEG compression. Plain JAX; rounding passes the gradient straight through."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from focal_jax.simulate.filters import round_straight_through
from focal_jax.warp import double

BLOCK = 8

# ITU-T T.81 (JPEG), annex K, tables K.1 and K.2.
LUMINANCE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ]
)
CHROMINANCE = np.full((BLOCK, BLOCK), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# JFIF's luminance and chrominance, rows Y, Cb, Cr.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def jpeg(
  display: Float[Array, 'N H W 3'], quality: Float[Array, ''], chroma_subsampled: bool = False
) -> Float[Array, 'N H W 3']:
  """Images 0 .. 1 after JPEG at libjpeg's quality 1 .. 100, before rounding to eight bits.

  Baseline JPEG; edges are repeated up to whole blocks of 8 x 8.

  Args:
    display: display values 0 .. 1.
    quality: 1 .. 100.
    chroma_subsampled: chrominance at half the resolution along both axes (4:2:0) instead of full resolution (4:4:4).
  """
  y, cb, cr = _convert_colours(YCBCR, 255 * jnp.moveaxis(display, -1, 0))
  planes = round_straight_through(jnp.stack([y - 128, cb, cr]))  # codecs convert colours in integers
  tables = quantisation(quality)
  if chroma_subsampled:
    y, (cb, cr) = (
      _quantise(planes[:1], tables[:1])[0],
      _upsample(_quantise(_downsample(planes[1:]), tables[1:]), *y.shape[1:]),
    )
  else:
    y, cb, cr = _quantise(planes, tables)
  rgb = _convert_colours(np.linalg.inv(YCBCR), (y + 128, cb, cr))
  return jnp.clip(jnp.stack(rgb, axis=-1) / 255, 0.0, 1.0)


def _quantise(planes: Float[Array, 'C N H W'], tables: Float[Array, 'C 8 8']) -> Float[Array, 'C N H W']:
  """Planes after rounding the cosine coefficients of their blocks to multiples of the quantisation steps."""
  channels, n, height, width = planes.shape
  planes = _pad_to_multiple(planes, BLOCK)
  rows, columns = planes.shape[2] // BLOCK, planes.shape[3] // BLOCK
  blocks = planes.reshape(channels, n, rows, BLOCK, columns, BLOCK).swapaxes(3, 4).reshape(channels, -1, BLOCK**2)
  # One product with the 64 x 64 matrix of both directions is faster than two with 8 x 8.
  transform = np.kron(cosine_matrix(), cosine_matrix()).astype(np.float32)
  step = tables.reshape(channels, 1, -1)
  coefficients = jnp.matmul(blocks, transform.T, precision=lax.Precision.HIGHEST)
  blocks = jnp.matmul(round_straight_through(coefficients / step) * step, transform, precision=lax.Precision.HIGHEST)
  planes = blocks.reshape(channels, n, rows, columns, BLOCK, BLOCK).swapaxes(3, 4)
  return planes.reshape(channels, n, rows * BLOCK, columns * BLOCK)[..., :height, :width]


def _pad_to_multiple(planes: Float[Array, 'C N H W'], multiple: int) -> Float[Array, 'C N h w']:
  """Pads to the next multiple of a number of pixels by repeating edges."""
  return jnp.pad(planes, ((0, 0), (0, 0), *((0, -side % multiple) for side in planes.shape[2:])), mode='edge')


def _downsample(planes: Float[Array, 'C N H W']) -> Float[Array, 'C N h w']:
  """Rounded means of 2 x 2 pixels, padded to whole blocks."""
  filled = _pad_to_multiple(planes, 2 * BLOCK)
  channels, n, height, width = filled.shape
  return round_straight_through(filled.reshape(channels, n, height // 2, 2, width // 2, 2).mean((3, 5)))


def _upsample(planes: Float[Array, 'C N h w'], height: int, width: int) -> Float[Array, 'C N H W']:
  """Doubles the number of pixels along both axes, cropped to a size: linear interpolation, libjpeg's "fancy
  upsampling".
  """
  for axis, size in ((2, height), (3, width)):
    # Cropped to the image first: its last chrominance pixel is repeated, not the padding of the last block.
    planes = lax.slice_in_dim(planes, 0, -(-size // 2), axis=axis)
    planes = lax.slice_in_dim(double(planes, axis), 0, size, axis=axis)
  return planes


def _convert_colours(matrix: np.ndarray, planes) -> list[Array]:
  """Weighted sums of three planes, written out, which is several times as fast as a product with a 3 x 3 matrix."""
  return [sum(float(weight) * plane for weight, plane in zip(row, planes, strict=True)) for row in matrix]


def cosine_matrix() -> Float[np.ndarray, '8 8']:
  """Orthonormal DCT-II: row k holds the cosine of frequency k."""
  k, x = np.mgrid[:BLOCK, :BLOCK]
  return np.cos(np.pi * k * (2 * x + 1) / (2 * BLOCK)) * np.where(k == 0, np.sqrt(0.5), 1.0) * np.sqrt(2 / BLOCK)


def quantisation(quality: Float[Array, '']) -> Float[Array, '3 8 8']:
  """Quantisation steps 1 .. 255 of Y, Cb and Cr, scaled like libjpeg's."""
  percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
  tables = np.stack([LUMINANCE, CHROMINANCE, CHROMINANCE]).astype(np.float32)
  return jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)
