"""From light on the sensor to the image that a camera stores.

In this order: vignetting and gains, noise, clipping at white, gamma, tone curve and colour saturation, denoising,
sharpening, JPEG, rounding to eight bits. Plain JAX; differentiable in the light, with rounding passing the gradient
straight through. Expensive steps use `lax.cond`, so that stacks without them do not pay for them.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.errors import InputError
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.filters import gaussian_blur, round_straight_through
from focal_jax.simulate.jpeg import YCBCR, jpeg
from focal_jax.simulate.noise import add_noise, correlate_noise

GAMMA = 2.2
# Below this much light an image is black in eight bits; above it the slope of the gamma curve is finite.
_BLACK = (0.49 / 255) ** GAMMA

# Random parameters of stacks that have the effect; sigma is that of a Gaussian.
LUMINANCE_NOISE_PX = (0.3, 1.2)  # uniform: sigma of the filter that correlates noise
CHROMA_NOISE_WIDER = (1.2, 2.0)  # uniform: factor on sigma for chroma noise, which is blotchier
DENOISER_PX = (0.7, 1.5)  # uniform: sigma of the denoiser's estimate of the noise-free image
DENOISER_THRESHOLD = (0.003, 0.03)  # log-uniform: amount by which it shrinks detail, in display values
SHARPENING = (0.1, 1.5)  # log-uniform: factor on the detail that is added
SHARPENING_PX = (0.6, 2.0)  # uniform: sigma of the blur that detail is the difference from


@dataclasses.dataclass(frozen=True)
class SensorSettings:
  """Random parameters of each stack, the same for all its frames. Light and noise are linear, white is 1.

  Pairs are the ends of a uniform distribution; for noise it is log-uniform, because cameras differ by orders of
  magnitude. Shares are shares of the stacks, 0 .. 1.

  Raises:
    InputError: naming the field, for a pair in the wrong order or out of range.
  """

  vignetting: float = 0.3  # maximum darkening at the corners, 0 .. 0.95; drawn uniformly from 0
  exposure_stops: tuple[float, float] = (-1.0, 0.7)  # exposure of the whole stack: dark, or with clipped highlights
  shot_noise: tuple[float, float] = (3e-4, 0.03)  # standard deviation at white: 1 / sqrt(electrons of a full well)
  read_noise: tuple[float, float] = (3e-5, 3e-3)  # standard deviation in the dark; (0, 0) disables either noise
  noiseless: float = 0.15  # share without any noise
  correlated: float = 0.4  # share whose noise is correlated between neighbours, as after demosaicing
  contrast: tuple[float, float] = (0.8, 1.3)  # steepness of the tone curve at middle grey, 0.5 .. 1.5; 1 is straight
  saturation: tuple[float, float] = (0.5, 1.3)  # factor on colour saturation: 0 is grey, 1 unchanged
  denoised: float = 0.15  # share that is denoised, which removes faint texture
  sharpened: float = 0.25  # share that is sharpened by an unsharp mask, with halos along edges
  jpeg_quality: tuple[float, float] | None = (60.0, 98.0)  # JPEG quality on libjpeg's scale, 1 .. 100; None: no JPEG
  without_jpeg: float = 0.5  # share without JPEG
  chroma_subsampled: float = 0.5  # share of the JPEG stacks with chroma at half resolution (4:2:0)

  def __post_init__(self):
    limits = {'exposure_stops': (-10, 10), 'contrast': (0.5, 1.5), 'saturation': (0, 4), 'jpeg_quality': (1, 100)}
    for field, (low, high) in limits.items():
      pair = getattr(self, field)
      if pair is None and field == 'jpeg_quality':
        continue
      if not (isinstance(pair, tuple) and len(pair) == 2 and low <= pair[0] <= pair[1] <= high):
        raise InputError(f'simulator.sensor.{field} is {pair!r}, expected two numbers from {low} to {high}, rising')
    for field in ('shot_noise', 'read_noise'):
      pair = getattr(self, field)
      if pair != (0, 0) and not (isinstance(pair, tuple) and len(pair) == 2 and 0 < pair[0] <= pair[1] < np.inf):
        raise InputError(f'simulator.sensor.{field} is {pair!r}, expected two numbers above 0, rising, or (0, 0)')
    for field in ('noiseless', 'correlated', 'denoised', 'sharpened', 'without_jpeg', 'chroma_subsampled'):
      if not 0 <= getattr(self, field) <= 1:
        raise InputError(f'simulator.sensor.{field} is {getattr(self, field)}, expected a share from 0 to 1')
    if not 0 <= self.vignetting <= 0.95:
      raise InputError(f'simulator.sensor.vignetting is {self.vignetting}, expected a number from 0 to 0.95')


# Nothing but gamma and eight bits.
IDEAL = SensorSettings(
  vignetting=0.0,
  exposure_stops=(0.0, 0.0),
  shot_noise=(0.0, 0.0),
  read_noise=(0.0, 0.0),
  noiseless=0.0,
  correlated=0.0,
  contrast=(1.0, 1.0),
  saturation=(1.0, 1.0),
  denoised=0.0,
  sharpened=0.0,
  jpeg_quality=None,
)


class _Parameters(NamedTuple):
  """The random numbers of one camera; those that switch an effect on are 0 .. 1, to be compared with its share."""

  darkening: Float[Array, '']
  stops: Float[Array, '']
  shot: Float[Array, '']
  read: Float[Array, '']
  noiseless: Float[Array, '']
  correlated: Float[Array, '']
  luminance_noise_px: Float[Array, '']
  chroma_noise_wider: Float[Array, '']
  contrast: Float[Array, '']
  saturation: Float[Array, '']
  denoised: Float[Array, '']
  denoiser_px: Float[Array, '']
  denoiser_threshold: Float[Array, '']
  sharpened: Float[Array, '']
  sharpening: Float[Array, '']
  sharpening_px: Float[Array, '']
  without_jpeg: Float[Array, '']
  jpeg_quality: Float[Array, '']
  chroma_subsampled: Float[Array, '']


def _draw_parameters(key: PRNGKeyArray, settings: SensorSettings) -> _Parameters:
  # Everything is drawn whatever the settings, so that disabling one effect does not change the others.
  draw = Draws(key, len(_Parameters._fields))
  return _Parameters(
    darkening=draw.uniform(0.0, settings.vignetting),
    stops=draw.uniform(*settings.exposure_stops),
    shot=draw.log_uniform(*settings.shot_noise),
    read=draw.log_uniform(*settings.read_noise),
    noiseless=draw.uniform(),
    correlated=draw.uniform(),
    luminance_noise_px=draw.uniform(*LUMINANCE_NOISE_PX),
    chroma_noise_wider=draw.uniform(*CHROMA_NOISE_WIDER),
    contrast=draw.uniform(*settings.contrast),
    saturation=draw.uniform(*settings.saturation),
    denoised=draw.uniform(),
    denoiser_px=draw.uniform(*DENOISER_PX),
    denoiser_threshold=draw.log_uniform(*DENOISER_THRESHOLD),
    sharpened=draw.uniform(),
    sharpening=draw.log_uniform(*SHARPENING),
    sharpening_px=draw.uniform(*SHARPENING_PX),
    without_jpeg=draw.uniform(),
    jpeg_quality=draw.uniform(*(settings.jpeg_quality or (100.0, 100.0))),
    chroma_subsampled=draw.uniform(),
  )


def record(
  key: PRNGKeyArray,
  light: Float[Array, 'N H W 3'],
  exposure: Float[Array, ' N'],
  white_balance: Float[Array, 'N 3'],
  settings: SensorSettings = SensorSettings(),
  field: float = 1.0,
) -> Float[Array, 'N H W 3']:
  """Display values 0 .. 1 in steps of 1/255 from linear light >= 0 (1 is white, values above it are clipped).

  Args:
    key: determines the random parameters and the noise.
    light: linear light of the frames.
    exposure, white_balance: factors on the light of each frame, and of its red, green and blue.
    settings: distributions of the random parameters.
    field: share of the width of the camera's full image that the frames show, centred.
  """
  scalars_key, noise_key = random.split(key)
  drawn = _draw_parameters(scalars_key, settings)
  light = light * (exposure[:, None] * white_balance)[:, None, None]
  light = _expose(light, drawn, settings, field)

  def noisy(light):
    def spread(noise):
      luminance_px = drawn.luminance_noise_px
      return correlate_noise(noise, luminance_px, drawn.chroma_noise_wider * luminance_px)

    return add_noise(
      noise_key,
      light,
      drawn.shot,
      drawn.read,
      lambda x: _apply_to_share(drawn.correlated, settings.correlated, spread, x),
    )

  if settings.shot_noise != (0, 0) or settings.read_noise != (0, 0):
    light = _apply_to_share(1.0 - drawn.noiseless, 1.0 - settings.noiseless, noisy, light)
  display = _develop(light, drawn, settings)
  display = _apply_to_share(
    drawn.denoised, settings.denoised, lambda x: denoise(x, drawn.denoiser_px, drawn.denoiser_threshold), display
  )
  display = _sharpen(display, drawn, settings)
  if settings.jpeg_quality is not None:
    is_jpeg, is_subsampled = (
      drawn.without_jpeg >= settings.without_jpeg,
      drawn.chroma_subsampled < settings.chroma_subsampled,
    )
    display = lax.switch(
      is_jpeg * (1 + is_subsampled.astype(int)),
      [lambda x: x, *(lambda x, half=half: jpeg(x, drawn.jpeg_quality, half) for half in (False, True))],
      display,
    )
  return round_straight_through(display * 255) / 255


def record_without_loss(
  key: PRNGKeyArray, light: Float[Array, 'H W 3'], settings: SensorSettings = SensorSettings(), field: float = 1.0
) -> Float[Array, 'H W 3']:
  """`record` with the same key, but without noise, denoising, JPEG, and the gains of single frames."""
  drawn = _draw_parameters(random.split(key)[0], settings)
  display = _develop(_expose(light[None], drawn, settings, field), drawn, settings)
  return round_straight_through(_sharpen(display, drawn, settings)[0] * 255) / 255


def _apply_to_share(number: Float[Array, ''], share: float, change: Callable[[Array], Array], x: Array) -> Array:
  """change(x) if `number`, 0 .. 1, is below `share`, else x. Uses `cond`, so that it costs time only when needed."""
  return lax.cond(number < share, change, lambda x: x, x) if share else x


def _expose(light: Float[Array, 'N H W 3'], drawn: _Parameters, settings: SensorSettings, field: float) -> Array:
  if settings.exposure_stops != (0, 0):
    light = light * jnp.exp2(drawn.stops)
  if settings.vignetting:
    light = light * vignetting(drawn.darkening, *light.shape[1:3], field)[..., None]
  return light


def vignetting(darkening: Float[Array, ''], height: int, width: int, field: float = 1.0) -> Float[Array, 'H W']:
  """Share of the light that reaches each pixel: cos^4 of its angle from the axis, 1 - darkening at the corners of the
  full image.

  Args:
    darkening: at the corners, 0 .. 1.
    height, width: size of the frame, px.
    field: share of the width of the full image that the frame shows, centred.
  """
  y, x = jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2
  square = (y[:, None] ** 2 + x**2) * (field**2 / (y[0] ** 2 + x[0] ** 2))
  return (1.0 + (lax.rsqrt(1.0 - darkening) - 1.0) * square) ** -2


def _develop(light: Float[Array, 'N H W 3'], drawn: _Parameters, settings: SensorSettings) -> Array:
  """Converts light to display values."""
  display = jnp.clip(light, _BLACK, 1.0) ** (1 / GAMMA)
  if settings.contrast != (1, 1):
    display = tone(display, drawn.contrast)
  if settings.saturation != (1, 1):
    grey = _luminance(display)[..., None]
    display = jnp.clip(grey + drawn.saturation * (display - grey), 0.0, 1.0)
  return display


def tone(display: Float[Array, '*S'], steepness: Float[Array, '']) -> Float[Array, '*S']:
  """Tone curve: the cubic from 0 to 1 with slope `steepness`, 0.5 .. 1.5, at 0.5, and 3 - 2 steepness at the ends."""
  return display + 2 * (steepness - 1.0) * display * (1.0 - display) * (2 * display - 1.0)


def _luminance(display: Float[Array, '*S 3']) -> Float[Array, '*S']:
  return sum(float(weight) * display[..., i] for i, weight in enumerate(YCBCR[0]))


def denoise(
  display: Float[Array, 'N H W 3'], sigma_px: Float[Array, ''], threshold: Float[Array, '']
) -> Float[Array, 'N H W 3']:
  """Shrinks detail, the difference from a Gaussian blur, by the threshold; fainter detail is lost.

  Soft thresholding as in Donoho, "De-noising by soft-thresholding", 1995, who applies it to wavelets.
  """
  planes = jnp.moveaxis(display, -1, 0)
  smooth = jnp.moveaxis(gaussian_blur(planes, sigma_px, 5, (2, 3)), 0, -1)
  detail = display - smooth
  return smooth + detail - jnp.clip(detail, -threshold, threshold)


def _sharpen(display: Float[Array, 'N H W 3'], drawn: _Parameters, settings: SensorSettings) -> Array:
  return _apply_to_share(
    drawn.sharpened, settings.sharpened, lambda x: unsharp_mask(x, drawn.sharpening, drawn.sharpening_px), display
  )


def unsharp_mask(
  display: Float[Array, 'N H W 3'], amount: Float[Array, ''], sigma_px: Float[Array, '']
) -> Float[Array, 'N H W 3']:
  """Adds `amount` times the difference of luminance from its Gaussian blur (sigma up to 2 px) to every colour."""
  luminance = _luminance(display)
  detail = luminance - gaussian_blur(luminance, sigma_px, 6, (1, 2))
  return jnp.clip(display + amount * detail[..., None], 0.0, 1.0)
