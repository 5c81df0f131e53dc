"""Captures the messages of libtiff, which Pillow uses to decompress TIFFs. It can only write them to stderr."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

# 'Fax4Decode: Warning, ...', 'tempfile.tif: ...', which is the name that Pillow gives to every file.
_LINE = re.compile(r'(?:tempfile\.tif|[A-Za-z_]\w*): (?P<warning>Warning, )?(?P<text>.*)')


@contextlib.contextmanager
def messages() -> Iterator[list[str]]:
  """Captures messages of libtiff. The list is filled on exit with the texts of errors, each once. Warnings, for example
  about unknown tags, are dropped. Other output to stderr is passed on.
  """
  found: list[str] = []
  with contextlib.ExitStack() as stack:
    try:
      kept = os.dup(2)
      stack.callback(os.close, kept)
      file = stack.enter_context(tempfile.TemporaryFile())
      os.dup2(file.fileno(), 2)
    except OSError:  # no stderr, or no space for a file: messages are not captured
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
