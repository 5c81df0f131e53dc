"""Random focus sweeps of a camera: focus distances, field of view, drift, exposure and size of the blur.

Distances along the optical axis are in dioptres (1/m) inside the simulator, and in the camera's own unit in the
simulated stacks (`to_unit`).
"""

from typing import NamedTuple

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from focal_jax import optics
from focal_jax.errors import InputError
from focal_jax.simulate.cameras import UNITS, Camera, SweepSettings, as_camera
from focal_jax.simulate.defocus import VIEWS
from focal_jax.simulate.draws import Draws


@flax.struct.dataclass
class Sweep:
  """One sweep, frames far to near. `motion` is the true motion that `warp` must undo, relative to the last frame."""

  focus: Float[Array | np.ndarray, '*B N']  # in the camera's unit: that of the stack
  focus_dpt: Float[Array | np.ndarray, '*B N']  # dioptres, rising
  fov: Float[Array | np.ndarray, '*B N']
  motion: Float[Array | np.ndarray, '*B N 3']
  # px of the last frame per dioptre of defocus: radius of the disc, or distance between neighbouring views.
  blur_px_per_dpt: Float[Array | np.ndarray, '*B']
  views: Float[Array | np.ndarray, '*B']  # 1: the kernel is a grid of views; 0: a disc
  exposure: Float[Array | np.ndarray, '*B N']  # factor on linear light, 1 for the last frame
  white_balance: Float[Array | np.ndarray, '*B N 3']  # gains, 1 for the last frame and for green
  unit: Int[Array | np.ndarray, '*B']  # unit of focus and target: index into UNITS


class _Optics(NamedTuple):
  """The camera properties that a sweep needs, as numbers: a traced index selects a row of a table of them."""

  focal_length: Float[Array, ''] | float
  f_number: Float[Array, ''] | float
  pitch: Float[Array, ''] | float
  width: Float[Array, ''] | float
  alpha_slope: Float[Array, ''] | float
  alpha_intercept: Float[Array, ''] | float
  beta_mean: Float[Array, ''] | float
  beta_sd: Float[Array, ''] | float
  gamma_mean: Float[Array, ''] | float
  gamma_sd: Float[Array, ''] | float
  views: Float[Array, ''] | float
  aligned: Float[Array, ''] | float
  unit: Float[Array, ''] | float


def draw_sweep(key: PRNGKeyArray, num_frames: int, width_px: float | int, settings: SweepSettings) -> Sweep:
  """A random sweep of a random camera.

  Args:
    key: determines the sweep.
    num_frames: N, at least 2.
    width_px: width of the camera's full image, px (frames may be crops of it). Has no effect if `settings.blur_px` sets
      the size of the blur, and with it the scale.
    settings: distributions of the random parameters.

  Raises:
    InputError: fewer than two frames.
  """
  if num_frames < 2:
    raise InputError(f'num_frames is {num_frames}, expected at least 2')
  cameras = [as_camera(camera) for camera in settings.cameras]
  scalars_key, grid_key, frames_key = random.split(key, 3)
  draw = Draws(scalars_key, 9)
  camera, usual = _pick(cameras, num_frames, jnp.floor(draw.uniform(0.0, len(cameras))).astype(int))
  is_aligned = camera.aligned > 0

  far = usual[0] if settings.far_dpt is None else draw.uniform(*settings.far_dpt)
  extent = usual[-1] - usual[0] if settings.range_dpt is None else draw.uniform(*settings.range_dpt)
  focus_dpt = far + extent * _positions(grid_key, usual, settings)
  distance = optics.dioptres_to_metres(focus_dpt)

  # Blur on the sensor in the last frame, then the scale from sensor to image.
  # Computed frames share one field of view, that of a lens focused at infinity.
  last_m = jnp.where(is_aligned, jnp.inf, distance[-1])
  diameter = optics.blur_per_dioptre(camera.focal_length, camera.f_number, last_m) / camera.pitch  # px per dioptre
  parts = jnp.where(camera.views > 0, VIEWS - 1, 2)  # distances between views, or radii, per diameter
  if settings.blur_px is None:
    scale = width_px / camera.width
  else:
    scale = 2 * draw.log_uniform(*settings.blur_px) / extent / diameter

  # The field of view in the metadata must respect the zoom limit too: a focal length f gives the ratio (1 - f d_1) / (1
  # - f d_n) for focus d_1 .. d_n, which is solved for f. The floor avoids a division by 0 for a limit of 1.
  share = 1.0 - 1.0 / settings.zoom[1]
  shorter = jnp.maximum(share / (extent + share * far), 1e-6)
  fov = optics.relative_field_of_view(jnp.minimum(camera.focal_length, shorter), distance)
  alpha = (camera.alpha_slope * focus_dpt + camera.alpha_intercept) * draw.uniform(*settings.breathing)
  zoom = jnp.clip((fov + alpha) / (fov[-1] + alpha[-1]), *settings.zoom)
  noise = random.normal(frames_key, (num_frames, 7))
  mean, sd = jnp.stack([camera.beta_mean, camera.gamma_mean]), jnp.stack([camera.beta_sd, camera.gamma_sd])
  drift = (mean + sd * noise[:, :2]) * scale + draw.uniform(*settings.shake_px) * noise[:, 2:4]
  drift = drift - drift[-1]

  kind = draw.uniform()
  still = is_aligned | (kind < settings.aligned)
  untold = still | (kind > 1.0 - settings.no_metadata)
  if settings.any_zoom:
    first_zoom = Draws(random.fold_in(scalars_key, 1), 1).log_uniform(*settings.zoom)
    free = ~is_aligned & (kind > 1.0 - settings.any_zoom)
    zoom = jnp.where(free, 1.0 + (first_zoom - 1.0) * (focus_dpt[-1] - focus_dpt) / extent, zoom)
  zoom, drift = jnp.where(still, 1.0, zoom), jnp.where(still, 0.0, drift)
  fov = jnp.where(untold, 1.0, fov)

  exposure, white_balance = draw_gains(draw, jnp.where(is_aligned, 0.0, noise[:, 4:]), settings)
  unit = camera.unit.astype(jnp.int32)
  return Sweep(
    focus=to_unit(focus_dpt, unit),
    focus_dpt=focus_dpt,
    fov=fov,
    motion=jnp.concatenate([(zoom - fov)[:, None], drift], axis=-1),
    blur_px_per_dpt=diameter / parts * scale,
    views=camera.views,
    exposure=exposure,
    white_balance=white_balance,
    unit=unit,
  )


def draw_gains(
  draw: Draws, noise: Float[Array, 'N 3'], settings: SweepSettings
) -> tuple[Float[Array, ' N'], Float[Array, 'N 3']]:
  """Exposure and white balance of each frame: factors on linear light, 1 for the last frame and for green.

  Args:
    draw: two numbers are drawn, for the standard deviations.
    noise: normal random numbers.
    settings: distributions of the standard deviations.
  """
  amounts = jnp.stack([draw.uniform(*settings.exposure), *[draw.uniform(*settings.white_balance)] * 2])
  exposure, red, blue = jnp.exp2((amounts * noise).at[-1].set(0.0)).T
  return exposure, jnp.stack([red, jnp.ones_like(red), blue], axis=-1)


def _pick(cameras: list[Camera], num_frames: int, index: Int[Array, '']) -> tuple[_Optics, Float[Array, ' N']]:
  """The numbers of the camera at an index, and its usual sweep in dioptres."""
  rows = []
  for c in cameras:
    numbers = _Optics(
      focal_length=c.focal_length_m,
      f_number=c.f_number,
      pitch=c.pixel_pitch_m,
      width=c.sensor_width_px,
      alpha_slope=c.alpha_slope_m,
      alpha_intercept=c.alpha_intercept,
      beta_mean=c.beta_px[0],
      beta_sd=c.beta_px[1],
      gamma_mean=c.gamma_px[0],
      gamma_sd=c.gamma_px[1],
      views=float(c.kernel == 'views'),
      aligned=float(c.aligned),
      unit=float(UNITS.index(c.unit)),
    )
    rows.append([*numbers, *c.sweep_dpt(num_frames)])
  row = jnp.array(rows)[index]
  return _Optics(*row[:-num_frames]), row[-num_frames:]


def _positions(key: PRNGKeyArray, usual: Float[Array, ' N'], settings: SweepSettings) -> Float[Array, ' N']:
  """Positions of the frames between the first (0) and the last (1), rising, linear in dioptres."""
  num_frames = len(usual)
  if settings.spacing == 'dioptres':
    steps = jnp.full(num_frames - 1, 1.0)
  elif settings.spacing == 'camera':
    steps = jnp.diff(usual)
  else:  # random steps, the widest up to nine times the narrowest
    key, steps_key = random.split(key)
    steps = random.uniform(steps_key, (num_frames - 1,), minval=0.2, maxval=1.8)
  steps = steps / steps.sum()
  jitter = settings.uneven * random.uniform(key, (num_frames - 2,), minval=-0.5, maxval=0.5)
  inner = jnp.cumsum(steps)[:-1] + jitter * jnp.minimum(steps[:-1], steps[1:])
  return jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])


def to_unit(dioptres: Float[Array, '*#S'], unit: Int[Array, '*#S'] | int) -> Float[Array, '*S']:
  """Converts dioptres to the unit at this index of UNITS. Metres are limited to 1e6, so that infinity stays finite."""
  metres = 1.0 / jnp.maximum(dioptres, 1e-6)
  return jnp.select([unit == 0, unit == 1], [dioptres, optics.DDFF_DISPARITY_M_PX * dioptres], metres)
