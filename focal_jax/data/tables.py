"""Tables in CSV as people, spreadsheets and programs write them."""

import csv
import io
import re
from pathlib import Path

from focal_jax.data.formats import is_image
from focal_jax.data.units import is_unit
from focal_jax.errors import InputError, one_line

_SEPARATORS = ',;\t|'
_QUOTED = re.compile(r'=?(["\'])(.*)\1')  # also the formula that keeps a spreadsheet from changing a cell


def read_csv(source: str, text: str) -> tuple[str, list[str], list[list[str]]]:
  """The separator, the header and the rows of a CSV file.

  Without comments, empty rows and what spreadsheets and programs add: empty columns at the end, and row numbers. A row
  of units below the header is part of it. Rows are as long as the header, or longer if there is something in the cells
  beyond it.

  Args:
    source: the file, for messages.
    text: its content.

  Raises:
    InputError: the text cannot be read as CSV.
  """
  separator, (header, *rows) = _read_rows(source, text)
  # Spreadsheets leave out empty cells at the end of a row, or write more of them than there are columns.
  rows = [row if any(row[len(header) :]) else row[: len(header)] + [''] * (len(header) - len(row)) for row in rows]
  while header and not header[-1] and not any(row[-1] for row in rows):
    header, rows = header[:-1], [row[:-1] for row in rows]
  if header[:1] == [''] and all(row[0] in ('', str(n), str(n + 1)) for n, row in enumerate(rows)):
    header, rows = header[1:], [row[1:] for row in rows]
  if rows and _are_units(rows[0]):
    header = [f'{name} {unit}' if unit else name for name, unit in zip(header, rows[0], strict=True)]
    rows = rows[1:]
  return separator, header, rows


def _are_units(row: list[str]) -> bool:
  """Whether at least one cell is a known unit, and the others may be."""
  others = any(is_image(Path(cell)) or any(map(str.isdigit, cell)) for cell in row)
  return not others and any(is_unit(cell.strip('[()] ')) for cell in row)


def _read_rows(source: str, text: str) -> tuple[str, list[list[str]]]:
  """The separator and the rows, the first of which is the header, perhaps empty; without comments and empty rows."""
  text = re.sub(r'\r\n?', '\n', text)
  declared = re.match(r'sep=(.)\n', text)  # for spreadsheets
  text = text[declared.end() :] if declared else text
  text = re.sub(r'\A(\s*#.*\n)+', '', text)  # comments before the header
  header = text.lstrip().partition('\n')[0]
  separator = declared[1] if declared else max(_SEPARATORS, key=header.count)
  if separator not in header and len(header.split()) > 1:
    separator = ' '
  try:
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    rows = [[_QUOTED.sub(r'\2', cell.strip()) for cell in row] for row in reader]
  except csv.Error as error:
    raise InputError(f'{source}: cannot be read as CSV ({one_line(error)})') from error
  rows = [row for row in rows if any(row) and not (row[0].startswith('#') and not is_image(Path(row[0])))]
  return separator, rows or [[]]
