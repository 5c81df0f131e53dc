"""Reads `metadata.csv` or `metadata.json` next to the images: metadata of a stack from a person or a capture program.

It names files and gives, for all of them or none, one of `focus_distance_m` (above 0, or inf), `focus_dpt` (dioptres, 0
at infinity) and `focus`, in `focus_unit`. The units `m` and `dpt` stand for the former two. With any other unit,
`focus` is a position along the axis, for example of a microscope stage, and may be 0 or negative. `focus_unit` without
`focus` is the unit of `focus_distance.txt`.

The other fields apply to the whole stack, and are all optional: `focal_length_m` or `focal_length_mm`; `f_number`;
`sensor_width_mm`, the longer side of the sensor, which corresponds to the longer side of the frames; `focal_length_px`,
`principal_point_x_px` and `principal_point_y_px`, in pixels of the upright frames as stored in the files, pixel centres
at integers. Unknown fields are errors, because they may be misspelt.

    file,focus_distance_m,focal_length_mm
    IMG_1.jpg,inf,4.3
    IMG_2.jpg,0.5,

    {"focal_length_mm": 4.3, "frames": [{"file": "IMG_1.jpg", "focus_dpt": 0}, {"file": "IMG_2.jpg", "focus_dpt": 2}]}

In a CSV file, fields of the whole stack are in one row, or equal in several. Files saved by spreadsheets are accepted:
cells separated by commas, semicolons or tabs, decimal commas, UTF-8 or UTF-16. File names are compared ignoring case
and the composition of accents, unless files differ only in these; leading folders are ignored, and the suffix may be
omitted. Column names may have spaces and capitals, and units in brackets: Focus distance (m). Distances may be in other
units of length, and focus in any, as in Focus distance (cm) and Focus (um); units may also follow the numbers. There
may be comment lines (#), and an unnamed column that numbers the rows.

A file of this name that has none of the fields and names no image is from another program; it is not read, with a note.
"""

import csv
import dataclasses
import difflib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from focal_jax.data import paths as file_paths
from focal_jax.data.formats import is_image
from focal_jax.data.names import comparable, format_list, printable
from focal_jax.data.texts import read_text
from focal_jax.data.units import DIOPTRES, METRES, MICROMETRES, micro, plain_number, split_unit
from focal_jax.errors import InputError, one_line

SIDECAR_FILES = ('metadata.csv', 'metadata.json')

# Requirements on numbers: in words, and as a test.
Expected = tuple[str, Callable[[float], bool]]
_POSITIVE: Expected = ('a finite number above 0', lambda value: 0 < value < np.inf)
_FINITE: Expected = ('a finite number', lambda value: -np.inf < value < np.inf)
_FRAME_FIELDS: dict[str, Expected] = {
  'focus_distance_m': ('a number above 0, or inf', lambda value: value > 0),
  'focus_dpt': ('a finite number of at least 0', lambda value: 0 <= value < np.inf),
  'focus': _FINITE,
}
# Field that `focus` stands for, by its unit.
_KNOWN_UNITS = {
  **{unit: 'focus_distance_m' for unit, metres in METRES.items() if metres == 1},
  **dict.fromkeys(DIOPTRES, 'focus_dpt'),
}
_UNIT = 'focus_unit'
_STACK_FIELDS: dict[str, Expected] = {
  'focal_length_m': _POSITIVE,
  'focal_length_mm': _POSITIVE,
  'f_number': _POSITIVE,
  'sensor_width_mm': _POSITIVE,
  'focal_length_px': _POSITIVE,
  'principal_point_x_px': _FINITE,
  'principal_point_y_px': _FINITE,
}
_COLUMNS = ('file', *_FRAME_FIELDS, *_STACK_FIELDS, _UNIT)
# Fields that exclude each other, and fields that must be given together.
_ONE_OF = (tuple(_FRAME_FIELDS), ('focal_length_m', 'focal_length_mm'))
_TOGETHER = ('principal_point_x_px', 'principal_point_y_px')
# Factors to the unit of a field, by the unit that follows a number.
_MILLIMETRES = {unit: 1e3 * metres for unit, metres in METRES.items()}
_UNITS = {
  **dict.fromkeys(('focus_distance_m', 'focal_length_m'), METRES),
  **dict.fromkeys(('focal_length_mm', 'sensor_width_mm'), _MILLIMETRES),
  'focus_dpt': dict.fromkeys(DIOPTRES, 1.0),
}
# Other names of columns.
_FILE_COLUMNS = ('filename', 'file_name', 'image', 'image_file', 'image_name', 'sourcefile', 'source_file')
_DISTANCE_COLUMN = re.compile(r'(?:focus_|subject_|focus)?distance_(\w+)')
_WITHOUT_UNIT = ('distance', 'focus_distance', 'focusdistance', 'subject_distance', 'subjectdistance')
_FOCUS_COLUMN = re.compile(r'(?:focus|(?:focus_|z_)?position|z)_(\w+)')
_POSITION_UNITS = (*MICROMETRES, 'nm', 'steps', *(unit for unit in METRES if unit not in _KNOWN_UNITS))
_QUOTED = re.compile(r'=?(["\'])(.*)\1')  # also the formula that keeps a spreadsheet from changing a cell
_THOUSANDS = re.compile(r'[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?')

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Sidecar:
  """Content of a sidecar; None: not given.

  Attributes:
    path: the file.
    files: names of the files in its folder that it lists.
    focus_dpt: of each frame, 1/m.
    positions: of each frame along the axis, in `focus_unit`.
    focus_unit: as written; never metres or dioptres together with `positions`.
    focal_length_mm: of the lens.
    f_number: of the lens.
    sensor_width_mm: the longer side of the sensor.
    focal_length_px: in pixels of the upright frames in the files.
    principal_point_px: x and y in the same frames, pixel centres at integers.
    other: note about a file of another program with the name of a sidecar.
  """

  path: Path | None = None
  files: frozenset[str] = frozenset()
  focus_dpt: Float64[np.ndarray, 'N'] | None = None
  positions: Float64[np.ndarray, 'N'] | None = None
  focus_unit: str | None = None
  focal_length_mm: float | None = None
  f_number: float | None = None
  sensor_width_mm: float | None = None
  focal_length_px: float | None = None
  principal_point_px: tuple[float, float] | None = None
  other: str | None = None


def read_sidecar(folder: Path, names: list[str]) -> Sidecar:
  """Reads the sidecar in `folder`, if there is one, for the frames `names`; it may list other files of the folder too.

  Raises:
    InputError: naming the file and the field, what was found and what was expected.
  """
  found = [path for name in SIDECAR_FILES if file_paths.is_there(path := file_paths.find_ignoring_case(folder, name))]
  if not found:
    return Sidecar()
  path = found[0]
  if len(found) > 1:
    raise InputError(f'{printable(folder)}: both {" and ".join(SIDECAR_FILES)}, expected one of them')
  text = read_text(path)
  if fields := _fields_of_another_program(folder, path, text):
    note = f'{path.name} was not read: its fields are those of another program ({format_list(fields)}).'
    return Sidecar(other=note)
  source = printable(path)
  stack, entries = (_parse_csv if path.suffix.lower() == '.csv' else _parse_json)(source, text)
  frames = _by_file(source, entries, _allowed_names(folder, names))

  present = stack.keys() | {field for frame in frames.values() for field in frame}
  for fields in _ONE_OF:
    if len(both := [field for field in fields if field in present]) > 1:
      raise InputError(f'{source}: both {both[0]} and {both[1]}, expected one of them')
  if len(present.intersection(_TOGETHER)) == 1:
    raise InputError(f'{source}: one of {" and ".join(_TOGETHER)}, expected both or neither')

  values = {}
  if (unit := stack.pop(_UNIT, None)) is not None:
    if not isinstance(unit, str) or not unit.strip():
      raise InputError(f"{source}: {_UNIT} is {_shown(unit)}, expected the name of a unit such as 'um'")
    values['focus_unit'] = unit = unit.strip()
  for field in present.intersection(_FRAME_FIELDS):  # one at most
    values |= _focus(source, field, unit, {name: frames.get(name, {}) for name in names})
  values |= {field: _number(source, field, value, field) for field, value in stack.items()}
  if 'focal_length_m' in values:
    values['focal_length_mm'] = values.pop('focal_length_m') * 1e3
  if _TOGETHER[0] in values:
    values['principal_point_px'] = tuple(values.pop(field) for field in _TOGETHER)
  return Sidecar(path, frozenset(frames), **values)


def _focus(source: str, field: str, unit: str | None, frames: dict[str, Fields]) -> Fields:
  """Attributes of `Sidecar` from the field that gives the focus of every frame."""
  meaning = field
  if field == 'focus':
    unit = _take_units(source, [frame for frame in frames.values() if field in frame], unit)
    meaning = known_unit(unit) or field
  elif unit is not None and known_unit(unit) != field:
    raise InputError(f"{source}: {_UNIT} is {_shown(unit)} with {field}, expected it only with 'focus'")
  if without := [name for name, frame in frames.items() if frame.get(field) is None]:
    raise InputError(f'{source}: no {field} for {format_list(without)}, expected one for every image')
  numbers = np.array([_number(source, f'{field} of {name}', frame[field], meaning) for name, frame in frames.items()])
  if meaning == 'focus':
    return {'positions': numbers, 'focus_unit': unit}
  return {'focus_dpt': 1.0 / numbers if meaning == 'focus_distance_m' else numbers, 'focus_unit': unit}


def known_unit(unit: str | None) -> str | None:
  """The field that `focus` in a unit means: `focus_distance_m`, `focus_dpt`, or None for positions along the axis."""
  return _KNOWN_UNITS.get(unit.strip().lower()) if unit else None


def _take_units(source: str, entries: list[Fields], unit: str | None) -> str | None:
  """Removes the unit that follows the numbers in `focus`; returns it, or `unit` if there is none."""
  found = {}
  for entry in entries:
    if isinstance(entry['focus'], str):
      entry['focus'], its = split_unit(entry['focus'])
      if its:
        found[its] = entry['focus']
  if len(found) > 1 or (found and unit and micro(unit).lower() not in found):
    units = [*([unit] if unit else []), *found]
    raise InputError(f'{source}: focus is in {" and ".join(units)}, expected one unit')
  return unit or next(iter(found), None)


def _fields_of_another_program(folder: Path, path: Path, text: str) -> list[str]:
  """The fields of a file that only has the name of a sidecar; [] if it is one, perhaps with mistakes."""
  if any(entry.name in text for entry in file_paths.entries(folder) if is_image(entry)):
    return []
  if path.suffix.lower() == '.csv':
    fields = [cell.strip() for cell in re.split('[,;\t]', text.lstrip().partition('\n')[0])]
  else:
    try:
      document = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
      return []
    fields = list(document) if isinstance(document, dict) else []
  known = ('frames', *_COLUMNS)
  likely = [field for field in fields if any(map(str.isalpha, field))]
  if len(likely) < 2 or any(
    _column(field)[0] in known or difflib.get_close_matches(word, known, cutoff=0.8)
    for field in likely
    for word in (field, *re.split(r'[\s|]+', field))
  ):
    return []
  return likely


def _column(name: str) -> tuple[str, str | None]:
  """The field that a column stands for, and the unit in its name; an unknown name is returned as it is."""
  plain = re.sub(r'\W+', '_', micro(name.lower())).strip('_')  # Focus distance (m) is focus_distance_m
  if plain in _COLUMNS:
    return plain, None
  if plain in _FILE_COLUMNS:
    return 'file', None
  if (found := _DISTANCE_COLUMN.fullmatch(plain)) and found[1] in METRES:
    return 'focus_distance_m', found[1]
  if (found := _FOCUS_COLUMN.fullmatch(plain)) and found[1] in _POSITION_UNITS:
    return 'focus', found[1]
  if plain.startswith('focus_') and plain.removeprefix('focus_') in _KNOWN_UNITS:
    return _KNOWN_UNITS[plain.removeprefix('focus_')], None
  return name.lower(), None


def _allowed_names(folder: Path, names: list[str]) -> list[str]:
  """Names that a sidecar may list; frames may also be pages of a file."""
  files = [path for path in file_paths.entries(folder) if path.is_file()]
  known = set(names)
  return [*names, *(path.name for path in files if printable(path.name) not in known)]


def _parse_csv(source: str, text: str) -> tuple[Fields, list[Fields]]:
  """Fields of the whole stack, and fields of each file."""
  separator, table = _read_table(source, text)
  header, rows = _trimmed(table)
  if any(is_image(Path(cell)) for cell in header):
    raise InputError(f'{source}: begins with {_shown(separator.join(header))}, expected a header with column names')
  columns, units = map(list, zip(*map(_column, header), strict=True)) if header else ([], [])
  # Distances without a unit in the header need one in each cell.
  columns = [
    'focus_distance_m' if column in _WITHOUT_UNIT and all(_has_unit(row[n]) for row in rows) else column
    for n, column in enumerate(columns)
  ]
  _check_fields(source, columns, _COLUMNS)
  if 'file' not in columns or len(set(columns)) < len(columns):
    raise InputError(f"{source}: columns are {_shown(columns)}, expected 'file' and other columns, each once")
  if not rows:
    raise InputError(f'{source}: found only a header, expected a row for every image')
  if separator == ',':
    _check_commas(source, columns, rows)
  stack, entries = {}, []
  for row in rows:
    if len(row) != len(columns):
      hint = ' (with decimal commas, separate cells by semicolons)' if separator == ',' else ''
      raise InputError(
        f'{source}: {len(row)} cells in the row {_shown(separator.join(row))}, expected {len(columns)}{hint}'
      )
    entry = {
      column: f'{cell} {unit}' if cell and unit else cell or None
      for column, unit, cell in zip(columns, units, row, strict=True)
    }
    for field in (*_STACK_FIELDS, _UNIT):
      value = entry.pop(field, None)
      if value is not None and stack.setdefault(field, value) != value:
        raise InputError(f'{source}: {field} is {stack[field]} and {value}, expected one value for the whole stack')
    entries.append(entry)
  return stack, entries


def _read_table(source: str, text: str) -> tuple[str, list[list[str]]]:
  """The separator of a CSV file, and its rows without comments and empty ones."""
  text = re.sub(r'\r\n?', '\n', text)
  declared = re.match(r'sep=(.)\n', text)  # for spreadsheets
  text = text[declared.end() :] if declared else text
  text = re.sub(r'\A(\s*#.*\n)+', '', text)  # comments before the header
  header = text.lstrip().partition('\n')[0]
  separator = declared[1] if declared else max(',;\t', key=header.count)
  try:
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    rows = [[_QUOTED.sub(r'\2', cell.strip()) for cell in row] for row in reader]
  except csv.Error as error:
    raise InputError(f'{source}: cannot be read as CSV ({one_line(error)})') from error
  return separator, [row for row in rows if any(row) and not (row[0].startswith('#') and not is_image(Path(row[0])))]


def _trimmed(table: list[list[str]]) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table without what spreadsheets and programs add: empty columns at the end, and row numbers.
  Rows are as long as the header, or longer if there is something in the cells beyond it.
  """
  header, *rows = table or [[]]
  # Spreadsheets leave out empty cells at the end of a row, or write more of them than there are columns.
  rows = [row if any(row[len(header) :]) else row[: len(header)] + [''] * (len(header) - len(row)) for row in rows]
  while header and not header[-1] and not any(row[-1] for row in rows):
    header, rows = header[:-1], [row[:-1] for row in rows]
  if header[:1] == [''] and all(row[0] in ('', str(n), str(n + 1)) for n, row in enumerate(rows)):
    header, rows = header[1:], [row[1:] for row in rows]
  return header, rows


def _has_unit(cell: str) -> bool:
  return not cell or split_unit(cell)[1] in METRES or plain_number(cell) == 'inf'


def _check_commas(source: str, columns: list[str], rows: list[list[str]]) -> None:
  """Raises InputError if the commas in a column of numbers may be decimal, or between thousands."""
  for column, cells in zip(columns, zip(*rows, strict=False), strict=False):
    commas = [cell for cell in cells if ',' in cell and column != 'file']
    if commas and all(_THOUSANDS.fullmatch(cell) for cell in commas):
      raise InputError(f"{source}: {column} is '{commas[0]}', expected numbers without commas between thousands")


def _parse_json(source: str, text: str) -> tuple[Fields, list[Fields]]:
  """Fields of the whole stack, and fields of each file."""
  try:
    document = json.loads(text)
  except (json.JSONDecodeError, RecursionError) as error:
    raise InputError(f'{source}: cannot be read as JSON ({one_line(error)})') from error
  if isinstance(document, list) and document:
    document = {'frames': document}
  if not isinstance(document, dict):
    raise InputError(f'{source}: is {_shown(document)}, expected an object')
  _check_fields(source, document, ('frames', *_STACK_FIELDS, _UNIT))
  entries = document.pop('frames', [])
  if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
    raise InputError(f'{source}: frames is {_shown(entries)}, expected a list of objects')
  known = ('file', *_FRAME_FIELDS)
  entries = [dict(_with_unit(name, value, known) for name, value in entry.items()) for entry in entries]
  for entry in entries:
    _check_fields(source, entry, known)
  return {field: value for field, value in document.items() if value is not None}, entries


def _with_unit(name: str, value: Any, known: tuple[str, ...]) -> tuple[str, Any]:
  """The field that a name stands for if it is one of `known`, and its value with the unit in the name."""
  field, unit = _column(name)
  if field not in known:
    return name, value
  return field, value if unit is None or value is None else f'{value} {unit}'


def _check_fields(source: str, fields: Any, known: tuple[str, ...]) -> None:
  if unknown := [field for field in fields if field not in known]:
    raise InputError(f'{source}: field {unknown[0]!r} is unknown, expected {", ".join(known)}')


def _by_file(source: str, entries: list[Fields], there: list[str]) -> dict[str, Fields]:
  """Entries by the names of the files in `there` that they refer to."""
  alike: dict[str, list[str]] = {}
  for name in there:
    alike.setdefault(comparable(name), []).append(name)
  by_stem: dict[str, list[str]] = {}
  for name in there:
    if is_image(Path(name)):
      by_stem.setdefault(comparable(Path(name).stem), []).append(name)
  frames, absent, known = {}, [], set(there)
  for number, entry in enumerate(entries, 1):
    name = entry.pop('file', None)
    if not isinstance(name, str):
      raise InputError(f'{source}: file of entry {number} is {_shown(name)}, expected the name of an image')
    # Programs write full paths, which may be outdated, or names without suffix.
    last = re.split(r'[\\/]', name.strip())[-1]
    meant = [name] if name in known else alike.get(comparable(name)) or alike.get(comparable(last))
    meant = meant or by_stem.get(comparable(last), [])
    if len(meant) != 1:
      absent.append(name)
      continue
    if meant[0] in frames:
      raise InputError(f'{source}: {printable(name)} is listed twice, expected every file once')
    frames[meant[0]] = entry
  if absent:
    raise InputError(f'{source}: found no file {format_list(absent)}, expected names of files in its folder')
  return frames


def _number(source: str, what: str, value: Any, field: str) -> float:
  """A number, also as text such as 'inf' or '50 cm', in the unit of the field."""
  text, test = (_FRAME_FIELDS | _STACK_FIELDS)[field]
  shown, factor = value, 1.0
  try:
    if isinstance(value, str):
      value, unit = split_unit(value.removeprefix('f/'))  # of an f-number
      factor = 1.0 if unit is None else _UNITS.get(field, {}).get(unit, np.nan)
      value = plain_number(value)
    number = np.nan if isinstance(value, bool) else float(value) * factor + 0.0  # no negative zero
  except (TypeError, ValueError, OverflowError):
    number = np.nan
  if not test(number):
    raise InputError(f'{source}: {what} is {_shown(shown)}, expected {text}')
  return number


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 40 else f'{text[:37]}...'
