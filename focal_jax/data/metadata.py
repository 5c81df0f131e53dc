"""What is known about the frames of a stack besides their pixels: each quantity by the first that has it of

* text files in the layout of the published code: `focus_distance.txt`, one distance per image of the folder in name
  order, and `focal_length.txt`, one number in the same unit, whichever that is;
* a sidecar, `metadata.csv` or `metadata.json` (`data.sidecar`);
* EXIF in the images (`data.exif`).
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax import optics
from focal_jax.data.exif import FrameExif
from focal_jax.data.sidecar import Sidecar, read_sidecar
from focal_jax.errors import InputError

FOCUS_DISTANCE_FILE = 'focus_distance.txt'
FOCAL_LENGTH_FILE = 'focal_length.txt'

# Units of the focus. The first is dioptres if the file is in metres.
INVERSE_DISTANCE_UNIT = f'1 / unit of {FOCUS_DISTANCE_FILE}'
DIOPTRE_UNIT = '1/m'
FRAME_INDEX_UNIT = 'frame index'


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
  """Where the frames are focused.

  Attributes:
    focus: 1 / focus distance of each frame, in the order of their files.
    unit: of `focus`: `INVERSE_DISTANCE_UNIT` or `DIOPTRE_UNIT`.
    source: where it was found.
    focal_length: of the lens, in the unit of the distances. None: not known.
    length_source: where it was found.
  """

  focus: Float64[np.ndarray, 'N']
  unit: str
  source: str
  focal_length: float | None
  length_source: str


@dataclasses.dataclass(frozen=True, eq=False)
class Metadata:
  """Of a stack; pixels are those of whole, upright frames.

  Attributes:
    sweep: None: no focus distances are known.
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`); 1 where unknown.
    focal_length_px: across the frame. None: not known.
    f_number: None: not known.
    principal_point_px: x and y, pixel centres at integers; the frame's centre unless a sidecar says otherwise.
    notes: remarks for the user, one sentence each: what was used, assumed or ignored.
  """

  sweep: Sweep | None
  fov: Float64[np.ndarray, 'N']
  focal_length_px: float | None
  f_number: float | None
  principal_point_px: tuple[float, float]
  notes: list[str]


def read_metadata(
  names: list[str],
  folder: Path | None,
  all_names: list[str],
  exif: list[FrameExif],
  size: tuple[int, int],
  exif_dioptres: bool,
) -> Metadata:
  """Metadata of the frames `names`.

  Args:
    names: file names of the frames.
    folder: that holds them. None: several do, and there is nothing but EXIF.
    all_names: of all images of the folder, in name order.
    exif: of each frame.
    size: width and height of the whole, upright frames, px.
    exif_dioptres: SubjectDistance of EXIF is in dioptres; by the standard it is in metres.

  Raises:
    InputError: naming the file and field, what was found and what was expected.
  """
  notes = []
  sidecar = read_sidecar(folder, names) if folder else Sidecar()
  lens = _lens(exif, notes)
  if sidecar.focal_length_mm is None:
    focal_length_mm, length_source = lens.focal_length_mm, 'EXIF'
  else:
    focal_length_mm, length_source = sidecar.focal_length_mm, sidecar.path.name
  focal_length_m = None if focal_length_mm is None else focal_length_mm * 1e-3

  sweep = _read_text_files(folder, names, all_names, notes) if folder else None
  if sidecar.focus_dpt is not None:
    if sweep:
      notes.append(f'Focus in {sidecar.path.name} was ignored: {FOCUS_DISTANCE_FILE} comes first.')
    else:
      sweep = Sweep(sidecar.focus_dpt, DIOPTRE_UNIT, sidecar.path.name, focal_length_m, length_source)
  if sweep:
    if exif_dioptres:
      notes.append(f'exif_dioptres was ignored: {sweep.source} comes first.')
  elif (focus := _exif_focus(names, exif, focal_length_m, exif_dioptres, notes)) is not None:
    sweep = Sweep(focus, DIOPTRE_UNIT, 'EXIF', focal_length_m, length_source)

  return Metadata(
    sweep=sweep,
    fov=_field_of_view(sweep, folder, notes) if sweep else np.ones(len(names)),
    focal_length_px=_focal_length_px(sidecar, lens, focal_length_mm, size, notes),
    f_number=sidecar.f_number or lens.f_number,
    principal_point_px=sidecar.principal_point_px or ((size[0] - 1) / 2, (size[1] - 1) / 2),
    notes=notes,
  )


def _lens(exif: list[FrameExif], notes: list[str]) -> FrameExif:
  """What EXIF says about the lens, if all frames that say something say the same."""
  values = {}
  for field in ('focal_length_mm', 'f_number', 'focal_length_px'):
    known = [value for frame in exif if (value := getattr(frame, field)) is not None]
    if known and np.isclose(min(known), max(known), rtol=1e-3):
      values[field] = known[0]
    elif known:
      notes.append(f'{field} in EXIF was ignored: it goes from {min(known):g} to {max(known):g}.')
  return FrameExif(**values)


def _read_text_files(folder: Path, names: list[str], all_names: list[str], notes: list[str]) -> Sweep | None:
  distance_file, length_file = folder / FOCUS_DISTANCE_FILE, folder / FOCAL_LENGTH_FILE
  if not distance_file.exists():
    if length_file.exists():
      notes.append(f'{FOCAL_LENGTH_FILE} was ignored: it says nothing without {FOCUS_DISTANCE_FILE}.')
    return None
  distance = _read_numbers(distance_file)
  if len(distance) != len(all_names):
    raise InputError(
      f'{distance_file}: {len(distance)} numbers, expected {len(all_names)}, one for each image beside it'
    )
  # Any distance above 0 lies outside the shortest focal length there is.
  optics.check_focus_distances(distance, np.finfo(np.float64).tiny, str(distance_file))
  focal_length = None
  if length_file.exists():
    length = _read_numbers(length_file)
    if len(length) != 1:
      raise InputError(f'{length_file}: {len(length)} numbers, expected 1')
    focal_length = float(length[0])
  by_name = dict(zip(all_names, 1.0 / distance, strict=True))
  focus = np.array([by_name[name] for name in names])
  return Sweep(focus, INVERSE_DISTANCE_UNIT, FOCUS_DISTANCE_FILE, focal_length, FOCAL_LENGTH_FILE)


def _read_numbers(path: Path) -> Float64[np.ndarray, 'N']:
  """The numbers of a text file, separated by white space."""
  try:
    words = path.read_text(encoding='utf-8-sig').split()  # Windows editors begin a file with a byte order mark.
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path}: cannot be read as text ({error})') from error
  numbers = np.empty(len(words))
  for n, word in enumerate(words):
    try:
      numbers[n] = float(word)
    except ValueError:
      raise InputError(f'{path}: number {n + 1} is {word[:40]!r}, expected a number such as 0.35') from None
  return numbers


def _exif_focus(
  names: list[str], exif: list[FrameExif], focal_length_m: float | None, dioptres: bool, notes: list[str]
) -> Float64[np.ndarray, 'N'] | None:
  """Dioptres from SubjectDistance. Unless they are asked for, values that are no sweep are ignored, for cameras write
  much that means nothing; None then.
  """
  values = np.array([np.nan if frame.subject_distance is None else frame.subject_distance for frame in exif])
  if dioptres:
    if not np.isfinite(values).all():
      without = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
      raise InputError(f'EXIF of {", ".join(without)}: no finite SubjectDistance, expected one in dioptres')
    return values
  if not np.nan_to_num(values).any():  # 0 is the standard's 'unknown'.
    return None
  shortest = focal_length_m or 0.0
  if np.isnan(values).any():
    reason = f'{", ".join(name for name, value in zip(names, values, strict=True) if np.isnan(value))} have none'
  elif np.all(values == values[0]):
    reason = f'it is {values[0]:g} m in every frame'
  elif values.min() <= shortest:
    reason = f'{values.min():g} in {names[values.argmin()]} is no distance in metres'
    if values.max() < np.inf and values.max() * shortest < 1:
      reason += ', but one in dioptres, which some devices write (exif_dioptres reads them)'
  else:
    notes.append(
      'SubjectDistance in EXIF was read as metres, the standard; some devices write dioptres (exif_dioptres).'
    )
    return 1.0 / values
  notes.append(f'SubjectDistance in EXIF was ignored: {reason}.')
  return None


def _field_of_view(sweep: Sweep, folder: Path | None, notes: list[str]) -> Float64[np.ndarray, 'N']:
  """Relative field of view of each frame."""
  source = f'{folder}: {sweep.source}' if folder else sweep.source
  with np.errstate(divide='ignore'):
    distance = 1.0 / sweep.focus
  if np.all(sweep.focus == sweep.focus[0]):
    raise InputError(f'{source}: the focus distance is {distance[0]:g} in every frame, expected a sweep')
  if sweep.focal_length is None:
    notes.append(f'Focus distances are from {sweep.source}. No focal length: the field of view was taken as equal.')
    return np.ones(len(distance))
  notes.append(f'Focus distances are from {sweep.source}, the focal length from {sweep.length_source}.')
  return optics.field_of_view_of_sweep(sweep.focal_length, distance, f'{source} with {sweep.length_source}')


def _focal_length_px(
  sidecar: Sidecar, lens: FrameExif, focal_length_mm: float | None, size: tuple[int, int], notes: list[str]
) -> float | None:
  if sidecar.focal_length_px is not None:
    return sidecar.focal_length_px
  if sidecar.sensor_width_mm is not None:
    if focal_length_mm is not None:
      return focal_length_mm / sidecar.sensor_width_mm * max(size)
    notes.append(f'sensor_width_mm in {sidecar.path.name} was ignored: no focal length is known.')
  if lens.focal_length_px is not None:
    notes.append(f'The focal length of {lens.focal_length_px:.0f} px is approximate: it is from EXIF.')
  return lens.focal_length_px
