"""Focus from file names with a unit: focus_0.5m.jpg, focus_inf.jpg, z=-1.5mm.png, stack_010um.tif."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax.data.names import INFINITY_WORD, comparable
from focal_jax.data.texts import plain_number

# Units of distances in metres, and of positions along the axis.
_METRES = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}
_POSITIONS = {'mm': 'mm', 'um': 'um', 'µm': 'um', 'μm': 'um', 'nm': 'nm'}
_OF_DISTANCES = re.compile('focus|foc|dist')
_NUMBER = re.compile(
  rf'(?<![\d.,])((?:(?<![^\W_])[-+\u2212])?\d+(?:[.,]\d+)?|{INFINITY_WORD})'
  r' ?(dpt|nm|[uµμ]m|mm|cm|m)?(?![^\W_])'
)

# Also dates and versions: three or more numbers separated by points or commas.
_TIME = re.compile(r'\d+(?:[.,]\d+){2,}')


def focus_of_names(names: Sequence[str]) -> tuple[Float64[np.ndarray, 'N'], str] | None:
  """Focus of each file, and 'm', 'dpt', or the unit of positions along the axis; None: the names have no focus.

  They have one if each contains a number followed by the same unit, and no other such number varies. Lengths are
  distances only if the name says so; z=5mm is a position.
  """
  stems = [comparable(Path(name).stem) for name in names]
  rows = [[(number, unit) for number, unit in _NUMBER.findall(stem) if unit or _is_infinite(number)] for stem in stems]
  if len({len(row) for row in rows}) != 1:
    return None
  varying = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
  if len(varying) != 1:
    return None
  units = {unit for _, unit in varying[0] if unit}
  values = np.array([float(plain_number('inf' if _is_infinite(number) else number)) for number, _ in varying[0]])
  if len(units) != 1 or len(set(values.tolist())) < len(values):
    return None
  (unit,) = units
  if unit == 'dpt':
    return (values, unit) if np.isfinite(values).all() and values.min() >= 0 else None
  if unit in _METRES and all(_OF_DISTANCES.search(stem) for stem in stems):
    return (values * _METRES[unit], 'm') if values.min() > 0 else None
  return (values, _POSITIONS[unit]) if unit in _POSITIONS and np.isfinite(values).all() else None


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
      for number, unit in _NUMBER.findall(_TIME.sub('', comparable(Path(name).stem)))
      if unit in _METRES or re.search('[.,]', number) or _is_infinite(number)
    ]
    if len(row) != 1:
      return None
    found.append(row[0])
  units = {unit for number, unit in found if not _is_infinite(number)}
  values = [float(plain_number('inf' if _is_infinite(number) else number)) for number, _ in found]
  if len(units) != 1 or len(set(values)) < len(values):
    return None
  least, greatest = (''.join(found[values.index(limit(values))]) for limit in (min, max))
  return least, greatest
