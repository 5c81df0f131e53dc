"""From light on the sensor to the image that a camera stores: gains, noise, white, gamma, JPEG, eight bits.

Plain JAX; differentiable in the light, roundings straight through.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.errors import InputError
from focal_jax.simulate.draws import Draws

GAMMA = 2.2
BLOCK = 8
# Below this much light an image is black in eight bits; above it the slope of the gamma curve is finite.
_BLACK = (0.49 / 255) ** GAMMA

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
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclasses.dataclass(frozen=True)
class SensorSettings:
  """What is drawn for each stack; pairs are the ends of a uniform distribution. Light and noise are linear, white is 1.

  Raises:
    InputError: naming the field, for a pair in the wrong order or out of range.
  """

  shot_noise: tuple[float, float] = (0.0, 0.03)  # standard deviation at white: 1 / sqrt(electrons of a full well)
  read_noise: tuple[float, float] = (0.0, 0.002)  # standard deviation in the dark
  jpeg_quality: tuple[float, float] | None = (60.0, 98.0)  # libjpeg's scale, 1 .. 100; None: never JPEG
  without_jpeg: float = 0.5  # share of stacks without loss

  def __post_init__(self):
    limits = {'shot_noise': (0, np.inf), 'read_noise': (0, np.inf), 'jpeg_quality': (1, 100)}
    for field, (low, high) in limits.items():
      pair = getattr(self, field)
      if pair is None and field == 'jpeg_quality':
        continue
      if not (isinstance(pair, tuple) and len(pair) == 2 and low <= pair[0] <= pair[1] <= high):
        raise InputError(f'simulator.sensor.{field} is {pair!r}, expected two numbers from {low} to {high}, rising')
    if not 0 <= self.without_jpeg <= 1:
      raise InputError(f'simulator.sensor.without_jpeg is {self.without_jpeg}, expected a share from 0 to 1')


def record(
  key: PRNGKeyArray,
  light: Float[Array, 'N H W 3'],
  exposure: Float[Array, ' N'],
  white_balance: Float[Array, 'N 3'],
  settings: SensorSettings = SensorSettings(),
) -> Float[Array, 'N H W 3']:
  """Display values 0 .. 1 in steps of 1/255 of linear light >= 0 (1 is white, more is clipped).

  Args:
    exposure, white_balance: factors on the light of each frame, and of its red, green and blue.
  """
  scalars_key, noise_key = random.split(key)
  draw = Draws(scalars_key, 4)
  light = light * (exposure[:, None] * white_balance)[:, None, None]
  light = add_noise(noise_key, light, draw.uniform(*settings.shot_noise), draw.uniform(*settings.read_noise))
  display = jnp.clip(light, _BLACK, 1.0) ** (1 / GAMMA)
  if settings.jpeg_quality is not None:
    # A condition, not a selection: stacks without JPEG do not wait for it.
    quality = draw.uniform(*settings.jpeg_quality)
    display = lax.cond(draw.uniform() < settings.without_jpeg, lambda x: x, lambda x: jpeg(x, quality), display)
  return round_through(display * 255) / 255


def add_noise(
  key: PRNGKeyArray, light: Float[Array, '*S'], shot: Float[Array, ''], read: Float[Array, '']
) -> Float[Array, '*S']:
  """Light with noise of variance shot^2 light + read^2, not yet clipped."""
  variance = shot**2 * jnp.maximum(light, 0.0) + read**2  # resampled light may ring below 0
  # The epsilon keeps the root's gradient finite in the dark, and is too small to be seen there.
  return light + jnp.sqrt(variance + 1e-14) * nearly_normal(key, light.shape)


def nearly_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, '*S']:
  """Random numbers of mean 0, variance 1, kurtosis 2.7 (a normal's is 3), within +-3.5.

  Each is the sum of the four bytes of a word. Random words are dear, so that there is one for the whole last axis (the
  colours of a pixel), from which a hash makes the others: lowbias32 (Wellons, "Prospecting for Hash Functions", 2018).
  """
  words = random.bits(key, shape[:-1])[..., None] + jnp.arange(shape[-1], dtype=jnp.uint32) * np.uint32(0x9E3779B9)
  words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
  words = (words ^ (words >> 15)) * np.uint32(0x846CA68B)
  words = words ^ (words >> 16)
  pairs = (words & 0x00FF00FF) + ((words >> 8) & 0x00FF00FF)
  total = (pairs & 0xFFFF) + (pairs >> 16)
  # A byte has mean 255 / 2 and variance (256^2 - 1) / 12.
  return (total.astype(jnp.float32) - 510.0) * np.float32((4 * (256**2 - 1) / 12) ** -0.5)


def round_through(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """Rounded, with the gradient of x itself."""
  return x + lax.stop_gradient(jnp.round(x) - x)


def jpeg(display: Float[Array, 'N H W 3'], quality: Float[Array, '']) -> Float[Array, 'N H W 3']:
  """What JPEG leaves of images 0 .. 1 at libjpeg's quality 1 .. 100, before it is rounded to eight bits again.

  Baseline, with full chrominance resolution (4:4:4); edges are repeated up to whole blocks of 8 x 8.
  """
  n, height, width, _ = display.shape
  rows, columns = -(-height // BLOCK), -(-width // BLOCK)
  y, cb, cr = _mix_colours(_YCBCR, 255 * jnp.moveaxis(display, -1, 0))
  planes = round_through(jnp.stack([y - 128, cb, cr]))  # as codecs do
  planes = jnp.pad(planes, ((0, 0), (0, 0), (0, rows * BLOCK - height), (0, columns * BLOCK - width)), mode='edge')
  blocks = planes.reshape(3, n, rows, BLOCK, columns, BLOCK).swapaxes(3, 4).reshape(3, -1, BLOCK**2)
  # One product with the 64 x 64 matrix of both directions is faster than two with 8 x 8.
  transform = np.kron(cosine_matrix(), cosine_matrix()).astype(np.float32)
  step = quantisation(quality).reshape(3, 1, -1)
  coefficients = jnp.matmul(blocks, transform.T, precision=lax.Precision.HIGHEST)
  blocks = jnp.matmul(round_through(coefficients / step) * step, transform, precision=lax.Precision.HIGHEST)
  planes = blocks.reshape(3, n, rows, columns, BLOCK, BLOCK).swapaxes(3, 4)
  y, cb, cr = planes.reshape(3, n, rows * BLOCK, columns * BLOCK)[..., :height, :width]
  rgb = _mix_colours(np.linalg.inv(_YCBCR), (y + 128, cb, cr))
  return jnp.clip(jnp.stack(rgb, axis=-1) / 255, 0.0, 1.0)


def _mix_colours(matrix: np.ndarray, planes) -> list[Array]:
  """Weighted sums of three planes: several times as fast as a product with so small a matrix."""
  return [sum(float(weight) * plane for weight, plane in zip(row, planes, strict=True)) for row in matrix]


def cosine_matrix() -> Float[np.ndarray, '8 8']:
  """Orthonormal DCT-II: row k holds the cosine of frequency k."""
  k, x = np.mgrid[:BLOCK, :BLOCK]
  return np.cos(np.pi * k * (2 * x + 1) / (2 * BLOCK)) * np.where(k == 0, np.sqrt(0.5), 1.0) * np.sqrt(2 / BLOCK)


def quantisation(quality: Float[Array, '']) -> Float[Array, '3 8 8']:
  """Steps of Y, Cb and Cr, scaled as libjpeg does: 1 .. 255."""
  percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
  tables = np.stack([LUMINANCE, CHROMINANCE, CHROMINANCE]).astype(np.float32)
  return jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)
