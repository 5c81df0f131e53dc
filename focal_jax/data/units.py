"""Numbers and units as people write them."""

import re

# Metres per unit of length.
METRES = {
  **dict.fromkeys(('m', 'metre', 'metres', 'meter', 'meters'), 1.0),
  'cm': 1e-2,
  'mm': 1e-3,
  **dict.fromkeys(('in', 'inch', 'inches'), 0.0254),
  **dict.fromkeys(('ft', 'foot', 'feet'), 0.3048),
}
DIOPTRES = ('dpt', 'd', 'dioptre', 'dioptres', 'diopter', 'diopters', '1/m', 'm-1', 'm^-1')
MICROMETRES = ('um', 'micron', 'microns', 'micrometre', 'micrometres', 'micrometer', 'micrometers')
# Regular expressions for text in lower case: words for infinity, and the units of distances and positions that may
# follow the numbers in file names after a space.
INFINITY = r'(?:inf(?:init[ye]|ty)?|∞)'
UNIT_IN_NAME = r'(?:dpt|diopt(?:re|er)s?|nm|[uµμ]m|microns?|mm|cm|m|met(?:re|er)s?)'
_WITH_UNIT = re.compile(
  rf'([-+]?\d[\d.,]*(?:e[-+]?\d+)?|[-+]?(?:{INFINITY}\b|∞))\s*([^\W\d_]+|1/m|m\^?-1)', re.IGNORECASE
)


def plain_number(text: str) -> str:
  """A number in the form that `float` accepts: decimal commas become points, the typographic minus a hyphen, and words
  for infinity 'inf'. Other text is unchanged.
  """
  if re.fullmatch(rf'\s*\+?{INFINITY}\.?\s*', text, re.IGNORECASE):
    return 'inf'
  text = text.replace('\u2212', '-')
  return text.replace(',', '.') if re.fullmatch(r'\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*', text) else text


def split_unit(text: str) -> tuple[str, str | None]:
  """A number, and the unit that follows it in lower case, with u for micro; None: there is none."""
  found = _WITH_UNIT.fullmatch(text.replace('\u2212', '-').strip())
  return (found[1], micro(found[2]).lower()) if found else (text, None)


def micro(unit: str) -> str:
  """A unit with the letter u for both characters that mean micro."""
  return re.sub('[\u00b5\u03bc]', 'u', unit)
