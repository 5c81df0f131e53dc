"""Cameras and their autofocus sweeps: focus distances, field of view, drift and the size of the blur.

The phones are those that Won and Jeon (ECCV 2022, section 4) measured: on top of the thin lens's field of view, a zoom
error linear in the dioptres of the focus distance, and a random drift of the principal point.
"""

import dataclasses

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax import optics
from focal_jax.simulate.draws import Draws

PIXEL_PITCH_M = 1.4e-6


@dataclasses.dataclass(frozen=True)
class Phone:
  """A phone camera. Drift is in pixels of the full sensor, mean and standard deviation; the zoom error has no unit."""

  name: str
  sensor_width_px: float
  alpha_slope_m: float
  alpha_intercept: float
  beta_px: tuple[float, float]
  gamma_px: tuple[float, float]
  focal_length_m: float
  f_number: float


PHONES = (
  Phone('Pixel 4 XL', 4032.0, -0.00266, 0.019155, (-4.45515, 7.18485), (-9.9504701, 8.04556863), 0.0044, 1.7),
  Phone('Pixel 6', 4080.0, -0.00429249, 0.00330253, (0.470281, 6.2634662), (2.69174424, 6.859772247), 0.0068, 1.9),
  Phone(
    'Galaxy S8+', 4032.0, -0.00203839, 0.0166955, (4.430173117, 4.60067699), (3.695449964, 3.589144555), 0.0043, 1.5
  ),
  Phone(
    'Galaxy Note10', 4032.0, -0.00402384, 0.0247385, (-4.315575939, 2.9198626), (-0.9456601, 0.153538997), 0.0048, 1.7
  ),
)


@dataclasses.dataclass(frozen=True)
class SweepSettings:
  """What is drawn at random for each sweep; pairs are the ends of a uniform (or, where said, log-uniform)
  distribution.
  """

  far_dpt: tuple[float, float] = (0.0, 2.0)  # dioptres of the first frame's focus
  range_dpt: tuple[float, float] = (2.0, 8.0)  # dioptres between first and last frame
  uneven: float = 0.3  # focus positions leave the uniform grid by up to this share of half a step
  blur_px: tuple[float, float] = (0.8, 7.0)  # log-uniform: CoC radius of the far end when focused at the near end
  breathing: tuple[float, float] = (0.0, 3.0)  # factor on the phone's zoom error
  zoom: tuple[float, float] = (0.96, 1.10)  # limits of the zoom between the first and the last frame
  shake_px: tuple[float, float] = (0.0, 1.5)  # standard deviation of a further drift, px of the rendered image
  aligned: float = 0.25  # share of sweeps without any motion, field of view 1
  no_metadata: float = 0.25  # share of sweeps whose field of view is not told (fov = 1, all zoom is left to alpha)


@flax.struct.dataclass
class Sweep:
  """One sweep, frames far to near. `motion` is the truth that a warp must undo (`warp`), relative to the last frame."""

  focus: Float[Array | np.ndarray, '*B N']  # dioptres
  fov: Float[Array | np.ndarray, '*B N']
  motion: Float[Array | np.ndarray, '*B N 3']
  blur_px_per_dpt: Float[Array | np.ndarray, '*B']  # radius of the circle of confusion per dioptre of defocus


def draw_sweep(key: PRNGKeyArray, num_frames: int, settings: SweepSettings = SweepSettings()) -> Sweep:
  """A random sweep of a random phone, in the pixels of an image as wide as makes the blur what was drawn."""
  key, grid_key, drift_key = random.split(key, 3)
  draw = Draws(key, 8)
  columns = jnp.array(
    [
      (p.sensor_width_px, p.alpha_slope_m, p.alpha_intercept, *p.beta_px, *p.gamma_px, p.focal_length_m, p.f_number)
      for p in PHONES
    ]
  )
  _, slope, intercept, beta_mean, beta_sd, gamma_mean, gamma_sd, focal_length, f_number = columns[
    jnp.floor(draw.uniform(0.0, len(PHONES))).astype(int)
  ]

  far, extent = draw.uniform(*settings.far_dpt), draw.uniform(*settings.range_dpt)
  step = 1.0 / (num_frames - 1)
  jitter = settings.uneven * step * random.uniform(grid_key, (num_frames,), minval=-0.5, maxval=0.5)
  position = jnp.linspace(0.0, 1.0, num_frames) + jitter.at[jnp.array([0, -1])].set(0.0)
  focus = far + extent * position

  # Radius per dioptre on the full sensor, then the scale of the rendered image that gives the blur drawn above.
  distance = optics.dioptres_to_metres(focus[-1])
  diameter = optics.circle_of_confusion(focal_length, f_number, distance, optics.dioptres_to_metres(focus[-1] - 1.0))
  blur = draw.log_uniform(*settings.blur_px) / extent
  scale = blur / (diameter / 2 / PIXEL_PITCH_M)

  fov = optics.relative_field_of_view(focal_length, optics.dioptres_to_metres(focus))
  alpha = (slope * focus + intercept) * draw.uniform(*settings.breathing)
  zoom = jnp.clip((fov + alpha) / (fov[-1] + alpha[-1]), *settings.zoom)
  phone_noise, shake_noise = random.normal(drift_key, (2, num_frames, 2))
  drift = jnp.array([beta_mean, gamma_mean]) + jnp.array([beta_sd, gamma_sd]) * phone_noise
  drift = drift * scale + draw.uniform(*settings.shake_px) * shake_noise
  drift = drift - drift[-1]

  kind = draw.uniform()
  aligned = kind < settings.aligned
  no_metadata = kind > 1.0 - settings.no_metadata
  zoom, drift = jnp.where(aligned, 1.0, zoom), jnp.where(aligned, 0.0, drift)
  fov = jnp.where(aligned | no_metadata, 1.0, fov)
  motion = jnp.concatenate([(zoom - fov)[:, None], drift], axis=-1)
  return Sweep(focus=focus, fov=fov, motion=motion, blur_px_per_dpt=blur)
