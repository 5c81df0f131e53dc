"""Thin-lens optics: image distance, field of view, circle of confusion, and units of depth.

Lengths are in metres unless a name says otherwise; functions take scalars or arrays of any shape and broadcast.
Infinite distances are allowed everywhere. Everything is plain jax.numpy and can be traced and differentiated, except
`check_focus_distances`, which runs on the host.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax.errors import InputError

Scalar = Float[Array, '*#S'] | float | int | np.ndarray

# Lytro Illum of DDFF-12 (Hazirbas et al., ACCV 2018): baseline between neighbouring views (m) times focal length (px).
DDFF_BASELINE_M = 1982.0250823695178 / 7317.020641763665 * 1e-3
DDFF_FOCAL_LENGTH_PX = 521.4052
DDFF_DISPARITY_M_PX = DDFF_BASELINE_M * DDFF_FOCAL_LENGTH_PX
DDFF_NEAREST_M, DDFF_FARTHEST_M = 0.5, 7.0
# In a frame of DDFF-12 labelled d, points of true disparity d plus this offset are sharp: frames and truth are labelled
# B f / Z, but the disparity between views of the Illum is B f / Z minus a constant, and 0 at a finite distance.
# 0.062 px is from crops of many places (0.05 to 0.07 px by place). `python -m tfds_ddff.ddff12.measure_focus` measures
# it on the training part. That part was not available as a whole. On 24 crops of it, all of one place, the command
# finds 0.076 px (0.071 to 0.084) from the 12 crops that show anything near enough, only at 0.12 to 0.16 px of true
# disparity and with 30 % of the pixels beyond the sweep; with other limits on texture and end frames, 0.061 to
# 0.086 px. That sample is too narrow to replace the constant.
DDFF_FOCUS_OFFSET_PX = 0.062


def image_distance(focal_length: Scalar, focus_distance: Scalar) -> Float[Array, '*S']:
  """Distance between lens and sensor when the lens is focused at `focus_distance`: v = 1 / (1/f - 1/d).

  Both lengths are in the same unit (any), as is the result. An infinite focus distance gives f.
  """
  return 1.0 / (1.0 / jnp.asarray(focal_length) - 1.0 / jnp.asarray(focus_distance))


def relative_field_of_view(
  focal_length: Scalar, focus_distance: Float[Array, '*B N'] | np.ndarray
) -> Float[Array, '*B N']:
  """Field of view of each frame relative to the narrowest of its stack: (1/f - 1/d_n) / min_m (1/f - 1/d_m), at least
  1.

  The magnification of a thin lens is proportional to its image distance, so the field of view is proportional to 1/v
  (Won and Jeon, ECCV 2022, section 3.1). Frames are on the last axis.
  """
  inverse_v = 1.0 / image_distance(focal_length, focus_distance)
  return inverse_v / jnp.min(inverse_v, axis=-1, keepdims=True)


def field_of_view_of_sweep(focal_length: float, focus_distance: np.ndarray, source: str) -> np.ndarray:
  """`relative_field_of_view` of [N] measured distances, on the host, with checks.

  Args:
    focal_length: of the lens.
    focus_distance: [N], in the unit of `focal_length`.
    source: name of the numbers in messages: a file or a field.

  Raises:
    InputError: as for `check_focus_distances`, or if a distance equals the focal length up to rounding.
  """
  check_focus_distances(focus_distance, focal_length, source)
  # The ratio does not depend on the unit. In multiples of the focal length it suits float32 best, in which 1e300 is
  # infinite.
  with np.errstate(over='ignore'):
    fov = np.asarray(relative_field_of_view(1.0, focus_distance / focal_length), dtype=np.float64)
  if not np.all(np.isfinite(fov)):
    raise InputError(
      f'{source}: focus distance {focus_distance.min()} is close to the focal length {focal_length}, '
      'expected a larger one'
    )
  return fov


def blur_per_dioptre(focal_length: Scalar, f_number: Scalar, focus_distance: Scalar) -> Float[Array, '*S']:
  """Diameter on the sensor, in metres, of the blur disc of a point out of focus by one dioptre: v f / F.

  For an aperture f / F and image distance v. The diameter is proportional to defocus in dioptres.
  """
  return image_distance(focal_length, focus_distance) * jnp.asarray(focal_length) / f_number


def circle_of_confusion(
  focal_length: Scalar, f_number: Scalar, focus_distance: Scalar, depth: Scalar
) -> Float[Array, '*S']:
  """Diameter on the sensor, in metres, of the blur disc of a point at `depth`: v (f / F) |1/d - 1/Z|.

  Equal to v (f / F) / d * |Z - d| / Z, in a form that allows infinite Z or d.
  """
  defocus_dpt = jnp.abs(1.0 / jnp.asarray(focus_distance) - 1.0 / jnp.asarray(depth))
  return blur_per_dioptre(focal_length, f_number, focus_distance) * defocus_dpt


def dioptres_to_metres(depth_dpt: Scalar) -> Float[Array, '*S']:
  """1 / dioptres; 0 becomes infinity."""
  return 1.0 / jnp.asarray(depth_dpt)


def ddff_focus_disparities(num_frames: int = 10, corrected: bool = False) -> np.ndarray:
  """[N] focus coordinates of DDFF-12 in the order of its files, nearest first: linear in disparity, px.

  Args:
    num_frames: N.
    corrected: False for the labels as published, 0.2825 .. 0.0202 px; True for the true disparity in focus in each
      frame, `DDFF_FOCUS_OFFSET_PX` more.
  """
  near, far = DDFF_DISPARITY_M_PX / DDFF_NEAREST_M, DDFF_DISPARITY_M_PX / DDFF_FARTHEST_M
  return np.linspace(near, far, num_frames) + (DDFF_FOCUS_OFFSET_PX if corrected else 0.0)


def check_focus_distances(focus_distance: np.ndarray, focal_length: float, source: str = 'focus distances') -> None:
  """Raises InputError, naming the frame, unless 0 < f < d for every focus distance (infinity allowed, NaN not).

  Args:
    focus_distance: [N], in the unit of `focal_length`.
    focal_length: of the lens.
    source: name of the distances in messages: a file or a field.
  """
  if not (np.isfinite(focal_length) and focal_length > 0):
    raise InputError(f'{source}: focal length is {focal_length}, expected a finite number above 0')
  for n, distance in enumerate(np.atleast_1d(focus_distance)):
    if np.isnan(distance) or distance <= 0:
      raise InputError(f'{source}: focus distance of frame {n} is {distance}, expected a number above 0')
    if distance <= focal_length:
      raise InputError(
        f'{source}: focus distance of frame {n} is {distance}, inside the focal length {focal_length}; '
        'expected a larger one (both in the same unit)'
      )
