"""Reads `metadata.csv` or `metadata.json` next to the images: metadata of a stack from a person or a capture program.

It names files and gives, for all of them or none, one of `focus_distance_m` (above 0, or inf), `focus_dpt` (dioptres, 0
at infinity) and `focus`, in `focus_unit`. The units `m` and `dpt` stand for the former two. With any other unit,
`focus` is a position along the axis, for example of a microscope stage, and may be 0 or negative. `focus_unit` without
`focus` is the unit of `focus_distance.txt`.

The other fields apply to the whole stack, and are all optional: `focal_length_m` or `focal_length_mm`; `f_number`;
`sensor_width_mm`, the longer side of the sensor, which corresponds to the longer side of the frames; `focal_length_px`,
`principal_point_x_px` and `principal_point_y_px`, in pixels of the upright frames as stored in the files, pixel centres
at integers. Other fields are ignored, with a note. It is an error if no field is known, or if none gives the focus but
an unknown one may be meant to, because it may be misspelt.

    file,focus_distance_m,focal_length_mm
    IMG_1.jpg,inf,4.3
    IMG_2.jpg,0.5,

    {"focal_length_mm": 4.3, "frames": [{"file": "IMG_1.jpg", "focus_dpt": 0}, {"file": "IMG_2.jpg", "focus_dpt": 2}]}

In a CSV file, fields of the whole stack are in one row, or equal in several. Files saved by spreadsheets are accepted:
cells separated by commas, semicolons or tabs, decimal commas, UTF-8 or UTF-16. File names are compared ignoring case
and the composition of accents, unless files differ only in these; leading folders are ignored, and the suffix may be
omitted. Files that are not there may be listed too. Column names may have spaces and capitals, units in brackets, and
common other names (`data.columns`): Focus distance (m), Z [um]. Distances may be in other units of length, and focus in
any, as in Focus distance (cm) and Focus (um); units may also follow the numbers, or be in a row below the header. There
may be comment lines (#), and an unnamed column that numbers the rows.

A file of this name that has none of the fields and names no image is from another program; it is not read, with a note.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from focal_jax.data import paths as file_paths
from focal_jax.data.columns import (
  FIELDS,
  FILE,
  FRAME_FIELDS,
  MAX_LISTED,
  STACK_FIELDS,
  UNIT,
  Column,
  check_known,
  chosen_columns,
  column_of,
  known_unit,
)
from focal_jax.data.formats import is_image
from focal_jax.data.names import comparable, format_list, printable
from focal_jax.data.tables import read_csv
from focal_jax.data.texts import read_text
from focal_jax.data.units import DIOPTRES, METRES, plain_number, split_unit, usual_unit
from focal_jax.errors import InputError, one_line

SIDECAR_FILES = ('metadata.csv', 'metadata.json')

# Fields that exclude each other, and fields that must be given together.
_ONE_OF = (tuple(FRAME_FIELDS), ('focal_length_m', 'focal_length_mm'))
_TOGETHER = ('principal_point_x_px', 'principal_point_y_px')
# Factors to the unit of a field, by the unit that follows a number.
_MILLIMETRES = {unit: 1e3 * metres for unit, metres in METRES.items()}
_UNITS = {
  **dict.fromkeys(('focus_distance_m', 'focal_length_m'), METRES),
  **dict.fromkeys(('focal_length_mm', 'sensor_width_mm'), _MILLIMETRES),
  'focus_dpt': dict.fromkeys(DIOPTRES, 1.0),
}
_THOUSANDS = {
  ',': re.compile(r'[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?'),
  '.': re.compile(r'[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?'),
}

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Sidecar:
  """Content of a sidecar; None: not given.

  Attributes:
    path: the file.
    files: names of the files in its folder that it lists.
    focus_dpt: of each frame, 1/m.
    positions: of each frame along the axis, in `focus_unit`.
    focus_unit: its usual name; never metres or dioptres together with `positions`.
    focal_length_mm: of the lens.
    f_number: of the lens.
    sensor_width_mm: the longer side of the sensor.
    focal_length_px: in pixels of the upright frames in the files.
    principal_point_px: x and y in the same frames, pixel centres at integers.
    notes: notes for the user: what was ignored.
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
  notes: tuple[str, ...] = ()


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
    return Sidecar(notes=(note,))
  source = printable(path)
  stack, entries, unused = (_parse_csv if path.suffix.lower() == '.csv' else _parse_json)(source, text)
  frames, absent = _by_file(source, entries, _allowed_names(folder, names))
  if absent and not frames.keys() >= set(names):  # they may be misspelt
    raise InputError(f'{source}: found no file {format_list(absent)}, expected names of files in its folder')
  notes = [f'Ignored in {path.name}: {format_list(unused, MAX_LISTED)}.'] if unused else []
  if absent:
    notes.append(
      f'{path.name} also lists {format_list(absent)}, which {"is" if len(absent) == 1 else "are"} not there.'
    )

  present = stack.keys() | {field for frame in frames.values() for field in frame}
  for fields in _ONE_OF:
    if len(both := [field for field in fields if field in present]) > 1:
      raise InputError(f'{source}: both {both[0]} and {both[1]}, expected one of them')
  if len(present.intersection(_TOGETHER)) == 1:
    raise InputError(f'{source}: one of {" and ".join(_TOGETHER)}, expected both or neither')

  values = {}
  if (unit := stack.pop(UNIT, None)) is not None:
    if not isinstance(unit, str) or not unit.strip():
      raise InputError(f"{source}: {UNIT} is {_shown(unit)}, expected the name of a unit such as 'um'")
    values['focus_unit'] = unit = usual_unit(unit)
  for field in present.intersection(FRAME_FIELDS):  # one at most
    values |= _focus(source, field, unit, {name: frames.get(name, {}) for name in names})
  values |= {field: _number(source, field, value, field) for field, value in stack.items()}
  if 'focal_length_m' in values:
    values['focal_length_mm'] = values.pop('focal_length_m') * 1e3
  if _TOGETHER[0] in values:
    values['principal_point_px'] = tuple(values.pop(field) for field in _TOGETHER)
  return Sidecar(path, frozenset(frames), **values, notes=tuple(notes))


def _focus(source: str, field: str, unit: str | None, frames: dict[str, Fields]) -> Fields:
  """Attributes of `Sidecar` from the field that gives the focus of every frame."""
  meaning = field
  if field == 'focus':
    unit = _take_units(source, [frame for frame in frames.values() if field in frame], unit)
    meaning = known_unit(unit) or field
  elif unit is not None and known_unit(unit) != field:
    raise InputError(f"{source}: {UNIT} is {_shown(unit)} with {field}, expected it only with 'focus'")
  if without := [name for name, frame in frames.items() if frame.get(field) is None]:
    raise InputError(f'{source}: no {field} for {format_list(without)}, expected one for every image')
  numbers = np.array([_number(source, f'{field} of {name}', frame[field], meaning) for name, frame in frames.items()])
  if meaning == 'focus':
    return {'positions': numbers, 'focus_unit': unit}
  return {'focus_dpt': 1.0 / numbers if meaning == 'focus_distance_m' else numbers, 'focus_unit': unit}


def _take_units(source: str, entries: list[Fields], unit: str | None) -> str | None:
  """Removes the unit that follows the numbers in `focus`; returns it, or `unit` if there is none."""
  found = {}
  for entry in entries:
    if isinstance(entry['focus'], str):
      entry['focus'], its = split_unit(entry['focus'])
      if its:
        found[its] = entry['focus']
  if len(found) > 1 or (found and unit and usual_unit(unit) not in found):
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
  known, meant = ('frames', *FIELDS), FIELDS if path.suffix.lower() == '.csv' else (*STACK_FIELDS, UNIT)
  likely = [field for field in fields if any(map(str.isalpha, field))]
  if len(likely) < 2 or any(
    column_of(word).field in meant or difflib.get_close_matches(word, known, cutoff=0.8)
    for field in likely
    for word in (field, *re.split(r'[\s|]+', field))
  ):
    return []
  return likely


def _allowed_names(folder: Path, names: list[str]) -> list[str]:
  """Names that a sidecar may list; frames may also be pages of a file."""
  files = [path for path in file_paths.entries(folder) if path.is_file()]
  known = set(names)
  return [*names, *(path.name for path in files if printable(path.name) not in known)]


def _parse_csv(source: str, text: str) -> tuple[Fields, list[Fields], list[str]]:
  """Fields of the whole stack, fields of each file, and the columns that are not used."""
  separator, header, rows = read_csv(source, text)
  if any(is_image(Path(cell)) for cell in header):
    raise InputError(f'{source}: begins with {_shown(separator.join(header))}, expected a header with column names')
  columns = [column_of(name) for name in header]
  if FILE not in [column.field for column in columns]:
    lists_files = [bool(rows) and all(not row[n] or is_image(Path(row[n])) for row in rows) for n in range(len(header))]
    if lists_files.count(True) != 1:
      raise InputError(
        f"{source}: columns are {format_list(header, MAX_LISTED) or 'missing'}, expected 'file' and other columns"
      )
    columns[lists_files.index(True)] = Column(FILE)  # whatever its name, perhaps in another language
  stack, entries, unused = _fields_of_rows(source, header, columns, rows)
  known = [column.field for name, column in zip(header, columns, strict=True) if column.field and name not in unused]
  check_known(source, 'columns', header, known, unused)
  if not rows:
    raise InputError(f'{source}: found only a header, expected a row for every image')
  _check_thousands(source, separator, header, columns, rows)
  for row in rows:
    # Comments may have commas.
    is_comment = len(row) > len(header) and header[-1] in unused and any(map(str.isalpha, row[len(header) - 1]))
    if len(row) != len(header) and not is_comment:
      hint = ' (with decimal commas, separate cells by semicolons)' if separator == ',' else ''
      raise InputError(
        f'{source}: {len(row)} cells in the row {_shown(separator.join(row))}, expected {len(header)}{hint}'
      )
  return stack, entries, unused


def _parse_json(source: str, text: str) -> tuple[Fields, list[Fields], list[str]]:
  """Fields of the whole stack, fields of each file, and the fields that are not used."""
  try:
    document = json.loads(text)
  except (json.JSONDecodeError, RecursionError) as error:
    raise InputError(f'{source}: cannot be read as JSON ({one_line(error)})') from error
  if isinstance(document, list) and document:
    document = {'frames': document}
  if not isinstance(document, dict):
    raise InputError(f'{source}: is {_shown(document)}, expected an object')
  if document and all(is_image(Path(name)) and isinstance(fields, dict) for name, fields in document.items()):
    document = {'frames': [{FILE: name, **fields} for name, fields in document.items()]}
  frames = document.pop('frames', [])
  if not (isinstance(frames, list) and all(isinstance(frame, dict) for frame in frames)):
    raise InputError(f'{source}: frames is {_shown(frames)}, expected a list of objects')
  names = list(dict.fromkeys(name for frame in frames for name in frame))
  rows = [[frame.get(name) for name in names] for frame in frames]
  stack, entries, unused = _fields_of_rows(source, names, list(map(column_of, names)), rows)
  columns = [Column() if column_of(name).field in (FILE, *FRAME_FIELDS) else column_of(name) for name in document]
  for_all, _, others = _fields_of_rows(source, list(document), columns, [list(document.values())])
  if others and not for_all and not frames:
    fields = format_list(list(document), MAX_LISTED)
    raise InputError(f'{source}: fields are {fields}, expected frames, {", ".join(STACK_FIELDS)} or {UNIT}')
  unused = [*others, *unused]
  known = [*for_all, *stack, *dict.fromkeys(field for entry in entries for field in entry)]
  check_known(source, 'fields', [*document, *names], known, unused)
  return stack | for_all, entries, unused


def _fields_of_rows(
  source: str, names: Sequence[str], columns: Sequence[Column], rows: Sequence[Sequence[Any]]
) -> tuple[Fields, list[Fields], list[str]]:
  """Fields of the whole stack, fields of each row, and names of the columns that are not used."""
  columns = [
    Column() if column.needs_unit and not all(_has_unit(row[n]) for row in rows) else column
    for n, column in enumerate(columns)
  ]
  columns = chosen_columns(source, names, columns)
  unused = [name for name, column in zip(names, columns, strict=True) if name and not column.field]
  stack, entries = {}, [{} for _ in rows]
  for n, (field, unit) in enumerate((column.field, column.unit) for column in columns):
    values = [None if row[n] in ('', None) else _in_unit(row[n], unit) for row in rows]
    if field in (FILE, *FRAME_FIELDS):
      for entry, value in zip(entries, values, strict=True):
        entry[field] = value
    elif field:
      for value in values:
        if value is not None and stack.setdefault(field, value) != value:
          raise InputError(f'{source}: {field} is {stack[field]} and {value}, expected one value for the whole stack')
  return stack, entries, unused


def _in_unit(value: Any, unit: str | None) -> Any:
  """The value with the unit from its column, unless it has one itself."""
  return value if unit is None or split_unit(str(value))[1] else f'{value} {unit}'


def _has_unit(value: Any) -> bool:
  text = str(value)
  return value in ('', None) or split_unit(text)[1] in METRES or plain_number(text) == 'inf'


def _check_thousands(
  source: str, separator: str, names: list[str], columns: list[Column], rows: list[list[str]]
) -> None:
  """Raises InputError if the commas or points in a column of numbers may be between thousands."""
  for name, column, cells in zip(names, columns, zip(*rows, strict=False), strict=False):
    if column.field in (FILE, None):
      continue
    for mark in ',.':
      marked = [cell for cell in cells if mark in cell]
      # Decimals are unlikely in some cells of a column only.
      likely = mark == separator or any(re.fullmatch(r'\d{3}', cell) for cell in cells)
      if marked and likely and all(_THOUSANDS[mark].fullmatch(cell) for cell in marked):
        what = {',': 'commas', '.': 'points'}[mark]
        raise InputError(f"{source}: {name} is '{marked[0]}', expected numbers without {what} between thousands")


def _by_file(source: str, entries: list[Fields], there: list[str]) -> tuple[dict[str, Fields], list[str]]:
  """Entries by the names of the files in `there` that they refer to, and names of files that are not there."""
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
    if frames.get(meant[0], entry) != entry:
      raise InputError(f'{source}: {printable(name)} is listed twice with different values, expected every file once')
    frames[meant[0]] = entry
  return frames, absent


def _number(source: str, what: str, value: Any, field: str) -> float:
  """A number, also as text such as 'inf' or '50 cm', in the unit of the field."""
  text, test = (FRAME_FIELDS | STACK_FIELDS)[field]
  shown, factor = value, 1.0
  try:
    if isinstance(value, str):
      value, unit = split_unit(re.sub(r'^f/?(?=\d)', '', value, flags=re.IGNORECASE))  # of an f-number
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
