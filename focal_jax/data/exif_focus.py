"""Focus distances in the metadata of the images themselves: SubjectDistance in EXIF, or else distances in XMP."""

import numpy as np
from jaxtyping import Float64

from focal_jax.data.exif import FrameExif
from focal_jax.data.names import format_list
from focal_jax.errors import InputError

_FAR_M = 20.0  # a sweep of a camera that begins beyond this distance is unlikely
_MIN_VALUES = 0.5  # minimum ratio of different distances to frames
_ALIKE = 0.02  # maximum relative difference of equal distances in EXIF and XMP


def focus_of_exif(
  names: list[str], exif: list[FrameExif], focal_length_m: float | None, dioptres: bool, notes: list[str]
) -> tuple[Float64[np.ndarray, 'N'], str] | None:
  """Dioptres of each frame, and where they are from; None: there are none. Cameras often write meaningless values, so
  values that are not a sweep are ignored unless requested.

  Args:
    names: of the frames.
    exif: of the frames.
    focal_length_m: focal length of the lens, m. None: unknown.
    dioptres: SubjectDistance in EXIF is in dioptres, not in metres as in the standard.
    notes: notes for the user are added here.

  Raises:
    InputError: dioptres are requested, but some frame has none.
  """
  values, others = (
    np.array([np.nan if (value := getattr(frame, field)) is None else value for frame in exif])
    for field in ('subject_distance', 'xmp_distance_m')
  )
  if dioptres:
    if not np.isfinite(values).all():
      without = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
      raise InputError(f'EXIF of {", ".join(without)}: no finite SubjectDistance, expected one in dioptres')
    return values, 'EXIF'
  if not _is_sweep(names, values, 'SubjectDistance in EXIF', focal_length_m, notes):
    if _is_sweep(names, others, 'The focus distance in XMP', focal_length_m, notes):
      return 1.0 / others, 'XMP'
    return None
  notes.append(
    'SubjectDistance in EXIF was read as metres, the standard unit; some devices write dioptres (exif_dioptres).'
  )
  if values.min() > _FAR_M:
    notes.append(
      f'The nearest focus distance is {values.min():g} m: SubjectDistance may be in another unit, such as mm. '
      'metadata.csv takes precedence.'
    )
  agree = np.isnan(others) | np.isclose(1 / values, 1 / others, rtol=_ALIKE)
  if not agree.all():
    different = [name for name, same in zip(names, agree, strict=True) if not same]
    notes.append(f'The focus distance in XMP differs from that in EXIF, which is used, in {format_list(different)}.')
  return 1.0 / values, 'EXIF'


def _is_sweep(
  names: list[str], values: Float64[np.ndarray, 'N'], what: str, focal_length_m: float | None, notes: list[str]
) -> bool:
  """Whether values may be distances of a sweep, m; if there are some that are not, a note gives the reason."""
  if not np.nan_to_num(values).any():  # 0 means unknown in the standard
    return False
  shortest, count = focal_length_m or 0.0, len(set(values.tolist()))
  if np.isnan(values).any():
    without = [name for name, value in zip(names, values, strict=True) if np.isnan(value)]
    reason = f'{format_list(without)} {"has" if len(without) == 1 else "have"} none'
  elif count == 1:
    reason = f'it is {values[0]:g} m in every frame'
  elif values.min() <= shortest:
    reason = f'{values.min():g} in {names[values.argmin()]} is not a distance in metres'
    if values.max() < np.inf and values.max() * shortest < 1 and 'EXIF' in what:
      reason += ', but may be in dioptres, which some devices write (read them with exif_dioptres)'
  elif count < _MIN_VALUES * len(values):
    reason = f'it has only {count} values in {len(values)} frames'
  else:
    return True
  notes.append(f'{what} was ignored: {reason}.')
  return False
