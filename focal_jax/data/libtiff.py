"""Captures the messages of libtiff, which Pillow uses to decompress TIFFs. It can only write them to stderr."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

# 'Fax4Decode: Warning, ...', 'tempfile.tif: ...', which is the name that Pillow gives to every file;
# and since libtiff 4.7.2 the line of its code between the two.
_NAME = r'(?:tempfile\.tif|tif_\w+\.c:\d+|[A-Za-z_]\w*): '
_LINE = re.compile(rf'{_NAME}(?P<warning>Warning, )?(?:{_NAME})*(?P<text>.*)')
_NEXT_PAGE = 'Error fetching directory'  # after the page that is decoded


@contextlib.contextmanager
def messages() -> Iterator[list[str]]:
  """Captures messages of libtiff. The list is filled on exit with the texts of errors, each once. Warnings, for example
  about unknown tags, and errors about the next page are dropped. Other output to stderr is passed on.
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
          if not (said['warning'] or said['text'].startswith(_NEXT_PAGE) or said['text'] in found):
            found.append(said['text'])
        else:
          os.write(2, f'{line}\n'.encode())
