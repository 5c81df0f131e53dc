"""Procedural scenes: overlapping textured surfaces with real depth order (dead leaves in depth).

A scene is a list of surfaces sorted far to near. Each is complete, with colour behind whatever covers it, so that a
blurred edge in front can let the background through. The first one is a background that fills the image.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.simulate.defocus import frequencies
from focal_jax.simulate.draws import Draws


@flax.struct.dataclass
class Scene:
  """Surfaces far to near. K surfaces, S canvas side in px."""

  colour: Float[Array | np.ndarray, '*B K 3 S S']  # linear light, 0 .. 1
  alpha: Float[Array | np.ndarray, '*B K S S']  # 0 .. 1, antialiased
  position: Float[
    Array | np.ndarray, '*B K S S'
  ]  # place between the first (0) and last (1) focus of a sweep, linear in dioptres


def top_position(scene: Scene) -> Float[Array, 'S S']:
  """Position of the nearest surface that covers each pixel."""

  def over(below, surface):
    alpha, position = surface
    return jnp.where(alpha > 0.5, position, below), None

  return jax.lax.scan(over, scene.position[0], (scene.alpha, scene.position))[0]


def draw_scene(key: PRNGKeyArray, num_surfaces: int, side: int, shape_px: tuple[float, float] = (4.0, 64.0)) -> Scene:
  """A random scene; half-axes of its shapes are log-uniform in `shape_px`."""
  depth_key, range_key, *keys = random.split(key, 2 + num_surfaces)
  # A scene fills part of the sweep's range or all of it, and a little beyond.
  ends = jnp.sort(random.uniform(range_key, (2,), minval=-0.05, maxval=1.05))
  # One base position each; sorting them is the depth order, the farthest is the background.
  base = ends[0] + (ends[1] - ends[0]) * jnp.sort(random.uniform(depth_key, (num_surfaces,)))
  is_background = jnp.arange(num_surfaces) == 0
  colour, alpha, position = jax.vmap(_draw_surface, in_axes=(0, 0, 0, None, None))(
    jnp.stack(keys), base, is_background, side, shape_px
  )
  return Scene(colour=colour, alpha=alpha, position=position)


def _draw_surface(key: PRNGKeyArray, base, is_background, side: int, shape_px: tuple[float, float]):
  shape_key, slant_key, texture_key = random.split(key, 3)
  axis = jnp.arange(side) - (side - 1) / 2
  y, x = jnp.meshgrid(axis, axis, indexing='ij')
  alpha = jnp.where(is_background, 1.0, _shape(shape_key, x, y, shape_px))
  # A plane in space is linear in inverse depth. Backgrounds slant more: floors and walls. Many surfaces face the
  # camera.
  draw = Draws(slant_key, 4)
  slant = [jnp.where(draw.uniform() < 0.7, draw.normal(), 0.0) for _ in range(2)]
  slope = jnp.where(is_background, 0.3, 0.1) / side
  return _texture(texture_key, x, y), alpha, base + slope * (slant[0] * x + slant[1] * y)


def _shape(key: PRNGKeyArray, x, y, shape_px: tuple[float, float]):
  """Alpha of a rotated superellipse: diamonds, ellipses, near-rectangles, thin bars."""
  side = x.shape[0]
  draw = Draws(key, 6)
  centre_x, centre_y = draw.uniform(-side / 2, side / 2), draw.uniform(-side / 2, side / 2)
  half_width, half_height = draw.log_uniform(*shape_px), draw.log_uniform(*shape_px)
  power = draw.log_uniform(1.0, 12.0)
  u, v = _rotate(x - centre_x, y - centre_y, draw.uniform(0.0, math.pi))
  # The epsilon keeps the power's gradient finite on the axes.
  radius = (jnp.abs(u / half_width) + 1e-6) ** power + (jnp.abs(v / half_height) + 1e-6) ** power
  # (radius - 1) times a half axis is about the distance to the edge in px.
  return jnp.clip(0.5 - (radius ** (1 / power) - 1.0) * jnp.minimum(half_width, half_height), 0.0, 1.0)


def _rotate(x, y, angle):
  return jnp.cos(angle) * x + jnp.sin(angle) * y, jnp.cos(angle) * y - jnp.sin(angle) * x


def _texture(key: PRNGKeyArray, x, y) -> Float[Array, '3 S S']:
  """Linear-light colour of one of five kinds of texture, between two random colours, plus a gradient of light."""
  noise_key, key = random.split(key)
  side = x.shape[0]
  draw = Draws(key, 20)
  noise = random.normal(noise_key, (side, side))

  # Noise with spectrum 1 / frequency^slope: from grain to clouds.
  coloured = jnp.fft.rfft2(noise) / (frequencies(side) + 1 / side) ** draw.uniform(0.3, 2.0)
  coloured = jnp.fft.irfft2(coloured, s=(side, side))
  coloured = coloured / (jnp.std(coloured) + 1e-6)

  u, v = _rotate(x, y, draw.uniform(0.0, math.pi))
  period, hardness = draw.log_uniform(3.0, 30.0), draw.log_uniform(0.4, 12.0)
  stripes = jnp.tanh(hardness * jnp.sin(2 * jnp.pi * u / period)) / jnp.tanh(hardness)
  checks = stripes * jnp.tanh(hardness * jnp.sin(2 * jnp.pi * v / period)) / jnp.tanh(hardness)

  # Cells of random grey, as letters and tiles have: rows twice as high as their letters are wide.
  cell = jnp.maximum(period / 3, 1.5)
  rows, columns = jnp.floor(v / (2 * cell)).astype(int) % side, jnp.floor(u / cell).astype(int) % side
  cells = jnp.sign(noise[rows, columns] - draw.uniform(-0.5, 1.0))

  kinds = jnp.stack([coloured, 0.7 * coloured, stripes, checks, cells])
  pattern = kinds[jnp.floor(draw.uniform(0.0, len(kinds))).astype(int)]
  # Faint noise on everything: nothing printed or painted is perfectly even.
  pattern = draw.log_uniform(0.02, 1.0) * pattern + draw.uniform(0.0, 0.1) * coloured
  mix = jnp.clip(0.5 + 0.4 * pattern, 0.0, 1.0)

  saturation = draw.uniform(0.0, 0.5)
  colours = []
  for _ in range(2):
    grey = draw.uniform()
    tint = jnp.stack([draw.uniform(-0.5, 0.5) for _ in range(3)])
    colours.append(jnp.clip(grey + saturation * tint, 0.02, 1.0)[:, None, None] ** 2.2)
  shade = jnp.clip(1.0 + 0.3 / side * (draw.normal() * x + draw.normal() * y), 0.3, 2.0)
  return jnp.clip((colours[0] * (1 - mix) + colours[1] * mix) * shade, 0.0, 1.0)
