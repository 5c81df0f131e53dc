"""Text files as people and spreadsheets write them."""

import codecs
import re
from pathlib import Path

from focal_jax.data.names import shown
from focal_jax.errors import InputError, one_line


def read_text(path: Path) -> str:
  """The text of a file in UTF-8, UTF-16 or, failing that, Windows' Western encoding.

  Raises:
    InputError: the file cannot be read, or is no text.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise InputError(f'{shown(path)}: cannot be read as text ({one_line(error)})') from error
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    encodings = ['utf-16']
  elif len(data) >= 2 and not any(data[1:16:2]):  # of the characters of ASCII every other byte is 0
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
      return text
  raise InputError(f'{shown(path)}: cannot be read as text (neither UTF-8 nor UTF-16)')


def plain_number(text: str) -> str:
  """A number as `float` takes it: with a point for a decimal comma, as much of Europe writes it, with a hyphen for the
  minus of typesetters, and with 'inf' for the sign of infinity; any other text as it is.
  """
  text = text.replace('\u2212', '-').replace('∞', 'inf')
  return text.replace(',', '.') if re.fullmatch(r'\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*', text) else text


def beside(folder: Path, name: str) -> Path:
  """The file of that name in a folder, or the only one that differs from it in case alone."""
  path = folder / name
  if path.exists():
    return path
  try:
    alike = [entry for entry in folder.iterdir() if entry.name.lower() == name]
  except OSError:
    return path
  return alike[0] if len(alike) == 1 else path
