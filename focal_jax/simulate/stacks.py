"""Simulated focal stacks with truth: a random scene, seen by a random camera's sweep. Plain JAX, any number from one
key.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.errors import InputError
from focal_jax.simulate import defocus
from focal_jax.simulate.cameras import Sweep, SweepSettings, draw_sweep
from focal_jax.simulate.scenes import Scene, draw_scene, top_position
from focal_jax.stack import FocalStack


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
  """What the simulator draws; pairs are the ends of a uniform distribution."""

  num_frames: int = 10
  size_px: int = 96  # height and width of the frames
  num_surfaces: int = 10
  margin_px: int = 16  # around the frames, for what blur, zoom and drift bring in
  lens_sigma_px: tuple[float, float] = (0.2, 0.9)
  noise: tuple[float, float] = (0.0, 0.015)  # standard deviation, of display values 0 .. 1
  sweep: SweepSettings = SweepSettings()

  def __post_init__(self):
    if self.num_frames < 2:
      raise InputError(f'simulator.num_frames is {self.num_frames}, expected at least 2')
    if self.size_px % 32 or self.size_px < 32:
      raise InputError(f'simulator.size_px is {self.size_px}, expected a positive multiple of 32')
    if self.num_surfaces < 1:
      raise InputError(f'simulator.num_surfaces is {self.num_surfaces}, expected at least 1')
    if self.margin_px < 0:
      raise InputError(f'simulator.margin_px is {self.margin_px}, expected at least 0')
    for name, settings in (('simulator', self), ('simulator.sweep', self.sweep)):
      for field in dataclasses.fields(settings):
        pair = getattr(settings, field.name)
        if isinstance(pair, tuple) and (len(pair) != 2 or not pair[0] <= pair[1]):
          raise InputError(f'{name}.{field.name} is {pair}, expected two numbers, the lower one first')


def simulate_batch(key: PRNGKeyArray, batch_size: int, settings: SimulatorSettings) -> FocalStack:
  """A batch of stacks, images float 0 .. 1 in steps of 1/255, focus in dioptres; the same key gives the same batch."""
  # One after the other: a batch in one piece would not be faster on a CPU and would need its memory at once.
  return lax.map(lambda key: simulate(key, settings), random.split(key, batch_size))


def simulate(key: PRNGKeyArray, settings: SimulatorSettings) -> FocalStack:
  """One random stack with target, valid mask and true motion."""
  scene_key, sweep_key, camera_key = random.split(key, 3)
  side = settings.size_px + 2 * settings.margin_px
  scene = draw_scene(scene_key, settings.num_surfaces, side)
  sweep = draw_sweep(sweep_key, settings.num_frames, settings.sweep)
  return photograph(camera_key, scene, sweep, settings)


def photograph(key: PRNGKeyArray, scene: Scene, sweep: Sweep, settings: SimulatorSettings) -> FocalStack:
  """The stack that a sweep records of a scene; target and valid mask are those of the last frame."""
  lens_key, noise_key, amount_key = random.split(key, 3)
  size, margin = settings.size_px, settings.margin_px
  first, extent = sweep.focus[0], sweep.focus[-1] - sweep.focus[0]
  position = scene.position * extent + first  # dioptres
  zoom = sweep.fov + sweep.motion[:, 0]
  radius = sweep.blur_px_per_dpt * jnp.abs(position[None] - sweep.focus[:, None, None, None])
  # The canvas has the last frame's scale, in which a frame of wider view is enlarged and its blur with it.
  radius = radius * zoom[:, None, None, None]
  lens_sigma = random.uniform(lens_key, (), minval=settings.lens_sigma_px[0], maxval=settings.lens_sigma_px[1])
  frames = defocus.render(scene.colour, scene.alpha, radius, lens_sigma)

  rows, columns = (
    cubic_matrix(margin + recorded_positions(zoom, sweep.motion[:, axis], size), frames.shape[-1]) for axis in (2, 1)
  )
  frames = jnp.einsum('nyj,ncji,nxi->nyxc', rows, frames, columns, precision=lax.Precision.HIGHEST)
  display = jnp.clip(frames, 0.0, 1.0) ** (1 / 2.2)
  noise = random.uniform(amount_key, (), minval=settings.noise[0], maxval=settings.noise[1])
  display = display + noise * random.normal(noise_key, display.shape)
  images = jnp.round(jnp.clip(display, 0.0, 1.0) * 255) / 255

  seen = top_position(scene)[margin : margin + size, margin : margin + size]
  # What lies outside the sweep is nowhere sharp, and no mixture of its focus distances.
  valid = ((seen >= 0.0) & (seen <= 1.0)).astype(images.dtype)
  target = jnp.clip(seen, 0.0, 1.0) * extent + first
  return FocalStack(images=images, focus=sweep.focus, fov=sweep.fov, target=target, valid=valid, motion=sweep.motion)


def recorded_positions(zoom: Float[Array, ' N'], shift_px: Float[Array, ' N'], size: int) -> Float[Array, 'N size']:
  """Where, in the last frame's pixels, the pixels of every frame look: the inverse of the motion that `warp` applies.

  Aligned x shows the frame at x - (size // 2) (zoom - 1) u(x) - shift, with u(x) = (x - c) / c about the centre c; this
  is solved for x.
  """
  centre = (size - 1) / 2
  gain = 1.0 - (zoom - 1.0) * (size // 2) / centre
  return centre + (jnp.arange(size) - centre + shift_px[:, None]) / gain[:, None]


def cubic_matrix(positions: Float[Array, 'N out'], length: int) -> Float[Array, 'N out length']:
  """Rows that interpolate an axis at `positions` with Keys's cubic kernel (a = -1/2), which blurs far less than a
  linear one.

  Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 15.
  """
  d = jnp.abs(positions[..., None] - jnp.arange(length))
  near = 1.5 * d**3 - 2.5 * d**2 + 1.0
  far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
  return jnp.where(d <= 1.0, near, jnp.where(d < 2.0, far, 0.0))
