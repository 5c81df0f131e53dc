"""Defocus by a disc-shaped circle of confusion of any radius, varying over a surface, with occlusion between surfaces.

A disc is applied as its exact transfer function, so that the radius is continuous and radius 0 changes nothing. Each
surface is blurred at a few fixed radii and a pixel takes the linear mixture of the two nearest to its own.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

RADII_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.5, 9.0)


def bessel_j1(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """Bessel function of the first kind and order 1, x >= 0; absolute error below 1e-6.

  Abramowitz and Stegun, Handbook of Mathematical Functions, 9.4.4 and 9.4.6.
  """
  small = jnp.minimum(x, 3.0)
  t = (small / 3.0) ** 2
  series = (0.5, -0.56249985, 0.21093573, -0.03954289, 0.00443319, -0.00031761, 0.00001109)
  near = small * jnp.polyval(jnp.array(series[::-1]), t)
  large = jnp.maximum(x, 3.0)
  t = 3.0 / large
  amplitude = (0.79788456, 0.00000156, 0.01659667, 0.00017105, -0.00249511, 0.00113653, -0.00020033)
  phase = (-2.35619449, 0.12499612, 0.0000565, -0.00637879, 0.00074348, 0.00079824, -0.00029166)
  far = jnp.polyval(jnp.array(amplitude[::-1]), t) / jnp.sqrt(large)
  far = far * jnp.cos(large + jnp.polyval(jnp.array(phase[::-1]), t))
  return jnp.where(x < 3.0, near, far)


def frequencies(side: int) -> Float[Array, 'S F']:
  """Magnitude of the frequencies of `rfft2` on side x side px, cycles per px."""
  return jnp.hypot(*jnp.meshgrid(jnp.fft.fftfreq(side), jnp.fft.rfftfreq(side), indexing='ij'))


def disc_transfer(radius_px: Float[Array, '*R'], side: int) -> Float[Array, '*R S F']:
  """Transfer function of a uniform disc on the frequencies of `rfft2`: 2 J1(z) / z, z = 2 pi radius frequency."""
  z = 2 * jnp.pi * jnp.asarray(radius_px)[..., None, None] * frequencies(side)
  return jnp.where(z > 1e-4, 2 * bessel_j1(z) / jnp.maximum(z, 1e-4), 1.0)


def gaussian_transfer(sigma_px: Float[Array, ''], side: int) -> Float[Array, 'S F']:
  """Transfer function of a Gaussian of the given standard deviation."""
  return jnp.exp(-2 * (jnp.pi * sigma_px * frequencies(side)) ** 2)


def mixture_weights(radius_px: Float[Array, '*S']) -> list[Float[Array, '*S']]:
  """Weight of each of RADII_PX in the linear interpolation at a radius; radii beyond the last count as the last."""
  rising = [
    jnp.clip((radius_px - low) / (high - low), 0.0, 1.0) for low, high in zip(RADII_PX, RADII_PX[1:], strict=False)
  ]
  return [a - b for a, b in zip([jnp.ones_like(radius_px), *rising], [*rising, jnp.zeros_like(radius_px)], strict=True)]


def render(
  colour: Float[Array, 'K 3 S S'],
  alpha: Float[Array, 'K S S'],
  radius_px: Float[Array, 'N K S S'],
  lens_sigma_px: Float[Array, ''],
) -> Float[Array, 'N 3 S S']:
  """Frames of a scene whose surfaces lie far to near, composited with the "over" operator on blurred, premultiplied
  colour.

  Args:
    colour, alpha: the surfaces, in linear light.
    radius_px: radius of the circle of confusion at every pixel of every surface in every frame, >= 0.
    lens_sigma_px: Gaussian blur of lens and pixel, on top of the disc, at every depth.

  The blur is periodic: leave a margin as wide as the largest radius around what is to be seen.
  """
  side = colour.shape[-1]
  transfer = disc_transfer(jnp.array(RADII_PX), side) * gaussian_transfer(lens_sigma_px, side)

  def over(behind, surface):
    colour, alpha, radius_px = surface
    premultiplied = jnp.concatenate([colour * alpha, alpha[None]])
    spectrum = jnp.fft.rfft2(premultiplied)
    levels = jnp.fft.irfft2(spectrum[None] * transfer[:, None], s=(side, side))
    blurred = sum(w[:, None] * level for w, level in zip(mixture_weights(radius_px), levels, strict=True))
    # A sampled disc rings: where alpha overshoots 1 the colour must not, or the edge would shine.
    blurred_alpha = jnp.clip(blurred[:, 3:], 0.0, 1.0)
    blurred_colour = jnp.maximum(blurred[:, :3], 0.0) / jnp.maximum(blurred[:, 3:], 1.0)
    return blurred_colour + (1.0 - blurred_alpha) * behind, None

  black = jnp.zeros((radius_px.shape[0], 3, side, side))
  frames, _ = jax.lax.scan(over, black, (colour, alpha, jnp.moveaxis(radius_px, 1, 0)))
  return frames
