"""Focus that names of files tell, with its unit: focus_0.5m.jpg, focus_inf.jpg, z=-1.5mm.png, stack_010um.tif."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from focal_jax.data.names import INFINITY_WORD, comparable
from focal_jax.data.texts import plain_number

# Of distances, by their words, in metres; and of positions along the axis, as they are called.
_METRES = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}
_POSITIONS = {'mm': 'mm', 'um': 'um', 'µm': 'um', 'μm': 'um', 'nm': 'nm'}
_OF_DISTANCES = re.compile('focus|foc|dist')
_NUMBER = re.compile(
  rf'(?<![\d.,])((?:(?<![^\W_])[-+\u2212])?\d+(?:[.,]\d+)?|{INFINITY_WORD})'
  r' ?(dpt|nm|[uµμ]m|mm|cm|m)?(?![^\W_])'
)

# With a point or comma that is none of a date or a time.
_DECIMAL = re.compile(r'(?<![\d.,])\d+[.,]\d+(?![.,]?[\d])(?![^\W_])')


def focus_of_names(names: Sequence[str]) -> tuple[Float64[np.ndarray, 'N'], str] | None:
  """Focus of each file, and 'm', 'dpt', or the unit of positions along the axis; None: the names do not tell.

  They do if in each one number is followed by the same unit, and no other such number differs. In metres and the like
  it is a distance only where the name says so: z=5mm is a position.
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


def unitless_numbers(names: Sequence[str]) -> tuple[float, float] | None:
  """The least and greatest of the numbers in the names that may be a focus, but say no unit: one with a decimal point
  in each, all different. None: there are no such.
  """
  rows = [_DECIMAL.findall(comparable(Path(name).stem)) for name in names]
  if {len(row) for row in rows} != {1}:
    return None
  values = [float(plain_number(number)) for (number,) in rows]
  return (min(values), max(values)) if len(set(values)) == len(values) else None
