"""Reads text files written by people and spreadsheets."""

import codecs
import re
from pathlib import Path

from focal_jax.data.names import printable
from focal_jax.errors import InputError, one_line


def read_text(path: Path) -> str:
  """The text of a file in UTF-8, UTF-16 or, failing that, Windows-1252.

  Raises:
    InputError: the file cannot be read, or is not text.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise InputError(f'{printable(path)}: cannot be read as text ({error.strerror or one_line(error)})') from error
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    encodings = ['utf-16']
  elif len(data) >= 2 and not any(data[1:16:2]):  # in ASCII text every other byte is 0
    encodings = ['utf-16-le']
  elif len(data) >= 2 and not any(data[0:16:2]):
    encodings = ['utf-16-be']
  else:
    encodings = ['utf-8-sig', 'cp1252', 'latin-1']
  for encoding in encodings:
    try:
      text = data.decode(encoding)
    except UnicodeDecodeError:
      continue
    if '\0' not in text:
      return text.rstrip('\x1a')  # old end mark of Windows
  raise InputError(f'{printable(path)}: cannot be read as text (neither UTF-8 nor UTF-16)')


def plain_number(text: str) -> str:
  """A number in the form that `float` accepts: decimal commas become points, the typographic minus a hyphen, and words
  for infinity 'inf'. Other text is unchanged.
  """
  text = text.replace('\u2212', '-').replace('∞', 'inf')
  if re.fullmatch(r'\s*\+?inf(?:\.|inite|ty)\s*', text.lower()):
    return 'inf'
  return text.replace(',', '.') if re.fullmatch(r'\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*', text) else text


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
_WITH_UNIT = re.compile(
  r'([-+]?\d[\d.,]*(?:e[-+]?\d+)?|[-+]?(?:inf(?:init[ye])?|∞))\s*([^\W\d_]+|1/m|m\^?-1)', re.IGNORECASE
)


def split_unit(text: str) -> tuple[str, str | None]:
  """A number, and the unit that follows it in lower case, with u for micro; None: there is none."""
  found = _WITH_UNIT.fullmatch(text.replace('\u2212', '-').strip())
  if found is None or re.fullmatch(r'\W?inf\w*', text.strip(), re.IGNORECASE):
    return text, None
  return found[1], micro(found[2]).lower()


def micro(unit: str) -> str:
  """A unit with the letter u for both characters that mean micro."""
  return re.sub('[\u00b5\u03bc]', 'u', unit)


def is_there(path: Path) -> bool:
  """Whether there is such a file, or a link to one that is missing, which is an error and not the same as no file."""
  return path.exists() or path.is_symlink()


def find_ignoring_case(folder: Path, name: str) -> Path:
  """The file with this name in a folder, or the only one whose name differs just in case."""
  path = folder / name
  if is_there(path):
    return path
  try:
    alike = [entry for entry in folder.iterdir() if entry.name.lower() == name]
  except OSError:
    return path
  return alike[0] if len(alike) == 1 else path
