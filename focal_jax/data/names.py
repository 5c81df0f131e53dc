"""File names: printing, comparing and sorting."""

import os
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

# A minus is a sign at the start or after a separator. After a letter it depends on the other names (`natural_order`),
# and after a digit it is a separator, as in dates. A single point or comma between digits is decimal, except in dates
# and times such as 12.30.59.
_UNSIGNED = r'(?<![\d.,])\d+[.,]\d+(?![.,]?\d)|\d+'
INFINITY_WORD = r'(?<![^\W\d_])(?:inf(?:init[ye])?|∞)'
# A frame focused at infinity, perhaps with a unit of length: counts as a number.
_INFINITE = rf'{INFINITY_WORD}(?=(?:mm|cm|m)?(?![^\W_]))'
_SIGNED = {
  False: re.compile(rf'((?:(?<![^\W_])[-+\u2212](?=\d))?(?:{_UNSIGNED})|{_INFINITE})'),
  True: re.compile(rf'((?:(?<!\d)[-+\u2212](?=\d))?(?:{_UNSIGNED})|{_INFINITE})'),
}


def printable(name: str | os.PathLike[str]) -> str:
  """The name as printable text in one line. Bytes that are not UTF-8 are decoded as Latin-1, which old cameras and
  archives use.
  """
  text = os.fspath(name)
  try:
    text.encode()
  except UnicodeEncodeError:
    text = os.fsencode(text).decode('latin-1')
  return re.sub(r'[\x00-\x1f\x7f-\x9f]', '\N{REPLACEMENT CHARACTER}', text)


def comparable(name: str) -> str:
  """Key that is equal for names that look alike: composed (NFC) or decomposed (NFD) letters, any case."""
  return unicodedata.normalize('NFC', unicodedata.normalize('NFC', printable(name)).casefold())


def natural_order(paths: Iterable[Path]) -> list[Path]:
  """Sorted by name, numbers as numbers: 2 before 10, 0.5 before 10.25, -5 before 0."""
  paths = list(paths)
  keys = dict(zip(paths, natural_keys([path.stem for path in paths]), strict=True))
  return sorted(paths, key=lambda path: (keys[path], path.name))


def natural_keys(stems: list[str]) -> list[list[str | Decimal]]:
  """Sort key of each name, given the others: z-5 is minus 5 next to z0, but IMG-5 is number 5 next to IMG-6."""
  stems = [comparable(stem) for stem in stems]
  pattern = _SIGNED[signs_follow_letters(stems)]
  return [_split(stem, pattern) for stem in stems]


def signs_follow_letters(stems: list[str]) -> bool:
  """Whether a plus or minus between a letter and a number is its sign, which it is if only some names have it."""

  def templates(signed: bool) -> set[str]:
    return {_SIGNED[signed].sub('#', stem) for stem in stems}

  return len(templates(True)) < len(templates(False))


def _split(stem: str, pattern: re.Pattern[str]) -> list[str | Decimal]:
  # The split gives text at even indices and numbers at odd ones, so text is never compared with a number.
  return [_number(part) if n % 2 else part for n, part in enumerate(pattern.split(stem))]


def infinity_as_digit(stem: str) -> str:
  """A comparable name in which a word for infinity that counts as a number is replaced by 9."""
  return re.sub(_INFINITE, '9', stem)


def _number(text: str) -> Decimal:
  if re.fullmatch(_INFINITE, text):
    return Decimal('Infinity')
  return Decimal(text.replace(',', '.').replace('\u2212', '-'))


def format_list(names: list[str], limit: int = 4) -> str:
  """Names for a message: all of them if few, otherwise the first ones and the number of others."""
  names = [printable(name) for name in names]
  if len(names) <= limit:
    return ', '.join(names)
  return f'{", ".join(names[: limit - 1])} and {len(names) - limit + 1} others'
