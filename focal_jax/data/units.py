"""Numbers and units as people write them."""

import re

# Names of units, without the plural.
_OTHER_NAMES = {
  'm': ('metre', 'meter'),
  'cm': ('centimetre', 'centimeter'),
  'mm': ('millimetre', 'millimeter'),
  'um': ('micron', 'micrometre', 'micrometer'),
  'nm': ('nanometre', 'nanometer'),
  'in': ('inch', 'inche'),
  'ft': ('foot', 'feet'),
  'dpt': ('dioptre', 'diopter'),
  'steps': ('step',),
}
_USUAL = {unit: unit for unit in _OTHER_NAMES} | {
  name: unit for unit, others in _OTHER_NAMES.items() for other in others for name in (other, f'{other}s')
}
_USUAL |= dict.fromkeys(('d', '1/m', 'm-1', 'm^-1'), 'dpt')
_METRES = {'m': 1.0, 'cm': 1e-2, 'mm': 1e-3, 'in': 0.0254, 'ft': 0.3048}
# Metres per unit of length, and names of dioptres and of other units of positions.
METRES = {name: _METRES[unit] for name, unit in _USUAL.items() if unit in _METRES}
DIOPTRES = tuple(name for name, unit in _USUAL.items() if unit == 'dpt')
POSITION_UNITS = tuple(name for name, unit in _USUAL.items() if unit in ('um', 'nm', 'steps'))
# Regular expressions for text in lower case: words for infinity, and the units of distances and positions that may
# follow the numbers in file names after a space.
INFINITY = r'(?:inf(?:init[ye]|ty)?|∞)'
UNIT_IN_NAME = r'(?:dpt|nm|[uµμ]m|mm|cm|m|(?:(?:centi|milli|micro|nano)?met(?:re|er)|micron|diopt(?:re|er))s?)'
_WITH_UNIT = re.compile(
  rf'([-+]?\d[\d.,]*(?:e[-+]?\d+)?|[-+]?(?:{INFINITY}\b|∞))\s*([^\W\d_]+|1/m|m\^?-1)', re.IGNORECASE
)


def plain_number(text: str) -> str:
  """A number in the form that `float` accepts: decimal commas become points, the typographic minus a hyphen, fractions
  decimals, and words for infinity and numbers over 0 'inf'. Other text is unchanged.
  """
  if re.fullmatch(rf'\s*\+?{INFINITY}\.?\s*', text, re.IGNORECASE):
    return 'inf'
  if fraction := re.fullmatch(r'\s*(\d+)/(\d+)\s*', text):
    numerator, denominator = int(fraction[1]), int(fraction[2])
    return str(numerator / denominator) if denominator else 'inf' if numerator else 'nan'
  text = text.replace('\u2212', '-')
  return text.replace(',', '.') if re.fullmatch(r'\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*', text) else text


def split_unit(text: str) -> tuple[str, str | None]:
  """A number, and the usual name of the unit that follows it; None: there is none."""
  found = _WITH_UNIT.fullmatch(text.replace('\u2212', '-').strip())
  return (found[1], usual_unit(found[2])) if found else (text, None)


def usual_unit(unit: str) -> str:
  """The usual name of a unit, by any of its names in any case: um for microns. Unknown ones as written, with u for
  micro.
  """
  unit = micro(unit.strip())
  return _USUAL.get(unit.lower(), unit)


def is_unit(word: str) -> bool:
  """Whether a word is a known unit, by any of its names in any case."""
  return micro(word).lower() in _USUAL


def micro(unit: str) -> str:
  """Text with the letter u for both characters that mean micro."""
  return re.sub('[\u00b5\u03bc]', 'u', unit)
