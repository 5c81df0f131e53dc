"""Procedural scenes: overlapping textured surfaces with real depth order (dead leaves in depth).

A scene is a list of surfaces sorted far to near. Each is complete, with colour behind whatever covers it, so that the
background shows through a blurred edge in front. The first surface is a background that fills the canvas.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from focal_jax.errors import InputError
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.textures import Textures, draw_texture

POSITION_LIMITS = (-0.1, 1.1)  # surfaces that extend farther beyond the sweep's range are flattened here
SHALLOWEST = 0.05  # depth of the shallowest scene, as a share of the sweep's range
ANYWHERE_LIMITS = (-0.4, 1.4)  # POSITION_LIMITS for scenes that may extend beyond the sweep
FARTHEST_BACKGROUND = -0.5  # position of the farthest background, if backgrounds may lie beyond the sweep
CROSSING = 0.004  # difference in position over which one surface emerges from another, about one pixel
DRAWS = 64  # maximum number of random numbers for one surface
PATCH_ROUGHNESS = (1.2, 2.6)  # slope of the spectrum of the noise that decides where a patchy surface has texture
ROUGHNESS = (1.6, 3.0)  # slope of the spectrum of the bumps of rough surfaces: from gravel to dunes
BUMPS = (0.005, 0.15)  # standard deviation of these bumps as a share of the sweep's range
PATCH_LEVEL = (-1.0, 1.5)  # threshold of the patch noise, in standard deviations: from mostly to hardly textured


@dataclasses.dataclass(frozen=True)
class SceneSettings:
  """Surfaces of procedural scenes. Pairs are the ends of a log-uniform distribution; shares lie in 0 .. 1."""

  shape_px: tuple[float, float] = (6.0, 96.0)  # half-axes of surfaces
  thin_px: tuple[float, float] = (0.8, 6.0)  # width of wires, bars and rims
  period_px: tuple[float, float] = (3.0, 40.0)  # period of stripes, tiles and text
  contrast: tuple[float, float] = (0.05, 1.0)  # texture contrast, as a share of the distance between its two colours
  highlight_level: tuple[float, float] = (1.5, 20.0)  # brightness of highlights in linear light, where 1 is white
  thin: float = 0.35  # share of wires, rims, fences, grids and perforated plates
  curved: float = 0.5  # share of cylinders, balls, bowls and corrugated surfaces
  plain: float = 0.2  # share of surfaces with almost no texture
  patchy: float = 0.0  # share of surfaces that are textured only in patches, as walls are, and plain elsewhere
  highlights: float = 0.2  # share of surfaces with small, bright spots
  relief: float = 0.15  # maximum depth change from the centre of a surface to its edge, as a share of the sweep's range
  background_relief: float = 0.3  # the same for the background: floors and walls
  steep: float = 0.0  # share of surfaces with a relief drawn between the usual one and the sweep's whole range
  rough: float = 0.0  # share of surfaces with bumps of all sizes
  anywhere: float = 0.0  # share of scenes with any depth range, anywhere in the sweep's range or beyond its ends
  beyond: float = 0.0  # share of scenes with a background beyond the sweep, where no frame is sharp

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value, name = getattr(self, field.name), f'simulator.scene.{field.name}'
      if isinstance(field.default, tuple):
        if len(value) != 2 or not 0 < value[0] <= value[1] < math.inf:
          raise InputError(f'{name} is {value}, expected two numbers above 0, the lower one first')
      elif not 0 <= value <= 1:
        raise InputError(f'{name} is {value}, expected a number from 0 to 1')


@flax.struct.dataclass
class Scene:
  """Surfaces far to near. K surfaces on a canvas of H x W px."""

  colour: Float[Array | np.ndarray, '*B K 3 H W']  # linear light, >= 0; 1 is white, highlights are brighter
  alpha: Float[Array | np.ndarray, '*B K H W']  # 0 .. 1, antialiased; the first surface is opaque
  position: Float[
    Array | np.ndarray, '*B K H W'
  ]  # place between the first (0) and last (1) focus of a sweep, linear in dioptres
  known: Float[Array | np.ndarray, '*B H W']  # 1 where the position of the nearest surface is known, else 0


def top_position(scene: Scene) -> Float[Array, 'H W']:
  """Position of the nearest surface that covers more than half of each pixel."""

  def over(below, surface):
    alpha, position = surface
    return jnp.where(alpha > 0.5, position, below), None

  return jax.lax.scan(over, scene.position[0], (scene.alpha, scene.position))[0]


def draw_scene(
  key: PRNGKeyArray,
  num_surfaces: int,
  height: int,
  width: int,
  settings: SceneSettings = SceneSettings(),
  textures: Textures | None = None,
) -> Scene:
  """A random scene.

  Args:
    key: determines the scene.
    num_surfaces: K.
    height, width: size of the canvas, px.
    settings: distributions of the random parameters.
    textures: photographs for some of the surfaces. With the same key, they only change the colours of those surfaces.
  """
  depth_key, key = random.split(key)
  # A scene spans a fifth of the sweep's range up to all of it and a little beyond.
  numbers = random.uniform(depth_key, (2 + num_surfaces,))
  low, high = 0.45 * numbers[0] - 0.05, 1.05 - 0.45 * numbers[1]
  if settings.anywhere:
    is_anywhere, place, size = random.uniform(random.fold_in(depth_key, 2), (3,))
    bottom, top = ANYWHERE_LIMITS
    extent = SHALLOWEST * ((top - bottom) / SHALLOWEST) ** size
    start = bottom + place * (top - bottom - extent)
    is_anywhere = is_anywhere < settings.anywhere
    low, high = jnp.where(is_anywhere, start, low), jnp.where(is_anywhere, start + extent, high)
  # Surfaces are painted in the order of their centres; the farthest is the background.
  base = low + (high - low) * jnp.sort(numbers[2:])
  if settings.beyond:
    beyond, place = random.uniform(random.fold_in(depth_key, 1), (2,))
    base = base.at[0].set(jnp.where(beyond < settings.beyond, FARTHEST_BACKGROUND * place, base[0]))
  is_background = jnp.arange(num_surfaces) == 0
  colour, alpha, position = jax.vmap(lambda *drawn: _draw_surface(*drawn, height, width, settings, textures))(
    random.split(key, num_surfaces), base, is_background
  )

  def emerge(top, surface):
    # Slanted and curved surfaces intersect: an earlier surface hides the part that lies behind it.
    alpha, position = surface
    alpha = alpha * jnp.clip(0.5 + (position - top) / CROSSING, 0.0, 1.0)
    return jnp.where(alpha > 0.5, position, top), alpha

  start = jnp.full((height, width), -jnp.inf)
  _, alpha = jax.lax.scan(emerge, start, (alpha, position))
  return Scene(colour=colour, alpha=alpha, position=position, known=jnp.ones((height, width)))


def relief(across: Float[Array, 'H W'], down: Float[Array, 'H W'], profile: Float[Array, '']) -> Float[Array, 'H W']:
  """Height of a curved surface, 1 at its centre, over coordinates that are -1 .. 1 between its edges.

  Args:
    across, down: the coordinates; `down` = 0 gives the relief of a cylinder.
    profile: 0 .. 1 is a ball, flat around it; 1 .. 2 a paraboloid; 2 .. 3 corrugated.
  """
  square = across**2 + down**2
  ball = jnp.sqrt(jnp.maximum(1.0 - square, 0.0))
  waves = _sine(2 * across + 0.25)
  return jnp.where(profile < 1.0, ball, jnp.where(profile < 2.0, 1.0 - square, waves))


def _draw_surface(
  key: PRNGKeyArray,
  base,
  is_background,
  height: int,
  width: int,
  settings: SceneSettings,
  textures: Textures | None,
):
  """Colour [3, H, W], alpha and position [H, W] of one surface."""
  draw = Draws(key, DRAWS)
  is_thin = draw.uniform() < settings.thin
  y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing='ij')
  centre_x, centre_y = (draw.uniform(-side / 2, side / 2) for side in (width, height))
  # Thin objects get a large outline; otherwise too little of them would be visible.
  half_u, half_v = (draw.log_uniform(*settings.shape_px) * jnp.where(is_thin, 2.0, 1.0) for _ in range(2))
  centre_x, centre_y = (jnp.where(is_background, 0.0, centre) for centre in (centre_x, centre_y))
  half_u, half_v = (jnp.where(is_background, math.hypot(height, width) / 2, half) for half in (half_u, half_v))
  u, v = _rotate(x - centre_x, y - centre_y, draw.uniform(0.0, 2 * math.pi))

  inside_px = _shape(draw, u, v, half_u, half_v, is_thin, settings)
  alpha = jnp.where(is_background, 1.0, jnp.clip(0.5 + inside_px, 0.0, 1.0))

  # The position of a plane, like its inverse depth, is linear in the image. Some planes face the camera.
  slant_u, slant_v = (jnp.where(draw.uniform() < 0.7, draw.uniform(-1.0, 1.0), 0.0) for _ in range(2))
  slant = (slant_u * u + slant_v * v) / jnp.maximum(half_u, half_v)
  bump = jnp.where(draw.uniform() < settings.curved, draw.uniform(-0.5, 1.0), 0.0)
  is_cylinder = draw.uniform() < 0.5
  bump = bump * relief(u / half_u, jnp.where(is_cylinder, 0.0, v / half_v), draw.uniform(0.0, 2.4))
  amount = jnp.where(is_background, settings.background_relief, settings.relief)
  # Features added later have their own keys, so that scenes without them do not change.
  if settings.steep:
    shape = Draws(random.fold_in(key, 3), 2)
    amount = jnp.where(shape.uniform() < settings.steep, amount ** shape.uniform(), amount)  # log-uniform
  position = base + amount * (slant + bump)
  if settings.rough:
    position += _bumps(Draws(random.fold_in(key, 4), 4), height, width, settings.rough)
  low, high = ANYWHERE_LIMITS if settings.anywhere else POSITION_LIMITS
  position = jnp.clip(position, jnp.minimum(base, low), high)
  photograph = draw_texture(random.fold_in(key, 1), textures, height, width) if textures else None
  patches = _patches(Draws(random.fold_in(key, 2), 8), height, width, settings) if settings.patchy else None
  return _paint(draw, u, v, half_u, half_v, settings, photograph, patches), alpha, position


def _patches(draw: Draws, height: int, width: int, settings: SceneSettings) -> Float[Array, 'H W']:
  """How much of its texture a surface has, 0 .. 1: all of it everywhere, or all in some places and none elsewhere."""
  seed = draw.uniform(0.0, 2.0**24).astype(jnp.uint32)
  noise = _noise(seed, draw.uniform(*PATCH_ROUGHNESS), height, width)
  inside = draw.log_uniform(2.0, 30.0) * (noise - draw.uniform(*PATCH_LEVEL))
  return jnp.where(draw.uniform() < settings.patchy, jnp.clip(0.5 + inside, 0.0, 1.0), 1.0)


def _bumps(draw: Draws, height: int, width: int, share: float) -> Float[Array, 'H W']:
  """Change of position of a rough surface; 0 for all others."""
  seed = draw.uniform(0.0, 2.0**24).astype(jnp.uint32)
  noise = _noise(seed, draw.uniform(*ROUGHNESS), height, width)
  return jnp.where(draw.uniform() < share, draw.log_uniform(*BUMPS), 0.0) * noise


def _mod(x, length):
  # Several times as fast as `jnp.mod`, which handles signs and zero too.
  return x - length * jnp.floor(x / length)


def _sine(turns):
  """Sine of an angle in turns, to 0.0011, several times as fast as `jnp.sin`: a parabola and its square."""
  t = _mod(turns + 0.5, 1.0) - 0.5
  parabola = 8 * t * (1.0 - 2 * jnp.abs(t))
  return parabola * (0.775 + 0.225 * jnp.abs(parabola))


def _rotate(x, y, angle):
  return jnp.cos(angle) * x + jnp.sin(angle) * y, jnp.cos(angle) * y - jnp.sin(angle) * x


def _shape(draw: Draws, u, v, half_u, half_v, is_thin, settings: SceneSettings) -> Float[Array, 'H W']:
  """Approximate distance of a pixel from the surface's edge, px; positive inside."""
  # Superellipses, with or without lobes: diamonds, ellipses, near-rectangles, stars and leaves.
  power = draw.log_uniform(1.0, 12.0)
  across, down = u / half_u, v / half_v
  # Powers through logarithms: several times as fast as `**`.
  radius = jnp.exp(jnp.logaddexp(*(power * jnp.log(jnp.abs(w) + 1e-6) for w in (across, down))) / power)
  # The cosines of 2, 3, 5 and 8 times the angle, as polynomials of its cosine.
  c = across / (jnp.hypot(across, down) + 1e-6)
  two = 2 * c**2 - 1
  lobes = (two, c * (4 * c**2 - 3), c * (16 * c**4 - 20 * c**2 + 5), 2 * (2 * two**2 - 1) ** 2 - 1)
  depth = jnp.where(draw.uniform() < 0.5, 0.3, 0.0)
  reach = 1.0 + depth * sum(draw.uniform(-1.0, 1.0) ** 3 * lobe for lobe in lobes)
  # Divided by its slope, this is approximately the distance to the edge in pixels, however elongated the shape.
  solid = (reach - radius) / (jnp.hypot(*jnp.gradient(reach - radius)) + 1e-6)

  half_width = draw.log_uniform(*settings.thin_px) / 2
  rim = half_width - jnp.abs(solid - half_width)
  pitch = 2 * half_width * draw.log_uniform(2.5, 8.0)
  from_u, from_v = (jnp.abs(_mod(w, pitch) - pitch / 2) for w in (u, v))
  bars = half_width - from_u
  grid = jnp.maximum(bars, half_width - from_v)
  plate = jnp.hypot(from_u, from_v) - (pitch / 2 - half_width)
  # A wire, longer than other shapes, straight or wavy.
  length, bend = draw.log_uniform(0.5, 8.0) * half_u, jnp.where(draw.uniform() < 0.5, draw.uniform(), 0.0)
  wave, slope = bend * length / (2 * jnp.pi) * _sine(u / length), bend * _sine(u / length + 0.25)
  from_wire = jnp.abs(v - wave) / jnp.hypot(1.0, slope)
  wire = jnp.minimum(half_width - from_wire, 4 * half_u - jnp.abs(u))
  thin = (rim, *(jnp.minimum(solid, part) for part in (bars, grid, plate)), wire)
  return jnp.where(is_thin, _pick(draw, thin), solid)


def _pick(draw: Draws, choices) -> Float[Array, 'H W']:
  """One of several arrays, all equally likely."""
  # A select per choice is less work for XLA than a gather from their stack.
  kind = jnp.floor(draw.uniform(0.0, len(choices)))
  picked = choices[0]
  for n, choice in enumerate(choices[1:], 1):
    picked = jnp.where(kind == n, choice, picked)
  return picked


def _noise(seed, slope, height: int, width: int) -> Float[Array, 'H W']:
  """Periodic noise of variance 1 with an amplitude of 1 / frequency^slope: from grain to clouds."""
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / max(height, width)
  # Random phases make Gaussian noise; eight bits for each are plenty.
  turns = _byte_fraction(_hash(*jnp.meshgrid(*(jnp.arange(side) for side in frequency.shape), indexing='ij'), seed), 0)
  spectrum = jnp.exp(-slope * np.log(frequency)) * jax.lax.complex(_sine(turns + 0.25), _sine(turns))
  noise = jnp.fft.irfft2(spectrum.at[0, 0].set(0.0), s=(height, width))
  return noise / (jnp.std(noise) + 1e-12)


def _hash(row, column, seed) -> UInt32[Array, 'H W']:
  """Random bits for each cell of an infinite grid, without a table: the mixing of C. Wellons's `lowbias32`."""
  bits = row.astype(jnp.int32).astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
  bits = bits ^ (column.astype(jnp.int32).astype(jnp.uint32) * jnp.uint32(0x85EBCA77)) ^ seed
  bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
  bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
  return bits ^ (bits >> 16)


def _byte_fraction(bits, shift: int) -> Float[Array, 'H W']:
  """Eight of the bits as a number 0 .. 1."""
  return ((bits >> shift) & 255).astype(jnp.float32) / 255


def _paint(
  draw: Draws, u, v, half_u, half_v, settings: SceneSettings, photograph=None, patches=None
) -> Float[Array, '3 H W']:
  """Colour in linear light: a texture between two random colours, or a photograph; light and shadow, highlights."""
  seed = draw.uniform(0.0, 2.0**24).astype(jnp.uint32)
  noise = _noise(seed, draw.uniform(0.3, 2.2), *u.shape)
  pattern = _pattern(draw, noise, seed, *_rotate(u, v, draw.uniform(0.0, 2 * math.pi)), settings)
  is_plain = draw.uniform() < settings.plain
  contrast = jnp.where(is_plain, draw.uniform(0.0, 0.005), draw.log_uniform(*settings.contrast))
  # Faint noise on everything: nothing printed or painted is perfectly even.
  grain = jnp.where(is_plain, 0.004, 0.15) * draw.uniform()
  mix = jnp.clip(0.5 + 0.5 * contrast * pattern + grain * noise, 0.0, 1.0)
  saturation = 0.9 * draw.uniform() ** 2
  dark, light = (
    jnp.stack([jnp.clip(grey + saturation * draw.uniform(-0.5, 0.5), 0.02, 1.0) ** 2.2 for _ in range(3)])
    for grey in (draw.uniform(), draw.uniform())
  )

  # Soft light from one side, and a shadow whose edge is sharp to soft.
  soft = 1.0 + 0.25 * (draw.normal() * u / half_u + draw.normal() * v / half_v)
  edge, _ = _rotate(u, v, draw.uniform(0.0, 2 * math.pi))
  edge = 0.5 + (edge - draw.uniform(-0.7, 0.7) * jnp.maximum(half_u, half_v)) / draw.log_uniform(1.0, 60.0)
  shadow = jnp.where(draw.uniform() < 0.4, draw.uniform(0.3, 0.85), 0.0) * jnp.clip(edge, 0.0, 1.0)
  shade = jnp.clip(soft, 0.3, 1.7) * (1.0 - shadow)

  # At most one spot in each cell of a grid, so that the cost does not depend on the number of spots.
  pitch, spot_px = draw.log_uniform(12.0, 80.0), draw.log_uniform(0.6, 3.0)
  bits = _hash(jnp.floor(v / pitch), jnp.floor(u / pitch), seed)
  from_u = _mod(u, pitch) - pitch * (0.25 + 0.5 * _byte_fraction(bits, 0))
  from_v = _mod(v, pitch) - pitch * (0.25 + 0.5 * _byte_fraction(bits, 8))
  spots = jnp.clip(0.5 + spot_px - jnp.hypot(from_u, from_v), 0.0, 1.0) * (
    _byte_fraction(bits, 16) < draw.uniform(0.02, 0.4)
  )
  level = draw.log_uniform(*settings.highlight_level)
  spots = jnp.where(draw.uniform() < settings.highlights, level, 0.0) * spots

  dark, light = dark[:, None, None], light[:, None, None]
  colour = dark + (light - dark) * mix
  if photograph is not None:
    colour = jnp.where(*photograph, colour)
  if patches is not None:
    # Without texture, a surface has its mean colour and a trace of the noise: nothing is perfectly even.
    even = jnp.mean(colour, (1, 2), keepdims=True)
    colour = even + (colour - even) * jnp.maximum(patches, 0.003)
  return colour * shade + spots * (0.5 + 0.5 * light)


def _pattern(draw: Draws, noise, seed, u, v, settings: SceneSettings) -> Float[Array, 'H W']:
  """One of seven kinds of texture, about -1 .. 1: noise, contours, stripes, checks, tiles, text, marble."""
  period = draw.log_uniform(*settings.period_px)
  # Edges are about a pixel wide or wider, to avoid aliasing.
  hardness = jnp.minimum(draw.log_uniform(0.4, 12.0), 0.4 * period)
  across, down = _sine(u / period), _sine(v / period)
  stripes = jnp.tanh(hardness * across) / jnp.tanh(hardness)
  checks = jnp.tanh(hardness * across * down) / jnp.tanh(hardness)
  contours = jnp.tanh(2 * hardness * (noise - draw.uniform(-1.0, 1.0)))
  marble = _sine(u / period + draw.uniform(0.1, 0.5) * noise)

  # Tiles and bricks, each with its own grey, with joints; every other row may be shifted.
  tile_u, tile_v = period * draw.uniform(1.0, 2.5), period
  row = jnp.floor(v / tile_v)
  along = u + draw.uniform(-0.5, 0.5) * tile_u * _mod(row, 2.0)
  to_joint = (
    jnp.minimum(_distance_to_multiple(along, tile_u), _distance_to_multiple(v, tile_v))
    - draw.uniform(-0.5, 0.1) * period
  )
  greys = 2 * _byte_fraction(_hash(row, jnp.floor(along / tile_u), seed), 0) - 1
  tiles = jnp.where(draw.uniform() < 0.5, jnp.where(to_joint > 0.0, greys, -1.0), greys)

  # Text: 26 letters of 4 x 6 dots drawn at random, in words, with gaps between letters and lines.
  dot = jnp.maximum(period / 8, 0.8)
  column, row = jnp.floor(u / dot), jnp.floor(v / dot)
  letter = _hash(jnp.floor(row / 9), jnp.floor(column / 5), seed)
  in_letter = (_mod(column, 5.0) < 4) & (_mod(row, 9.0) < 6) & (_byte_fraction(letter, 8) > 0.15)
  dots = _hash(_mod(row, 9.0) + 9 * (letter % 26).astype(jnp.float32), _mod(column, 5.0), seed)
  text = jnp.where(in_letter & (_byte_fraction(dots, 0) < 0.5), 1.0, -1.0)
  return _pick(draw, (0.7 * noise, contours, stripes, checks, tiles, text, marble))


def _distance_to_multiple(w, length) -> Float[Array, 'H W']:
  """Distance to the nearest multiple of a length."""
  return length / 2 - jnp.abs(_mod(w, length) - length / 2)
