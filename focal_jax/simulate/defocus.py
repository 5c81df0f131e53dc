"""Defocus by an aperture of any size, varying over a surface, with occlusion between surfaces. Plain JAX.

Each surface is blurred at a few fixed radii, once for all frames. In each frame a pixel interpolates linearly between
the two radii nearest to its own. Radius 0 is the surface itself, so content in focus is exactly sharp. Surfaces are
then composited from far to near, premultiplied by their blurred alpha, so that what lies behind a blurred edge shows
through it.

Images are [H, C, W] in this module: all channels of a row are contiguous, so that resampling rows is one matrix
product.

There are two apertures: the disc of an ordinary lens, whose radius is that of the circle of confusion, and the 9 x 9
grid of views from which a light field is refocused, whose "radius" is the distance between the images of neighbouring
views.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy.special import j1

from focal_jax.simulate.filters import gaussian_blur

# Radii at which surfaces are blurred, closer together where blur is small: pixels interpolate between neighbours, and a
# mixture of two discs resembles the disc between them only if they are similar.
DISC_RADII_PX = (0.0, 0.8, 1.6, 2.4, 3.4, 4.6, 6.4, 9.0, 12.5, 17.5, 25.0)
VIEWS = 9  # along each side of the grid
STENCIL_LIMIT_PX = 3.5  # up to this radius adding shifted images is faster than Fourier transforms


def disc_radii(largest_px: float | int) -> tuple[float, ...]:
  """The first of DISC_RADII_PX, up to and including the first one that reaches `largest_px`; at least two."""
  count = int(np.searchsorted(DISC_RADII_PX, largest_px)) + 1
  return DISC_RADII_PX[: max(count, 2)]


@functools.cache
def disc_kernel(radius_px: float) -> np.ndarray:
  """[2 n + 1, 2 n + 1] weights of the pixels under a disc. They sum to 1 and have the variance of the disc, radius^2 /
  4 per axis.

  The weight of a pixel is the share of it that a disc covers. With the weights concentrated at the pixel centres their
  variance differs slightly from the disc's, so a disc of another radius is rasterised, found by bisection.
  """
  n, fine = int(np.ceil(radius_px)), 32
  offsets = (np.arange((2 * n + 1) * fine) + 0.5) / fine - n - 0.5
  squares = offsets[:, None] ** 2 + offsets**2
  low, high = 0.0, radius_px + 1.0
  for _ in range(20):
    middle = (low + high) / 2
    kernel = (squares <= middle**2).reshape(2 * n + 1, fine, 2 * n + 1, fine).mean((1, 3))
    kernel /= max(kernel.sum(), 1e-9)
    variance = kernel.sum(0) @ (np.arange(-n, n + 1) ** 2)
    low, high = (middle, high) if variance < radius_px**2 / 4 else (low, middle)
  return kernel


def correlate(image: Float[Array, 'H C W'], kernel: np.ndarray) -> Float[Array, 'H C W']:
  """Correlation with a small kernel that is symmetric along both axes; edges repeated."""
  n = len(kernel) // 2
  height, _, width = image.shape
  padded = jnp.pad(image, ((n, n), (0, 0), (n, n)), mode='edge')

  def both(image, offset, axis, length):
    first, second = (
      lax.slice_in_dim(image, n + sign * offset, n + sign * offset + length, axis=axis) for sign in (1, -1)
    )
    return first + second if offset else first

  total = jnp.zeros_like(image)
  for i in range(n + 1):
    rows = both(padded, i, 0, height)
    for j in range(n + 1):
      if kernel[n + i, n + j]:
        total += kernel[n + i, n + j] * both(rows, j, 2, width)
  return total


def disc_transfer(radius_px: float, height: int, width: int) -> np.ndarray:
  """[H, W // 2 + 1] transfer function of a uniform disc at the frequencies of `rfft2`: 2 J1(z) / z, z = 2 pi r f.

  The disc is convolved with a pixel's square, as light is on a sensor, so that edges do not ring. Its radius is reduced
  such that disc and square together have the variance of the requested disc.
  """
  y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  z = np.maximum(2 * np.pi * np.sqrt(radius_px**2 - 1 / 3) * np.hypot(y, x), 1e-9)
  return (2 * j1(z) / z * np.sinc(y) * np.sinc(x)).astype(np.float32)


def views_transfer(step_px: float, height: int, width: int) -> np.ndarray:
  """[H, W // 2 + 1] transfer function of a 9 x 9 grid of points `step_px` apart, at the frequencies of `rfft2`."""
  places = step_px * (np.arange(VIEWS) - VIEWS // 2)
  y, x = (np.cos(2 * np.pi * f[:, None] * places).mean(1) for f in (np.fft.fftfreq(height), np.fft.rfftfreq(width)))
  return (y[:, None] * x).astype(np.float32)


def disc_levels(image: Float[Array, 'H C W'], radii_px: tuple[float, ...]) -> list[Float[Array, 'H C W']]:
  """The image blurred by a disc of each radius."""
  height, _, width = image.shape
  wide = [radius for radius in radii_px if radius > STENCIL_LIMIT_PX]
  levels = [correlate(image, disc_kernel(radius)) if radius else image for radius in radii_px[: -len(wide) or None]]
  return levels + filter_all(image, [disc_transfer(radius, height, width) for radius in wide])


def view_levels(image: Float[Array, 'H C W'], steps_px: tuple[float, ...]) -> list[Float[Array, 'H C W']]:
  """The image seen through the grid of views, for each distance between views; the first distance is 0."""
  height, _, width = image.shape
  return [image, *filter_all(image, [views_transfer(step, height, width) for step in steps_px[1:]])]


def filter_all(image: Float[Array, 'H C W'], transfers: list[np.ndarray]) -> list[Float[Array, 'H C W']]:
  """The image filtered by each transfer function [H, W // 2 + 1], with periodic borders."""
  if not transfers:
    return []
  spectrum = jnp.fft.rfft2(image.swapaxes(0, 1))
  filtered = jnp.fft.irfft2(spectrum * np.stack(transfers)[:, None], s=image.shape[::2])
  return list(filtered.swapaxes(1, 2))


def lens_blur(images: Float[Array, 'K H C W'], sigma_px: Float[Array, '']) -> Float[Array, 'K H C W']:
  """Gaussian blur of lens and pixel, sigma at most 2 px, edges repeated."""

  def blur(radius_px):
    return lambda images: gaussian_blur(images, sigma_px, radius_px, (1, 3))

  # Each radius covers three sigma. Uses `cond`, so that sharp lenses do not pay for the wide filter.
  return lax.cond(sigma_px <= 1.0, blur(3), blur(6), images)


def premultiply(
  colour: Float[Array, 'K 3 H W'], alpha: Float[Array, 'K H W'], lens_sigma_px: Float[Array, '']
) -> Float[Array, 'K H 4 W']:
  """Surfaces in the form that `render` and `compose` take: colour times alpha, and alpha, blurred by lens and pixel."""
  surfaces = jnp.concatenate([colour * alpha[:, None], alpha[:, None]], axis=1)
  return lens_blur(surfaces.swapaxes(1, 2), lens_sigma_px)


def compose(surfaces: Float[Array, 'K H 4 W'] | list[Float[Array, 'H 4 W']]) -> Float[Array, 'H 3 W']:
  """Composites premultiplied surfaces, far to near (Porter and Duff, "Compositing digital images", 1984)."""
  behind = jnp.zeros_like(surfaces[0][:, :3])
  for surface in surfaces:
    # Wide filters ring slightly beyond 0 .. 1. Colour does so too, but clipping it would add light.
    behind = surface[:, :3] + (1.0 - jnp.clip(surface[:, 3:], 0.0, 1.0)) * behind
  return behind


def render(
  surfaces: Float[Array, 'K H 4 W'],
  radius_px: Float[Array, 'N K H W'],
  radii_px: tuple[float, ...],
  through_views: bool = False,
) -> Float[Array, 'N H 3 W']:
  """Frames of a scene in linear light.

  Radii above `STENCIL_LIMIT_PX`, and views, wrap around at the borders: leave a margin as wide as the largest radius
  around the part that counts. For smaller radii, edges are repeated.

  Args:
    surfaces: far to near, premultiplied (`premultiply`), complete behind what covers them; the first should cover
      everything.
    radius_px: blur radius of every pixel of every surface in every frame, >= 0.
    radii_px: radii at which surfaces are blurred, from 0 upwards (`disc_radii`).
    through_views: the radius is that of the grid of views, not of a disc.
  """
  blur = view_levels if through_views else disc_levels

  def steps_of(surface):
    levels = blur(surface, radii_px)
    return [levels[0], *(above - below for below, above in itertools.pairwise(levels))]

  # A loop, because XLA stores its results; otherwise it would blur every surface again for every frame.
  steps = lax.map(steps_of, surfaces)

  def frame(radius_px):
    return compose([interpolate([step[k] for step in steps], radius, radii_px) for k, radius in enumerate(radius_px)])

  return jax.vmap(frame)(radius_px)


def interpolate(
  steps: list[Float[Array, 'H C W']], radius_px: Float[Array, 'H W'], radii_px: tuple[float, ...]
) -> Float[Array, 'H C W']:
  """Linear interpolation at the radius of each pixel, from the first level and the differences between levels.

  Radii beyond the last level take the last level.
  """
  radius_px, value = radius_px[:, None], steps[0]
  for step, (low, high) in zip(steps[1:], itertools.pairwise(radii_px), strict=True):
    value += jnp.clip(radius_px * (1 / (high - low)) - low / (high - low), 0.0, 1.0) * step
  return value
