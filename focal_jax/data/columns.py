"""Fields of a sidecar by the names that people and programs give them: columns of a table, or keys of JSON."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence

import numpy as np

from focal_jax.data.names import format_list
from focal_jax.data.units import DIOPTRES, METRES, POSITION_UNITS, micro, usual_unit
from focal_jax.errors import InputError

# Requirements on numbers: in words, and as a test.
Expected = tuple[str, Callable[[float], bool]]
_POSITIVE: Expected = ('a finite number above 0', lambda value: 0 < value < np.inf)
_FINITE: Expected = ('a finite number', lambda value: -np.inf < value < np.inf)
FILE, UNIT = 'file', 'focus_unit'
FRAME_FIELDS: dict[str, Expected] = {
  'focus_distance_m': ('a number above 0, or inf', lambda value: value > 0),
  'focus_dpt': ('a finite number of at least 0', lambda value: 0 <= value < np.inf),
  'focus': _FINITE,
}
STACK_FIELDS: dict[str, Expected] = {
  'focal_length_m': _POSITIVE,
  'focal_length_mm': _POSITIVE,
  'f_number': _POSITIVE,
  'sensor_width_mm': _POSITIVE,
  'focal_length_px': _POSITIVE,
  'principal_point_x_px': _FINITE,
  'principal_point_y_px': _FINITE,
}
FIELDS = (FILE, *FRAME_FIELDS, *STACK_FIELDS, UNIT)
# Field that `focus` stands for, by its unit.
_KNOWN_UNITS = {'m': 'focus_distance_m', 'dpt': 'focus_dpt'}

# Other names of fields, in the form of `_plain`.
_OTHER_NAMES = {
  **dict.fromkeys(('filename', 'file_name', 'image', 'image_file', 'image_name', 'sourcefile', 'source_file'), FILE),
  **dict.fromkeys(('file_path', 'filepath', 'image_path', 'path'), FILE),
  **dict.fromkeys(('fnumber', 'f_stop', 'fstop', 'aperture'), 'f_number'),
  **dict.fromkeys(('focal_length', 'focallength'), 'focal_length_mm'),
  **dict.fromkeys((name for name in DIOPTRES if len(name) > 2 and name.isalpha()), 'focus_dpt'),
}
_UNIT_PART = r'(?:_(?:in_)?(?P<unit>1_m|[^\W_]+))?'
_DISTANCE = re.compile(rf'(?:(?:focus|subject|object)_?)?dist(?:ance)?{_UNIT_PART}')
_FOCUS = re.compile(rf'(?:focus|lens_?position){_UNIT_PART}')
_POSITION = re.compile(rf'(?:(?:(?:focus|stage|z)_?)?pos(?:ition)?(?:_?z)?|(?:stage_?)?z(?:_?stage)?){_UNIT_PART}')
_LIKE_FOCUS = re.compile('foc|dist|diopt')
MAX_LISTED = 12  # maximum number of columns that a message lists
# Ranks of columns that give the focus: exact names, other names, and positions, which microscopes list anyway.
_EXACT, _OTHER, _ALONG_AXIS = range(3)


@dataclasses.dataclass(frozen=True)
class Column:
  """What a name stands for.

  Attributes:
    field: one of `FIELDS`. None: unknown.
    unit: in the name. None: there is none.
    rank: columns of lower rank come first. Only one of several columns is used.
    needs_unit: each value needs a unit, because the name has none.
  """

  field: str | None = None
  unit: str | None = None
  rank: int = _EXACT
  needs_unit: bool = False


def column_of(name: str) -> Column:
  """What the name of a column or key stands for. Case, spaces and brackets do not matter: Focus Distance [mm]."""
  plain = _plain(name)
  if plain in FIELDS:
    return Column(plain)
  if plain in _OTHER_NAMES:
    return Column(_OTHER_NAMES[plain], rank=_OTHER)
  if found := _DISTANCE.fullmatch(plain):
    unit = found['unit']
    if unit is None:
      return Column('focus_distance_m', rank=_OTHER, needs_unit=True)
    return Column('focus_distance_m', unit, _OTHER) if unit in METRES else Column()
  for pattern, rank in ((_FOCUS, _OTHER), (_POSITION, _ALONG_AXIS)):
    if found := pattern.fullmatch(plain):
      return _column_of_focus(found['unit'], rank)
  return Column()


def _column_of_focus(unit: str | None, rank: int) -> Column:
  unit = unit and unit.replace('1_m', '1/m')
  if unit is not None and (known := known_unit(unit)) and rank == _OTHER:
    return Column(known, rank=rank)
  if unit is None or unit in POSITION_UNITS or (unit in METRES and not known_unit(unit)):
    return Column('focus', unit, rank)
  return Column()


def known_unit(unit: str | None) -> str | None:
  """The field that `focus` in a unit means: `focus_distance_m`, `focus_dpt`, or None for positions along the axis."""
  return _KNOWN_UNITS.get(usual_unit(unit)) if unit else None


def _plain(name: str) -> str:
  """Focus Distance [mm], FocusDistance (mm) and focus_distance_mm # by hand are focus_distance_mm."""
  name = re.sub(r'(?<=[a-z])(?=[A-Z][a-z])', '_', micro(name).partition('#')[0])
  return re.sub(r'\W+', '_', name.lower()).strip('_')


def chosen_columns(source: str, names: Sequence[str], columns: Sequence[Column]) -> list[Column]:
  """The columns to use: others, of the same meaning but a higher rank, become unknown.

  Raises:
    InputError: it is not clear which to use.
  """
  least = min((column.rank for column in columns if column.field in FRAME_FIELDS), default=_EXACT)
  taken: dict[str, int] = {}
  for n, column in enumerate(columns):
    if column.field is None or (column.field in FRAME_FIELDS and column.rank > least):
      continue
    other = taken.setdefault(column.field, n)
    if column.rank < columns[other].rank:
      taken[column.field] = n
    elif other != n and column.rank == columns[other].rank and (column.field in FRAME_FIELDS or column.rank == _EXACT):
      raise InputError(f'{source}: {names[other]!r} and {names[n]!r} are both {column.field}, expected each once')
  return [column if n in taken.values() else Column() for n, column in enumerate(columns)]


def check_known(source: str, what: str, names: Sequence[str], known: Sequence[str], unknown: Sequence[str]) -> None:
  """Raises InputError if nothing is known, or if no known field gives the focus and an unknown one may be meant to.

  Args:
    source: the file.
    what: columns or fields.
    names: all of their names.
    known: fields that are known.
    unknown: names that are not.
  """
  if not unknown or set(known).intersection(FRAME_FIELDS):
    return
  meant = [
    name
    for name in unknown
    if _LIKE_FOCUS.search(name.lower()) or difflib.get_close_matches(_plain(name), list(FRAME_FIELDS))
  ]
  if meant or set(known) <= {FILE}:
    advice = (
      f' ({format_list(meant)} may be meant for one: name it with its unit, as in Focus distance [mm])' if meant else ''
    )
    raise InputError(
      f'{source}: {what} are {format_list(list(names), MAX_LISTED)}, expected {", ".join(FRAME_FIELDS)} or another '
      f'known one{advice}'
    )
