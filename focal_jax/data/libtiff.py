"""What libtiff, with which Pillow undoes the compression of TIFFs, writes to the terminal: it knows no other way."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

# 'Fax4Decode: Warning, ...', 'tempfile.tif: ...'; Pillow's name of a file is no other.
_LINE = re.compile(r'(?:tempfile\.tif|[A-Za-z_]\w*): (?P<warning>Warning, )?(?P<text>.*)')


@contextlib.contextmanager
def messages() -> Iterator[list[str]]:
  """Collects what is said meanwhile: a list that is filled at the end with the texts of errors, each once. Warnings, as
  of unknown tags, mean nothing to a user. What others write is passed on.
  """
  found: list[str] = []
  with contextlib.ExitStack() as stack:
    try:
      kept = os.dup(2)
      stack.callback(os.close, kept)
      file = stack.enter_context(tempfile.TemporaryFile())
      os.dup2(file.fileno(), 2)
    except OSError:  # there is no terminal, or no room for a file: then it may write what it likes
      yield found
      return
    try:
      yield found
    finally:
      os.dup2(kept, 2)
      file.seek(0)
      for line in file.read().decode(errors='replace').splitlines():
        if said := _LINE.fullmatch(line):
          if not said['warning'] and said['text'] not in found:
            found.append(said['text'])
        else:
          os.write(2, f'{line}\n'.encode())
