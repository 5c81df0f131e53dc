"""Metadata of the frames of a stack. Each quantity is taken from the first source that has it:

* text files in the layout of the published code: `focus_distance.txt`, one distance per image of the folder in name
  order, and `focal_length.txt`, one number in the same unit, whichever it is;
* a sidecar, `metadata.csv` or `metadata.json` (`data.sidecar`);
* EXIF in the images, or else XMP in them or in files beside them (`data.exif_focus`);
* file names with a unit (`data.named_focus`).
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax import optics
from focal_jax.data import paths as file_paths
from focal_jax.data.exif import FrameExif
from focal_jax.data.exif_focus import focus_of_exif
from focal_jax.data.named_focus import focus_of_names, unused_numbers
from focal_jax.data.names import format_list, printable
from focal_jax.data.sidecar import SIDECAR_FILES, Sidecar, known_unit, read_sidecar
from focal_jax.data.texts import read_text
from focal_jax.data.units import is_unit, plain_number, usual_unit
from focal_jax.data.xmp import distances_in_files
from focal_jax.errors import InputError

FOCUS_DISTANCE_FILE = 'focus_distance.txt'
FOCAL_LENGTH_FILE = 'focal_length.txt'
METADATA_FILES = (FOCUS_DISTANCE_FILE, FOCAL_LENGTH_FILE, *SIDECAR_FILES)

# Units of the focus coordinate. The first is dioptres if the file is in metres.
INVERSE_DISTANCE_UNIT = f'1 / unit of {FOCUS_DISTANCE_FILE}'
DIOPTRE_UNIT = '1/m'
FRAME_INDEX_UNIT = 'frame index'
POSITION_UNIT = f'unit of {FOCUS_DISTANCE_FILE}'  # of positions along the axis without a given unit

_NAMES = 'the series of file names'

_TABLES = ('.csv', '.tsv', '.xls', '.xlsx', '.ods', '.yaml', '.yml')  # other tables, which may hold distances

_TEXT_NAMES = re.compile('focus|distance|position|metadata')  # of text files that may hold them


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
  """Where the frames are focused.

  Attributes:
    focus: 1 / focus distance, or position along the axis, of each frame, in the order of their files.
    unit: of `focus`: `INVERSE_DISTANCE_UNIT`, `DIOPTRE_UNIT`, or any other unit for positions.
    source: where the focus was found, for notes.
    focal_length: of the lens, in the unit of the distances. None: unknown.
    length_source: where the focal length was found, for notes.
  """

  focus: Float64[np.ndarray, 'N']
  unit: str
  source: str
  focal_length: float | None = None
  length_source: str = ''

  @property
  def is_position(self) -> bool:
    """Whether `focus` is a position along the axis, so that it is unknown which end is far."""
    return self.unit not in (INVERSE_DISTANCE_UNIT, DIOPTRE_UNIT)


@dataclasses.dataclass(frozen=True, eq=False)
class Metadata:
  """Metadata of a stack; pixels are those of whole, upright frames.

  Attributes:
    sweep: None: focus distances are unknown.
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`); 1 if unknown.
    focal_length_px: focal length in pixels. None: unknown.
    f_number: of the lens. None: unknown.
    principal_point_px: x and y, pixel centres at integers; the frame's centre unless a sidecar says otherwise.
    notes: notes for the user, one sentence each: what was used, assumed or ignored.
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
  pages: Sweep | None = None,
) -> Metadata:
  """Metadata of the frames `names`.

  Args:
    names: file names of the frames.
    folder: their folder. None: they are in several folders, and EXIF is the only source.
    all_names: names of all images in the folder, in name order.
    exif: of each frame.
    size: width and height of the whole, upright frames, px.
    exif_dioptres: SubjectDistance in EXIF is in dioptres; by the standard it is in metres.
    pages: metadata of the file whose pages are the frames.

  Raises:
    InputError: naming the file and field, what was found and what was expected.
  """
  sidecar = read_sidecar(folder, names) if folder else Sidecar()
  notes = list(sidecar.notes)
  lens = _lens(exif, notes)
  if sidecar.focal_length_mm is None:
    focal_length_mm, length_source = lens.focal_length_mm, 'EXIF'
  else:
    focal_length_mm, length_source = sidecar.focal_length_mm, sidecar.path.name
  focal_length_m = None if focal_length_mm is None else focal_length_mm * 1e-3

  sweep = _read_text_files(folder, names, all_names, sidecar.focus_unit, notes) if folder else None
  if sidecar.focus_dpt is not None or sidecar.positions is not None:
    if sweep:
      notes.append(f'Focus in {sidecar.path.name} was ignored: {FOCUS_DISTANCE_FILE} takes precedence.')
    elif sidecar.positions is None:
      sweep = Sweep(sidecar.focus_dpt, DIOPTRE_UNIT, sidecar.path.name, focal_length_m, length_source)
    else:
      unit = sidecar.focus_unit or f'unit of {sidecar.path.name}'
      sweep = Sweep(sidecar.positions, unit, sidecar.path.name)
  elif sidecar.focus_unit and not sweep:
    notes.append(f'focus_unit in {sidecar.path.name} was ignored: there are no positions.')
  sweep = sweep or pages
  if sweep:
    if exif_dioptres:
      notes.append(f'exif_dioptres was ignored: {sweep.source} takes precedence.')
  elif (
    found := focus_of_exif(names, _with_xmp_files(exif, names, folder), focal_length_m, exif_dioptres, notes)
  ) is not None:
    sweep = Sweep(found[0], DIOPTRE_UNIT, found[1], focal_length_m, length_source)
  elif (named := focus_of_names(names)) is not None:
    focus, unit = named
    if known_unit(unit) is None:
      sweep = Sweep(focus, unit, _NAMES)
    else:
      dioptres = 1.0 / focus if unit == 'm' else focus
      sweep = Sweep(dioptres, DIOPTRE_UNIT, _NAMES, focal_length_m, length_source)
  elif folder and (tables := sorted(path.name for path in file_paths.entries(folder) if _is_table(path))):
    was = 'was' if len(tables) == 1 else 'were'
    notes.append(f'{format_list(tables)} {was} not read: focus distances are expected in {SIDECAR_FILES[0]}.')
  elif (ends := unused_numbers(names)) is not None:
    notes.append(
      f'Numbers in the file names, {ends[0]} to {ends[1]}, were not used. If they are focus distances, rename '
      f'the files with a unit, as in focus_0.5m.jpg, or write the distances to {SIDECAR_FILES[0]}.'
    )

  return Metadata(
    sweep=sweep,
    fov=_field_of_view(sweep, folder, notes) if sweep else np.ones(len(names)),
    focal_length_px=_focal_length_px(sidecar, lens, focal_length_mm, size, notes),
    f_number=sidecar.f_number or lens.f_number,
    principal_point_px=sidecar.principal_point_px or ((size[0] - 1) / 2, (size[1] - 1) / 2),
    notes=notes,
  )


def _with_xmp_files(exif: list[FrameExif], names: list[str], folder: Path | None) -> list[FrameExif]:
  """EXIF with the focus distances of XMP files beside the frames, where frames have no XMP of their own with one."""
  beside = distances_in_files(names, file_paths.entries(folder)) if folder else {}
  return [
    dataclasses.replace(one, xmp_distance_m=beside.get(name)) if one.xmp_distance_m is None else one
    for name, one in zip(names, exif, strict=True)
  ]


def _is_table(path: Path) -> bool:
  name = path.name.lower()
  is_text = path.suffix.lower() == '.txt' and _TEXT_NAMES.search(name)
  return bool(path.suffix.lower() in _TABLES or is_text) and name not in METADATA_FILES and name[0] not in '.~'


def _lens(exif: list[FrameExif], notes: list[str]) -> FrameExif:
  """EXIF of the lens, if all frames that have it agree."""
  values = {}
  for field in ('focal_length_mm', 'f_number', 'focal_length_px'):
    known = [value for frame in exif if (value := getattr(frame, field)) is not None]
    if known and np.isclose(min(known), max(known), rtol=1e-3):
      values[field] = known[0]
    elif known:
      notes.append(f'{field} in EXIF was ignored: it ranges from {min(known):g} to {max(known):g}.')
  return FrameExif(**values)


def count_distances(folder: Path) -> int | None:
  """Number of images that `focus_distance.txt` describes; None if there is no such file."""
  path = file_paths.find_ignoring_case(folder, FOCUS_DISTANCE_FILE)
  return len(_read_numbers(path)[0]) if file_paths.is_there(path) else None


def _read_text_files(
  folder: Path, names: list[str], all_names: list[str], sidecar_unit: str | None, notes: list[str]
) -> Sweep | None:
  """Focus from `focus_distance.txt`, with `focal_length.txt`; None: there is no such file. `sidecar_unit`: unit of the
  numbers, if they have none.
  """
  distance_file, length_file = (
    file_paths.find_ignoring_case(folder, name) for name in (FOCUS_DISTANCE_FILE, FOCAL_LENGTH_FILE)
  )
  if not file_paths.is_there(distance_file):
    if file_paths.is_there(length_file):
      notes.append(f'{FOCAL_LENGTH_FILE} was ignored: it needs {FOCUS_DISTANCE_FILE}.')
    return None
  numbers, unit = _read_numbers(distance_file)
  if len(numbers) != len(all_names):
    raise InputError(
      f'{printable(distance_file)}: {len(numbers)} numbers, expected {len(all_names)}, one for each image in its folder'
    )
  unit = unit or sidecar_unit
  by_name = dict(zip(all_names, numbers, strict=True))
  values = np.array([by_name[name] for name in names])
  meaning = known_unit(unit)
  has_length = file_paths.is_there(length_file)
  finite = bool(np.isfinite(numbers).all())
  guessed_positions = unit is None and not has_length and finite and numbers.min() <= 0
  if guessed_positions or (unit is not None and meaning is None) or meaning == 'focus_dpt':
    if not finite or (meaning == 'focus_dpt' and values.min() < 0):
      least = ' of at least 0' if meaning == 'focus_dpt' else ''
      raise InputError(
        f'{printable(distance_file)}: numbers in {unit} from {values.min():g} to {values.max():g}, '
        f'expected finite ones{least}'
      )
    if has_length:
      notes.append(f'{FOCAL_LENGTH_FILE} was ignored: {FOCUS_DISTANCE_FILE} is in {unit}.')
    if guessed_positions:
      notes.append(
        f'{FOCUS_DISTANCE_FILE} has numbers that are not above 0: all were taken as positions along the axis '
        '(focus_unit gives their unit).'
      )
    return Sweep(values, DIOPTRE_UNIT if meaning else unit or POSITION_UNIT, FOCUS_DISTANCE_FILE)
  # Any distance above 0 lies beyond the shortest possible focal length.
  tiniest = np.finfo(np.float64).tiny
  optics.check_focus_distances(numbers, tiniest, printable(distance_file))
  focal_length = None
  if has_length:
    length, _ = _read_numbers(length_file)
    if len(length) != 1:
      raise InputError(f'{printable(length_file)}: {len(length)} numbers, expected 1')
    focal_length = float(length[0])
  unit = DIOPTRE_UNIT if meaning else INVERSE_DISTANCE_UNIT
  return Sweep(1.0 / values, unit, FOCUS_DISTANCE_FILE, focal_length, FOCAL_LENGTH_FILE)


def _read_numbers(path: Path) -> tuple[Float64[np.ndarray, 'N'], str | None]:
  """The numbers of a text file, separated by white space or commas, and their unit, if given."""
  numbers, units = [], []
  for line in read_text(path).splitlines():
    line, _, comment = line.partition('#')
    if found := re.search(r'focus_unit\s*[:=]?\s*(\S+)', f'{line} {comment}'):
      units.append(usual_unit(found[1]))
      continue
    if ',' in line and ('.' in line or re.fullmatch(r'\s*[^\s,;]+(,\s*[^\s,;]+){2,},?\s*', line)):
      line = line.replace(',', ' ')  # commas separate numbers here
    for word in re.split(r'[\s;]+|,\s', line):
      word = word.rstrip(',')
      number = re.fullmatch(r'([-+\u2212]?[\d.,]+(?:[eE][-+]?\d+)?)([^\W\d_]+)', word)
      if is_unit(word) and numbers:
        units.append(usual_unit(word))
      elif number and is_unit(number[2]):
        numbers.append(_number(path, len(numbers), number[1]))
        units.append(usual_unit(number[2]))
      elif word:
        numbers.append(_number(path, len(numbers), word))
  if len(set(units)) > 1:
    raise InputError(f'{printable(path)}: units {", ".join(sorted(set(units)))}, expected one')
  return np.array(numbers, np.float64), units[0] if units else None


def _number(path: Path, place: int, word: str) -> float:
  try:
    return float(plain_number(word)) + 0.0  # no negative zero
  except ValueError:
    raise InputError(
      f'{printable(path)}: number {place + 1} is {word[:40]!r}, expected a number such as 0.35'
    ) from None


def _field_of_view(sweep: Sweep, folder: Path | None, notes: list[str]) -> Float64[np.ndarray, 'N']:
  """Relative field of view of each frame."""
  source = f'{printable(folder)}: {sweep.source}' if folder else sweep.source
  if sweep.is_position:
    if np.all(sweep.focus == sweep.focus[0]):
      raise InputError(f'{source}: the position is {sweep.focus[0]:g} in every frame, expected a sweep')
    notes.append(
      f'Positions along the axis are from {sweep.source}, in {sweep.unit}, and so is depth. The field of view was '
      'assumed to be constant.'
    )
    return np.ones(len(sweep.focus))
  with np.errstate(divide='ignore'):
    distance = 1.0 / sweep.focus
  if np.all(sweep.focus == sweep.focus[0]):
    raise InputError(f'{source}: the focus distance is {distance[0]:g} in every frame, expected a sweep')
  if sweep.focal_length is None:
    notes.append(
      f'Focus distances are from {sweep.source}. No focal length: the field of view was assumed to be constant.'
    )
    return np.ones(len(distance))
  notes.append(f'Focus distances are from {sweep.source}, the focal length from {sweep.length_source}.')
  sources = source if sweep.length_source == sweep.source else f'{source} with {sweep.length_source}'
  return optics.field_of_view_of_sweep(sweep.focal_length, distance, sources)


def _focal_length_px(
  sidecar: Sidecar, lens: FrameExif, focal_length_mm: float | None, size: tuple[int, int], notes: list[str]
) -> float | None:
  if sidecar.focal_length_px is not None:
    return sidecar.focal_length_px
  if sidecar.sensor_width_mm is not None:
    if focal_length_mm is not None:
      return focal_length_mm / sidecar.sensor_width_mm * max(size)
    notes.append(f'sensor_width_mm in {sidecar.path.name} was ignored: the focal length is unknown.')
  if lens.focal_length_px is not None:
    notes.append(f'The focal length of {lens.focal_length_px:.0f} px is approximate (from EXIF).')
  return lens.focal_length_px
