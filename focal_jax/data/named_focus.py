"""Focus from file names with a unit: focus_0.5m.jpg, focus_inf.jpg, z=-1.5mm.png, stack_010um.tif."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax.data.names import BEFORE_SEPARATOR, INFINITY_WORD, comparable, signs_follow_letters, varying_columns
from focal_jax.data.units import METRES, UNIT_IN_NAME, plain_number, usual_unit

# Units of positions along the axis in micrometres.
_MICROMETRES = {'mm': 1e3, 'um': 1.0, 'nm': 1e-3}
_OF_DISTANCES = re.compile('focus|foc|dist')
# Numbers and their units, by whether signs follow letters.
_NUMBER = {
  follow_letters: re.compile(
    rf'(?<![\d.,])((?:(?<!{before})[-+\u2212])?\d+(?:[.,]\d+)?|{INFINITY_WORD})'
    rf'(?: ?({UNIT_IN_NAME})|(in|inch|inches|ft|feet|d))?(?![^\W_])'
  )
  for follow_letters, before in BEFORE_SEPARATOR.items()
}
# Also dates and versions: three or more numbers separated by points or commas.
_TIME = re.compile(r'\d+(?:[.,]\d+){2,}')


def focus_of_names(names: Sequence[str]) -> tuple[Float64[np.ndarray, 'N'], str] | None:
  """Focus of each file, and 'm', 'dpt', or the unit of positions along the axis; None: the names have no focus.

  They have one if each contains a number followed by a unit, and no other such number varies. Lengths are distances
  only if the name says so; z=5mm is a position. Units of length may differ: focus_1m, focus_80cm.
  """
  stems = [comparable(Path(name).stem) for name in names]
  pattern = _NUMBER[signs_follow_letters(stems)]
  rows = [
    [(number, unit) for number, unit in _numbers(pattern, stem) if unit or _is_infinite(number)] for stem in stems
  ]
  varying = varying_columns(rows)
  if len(varying) != 1:
    return None
  numbers = np.array([float(plain_number(number)) + 0.0 for number, _ in varying[0]])  # no negative zero
  units = [unit for _, unit in varying[0]]
  used = {unit for unit in units if unit}
  say_so = all(_OF_DISTANCES.search(stem) for stem in stems)
  if used == {'dpt'} or (used == {'d'} and say_so):
    values, unit = numbers, 'dpt'
    is_focus = np.isfinite(values).all() and values.min() >= 0
  elif used and used <= set(METRES) and say_so:
    values, unit = numbers * [METRES.get(one, 1.0) for one in units], 'm'
    is_focus = values.min() > 0
  elif used and used <= set(_MICROMETRES):
    unit = 'um' if len(used) > 1 else used.pop()
    values = numbers * [_MICROMETRES.get(one, 1.0) / _MICROMETRES[unit] for one in units]
    is_focus = np.isfinite(values).all()
  else:
    return None
  return (values, unit) if is_focus and len(set(values.tolist())) == len(values) else None


def _numbers(pattern: re.Pattern[str], stem: str) -> list[tuple[str, str]]:
  """The numbers in a comparable name and their units, '' for none. A single d may be more than dioptres."""
  return [(number, usual_unit(unit) if unit else short) for number, unit, short in pattern.findall(stem)]


def _is_infinite(number: str) -> bool:
  return number.startswith(('inf', '∞'))


def unused_numbers(names: Sequence[str]) -> tuple[str, str] | None:
  """The smallest and largest of the numbers in the names that may be focus distances, as written; None: there are none.

  Each name must have exactly one number with a decimal point or a unit of length, or a word for infinity, and all must
  differ.
  """
  found = []
  for name in names:
    row = [
      (number, unit)
      for number, unit in _numbers(_NUMBER[False], _TIME.sub('', comparable(Path(name).stem)))
      if unit in METRES or re.search('[.,]', number) or _is_infinite(number)
    ]
    if len(row) != 1:
      return None
    found.append(row[0])
  units = {unit for number, unit in found if not _is_infinite(number)}
  values = [float(plain_number(number)) for number, _ in found]
  if len(units) != 1 or len(set(values)) < len(values):
    return None
  least, greatest = (''.join(found[values.index(limit(values))]) for limit in (min, max))
  return least, greatest
