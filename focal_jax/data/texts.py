"""Reads text files written by people and spreadsheets."""

import codecs
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
