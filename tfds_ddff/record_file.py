"""Reads the records of an uncompressed ArrayRecord file without intermediate copies.

The library hashes and copies every record several times, which takes 5 to 6 ms for a focal stack of 8 MB; reading it
from the page cache takes less than 1 ms. ArrayRecord files are Riegeli files
(riegeli/doc/riegeli_records_file_format.md in Riegeli's repository). The relevant parts of the format are the
following; all integers are little-endian.

* A file is a stream of chunks, interrupted by a block header of 24 bytes at every multiple of 64 KiB.
* A chunk is a header of 40 bytes and its data. The header contains: hash, size of the data, hash of the data (8 bytes
  each), type and number of records (1 and 7 bytes), decoded size (8 bytes).
* The data of an uncompressed chunk of type 'r': a byte 0, the size of the list of sizes, the list (both in groups of 7
  bits), the records. `stack_builder` writes one record per chunk.

Hashes are not checked.
"""

import os
import struct
import weakref
from pathlib import Path

import numpy as np

BLOCK, BLOCK_HEADER = 1 << 16, 24
PAYLOAD = BLOCK - BLOCK_HEADER
CHUNK_HEADER = struct.Struct('<8xQ8xQQ')  # size of the data, type and number of records, decoded size
ONE_RECORD = ord('r') | 1 << 8
_MAX_BUFFERS = 1000  # per system call; Linux allows 1024


class RecordFile:
  """The first `length` records of a file, for random access from any number of threads.

  Attributes:
    is_readable: whether this system and this file are supported; if not, there are no records, and the library must
      read them.
  """

  def __init__(self, path: Path, length: int):
    self._path, self._descriptor = path, os.open(path, os.O_RDONLY)
    weakref.finalize(self, os.close, self._descriptor)
    self._spans = self._find_records(length) if hasattr(os, 'preadv') else []
    self.is_readable = len(self._spans) == length

  def __getitem__(self, index: int) -> memoryview:
    return self._read(*self._spans[index])

  def _find_records(self, length: int) -> list[tuple[int, int]]:
    """Position in the stream of chunks and size of each record; fewer than `length` if one is not in the expected
    format.
    """
    spans, place = [], CHUNK_HEADER.size  # the first chunk is a signature without data
    while len(spans) < length:
      size, kind, decoded_size = CHUNK_HEADER.unpack(self._read(place, CHUNK_HEADER.size))
      place += CHUNK_HEADER.size
      prefix = size - decoded_size
      if kind != ONE_RECORD or prefix < 3 or self._read(place, 1)[0] != 0:
        return spans
      spans.append((place + prefix, decoded_size))
      place += size
    return spans

  def _read(self, place: int, size: int) -> memoryview:
    """Reads bytes of the stream of chunks; the data between block headers is read directly into place."""
    stream, skipped = memoryview(np.empty(size, np.uint8)), bytearray(BLOCK_HEADER)
    done = 0
    while done < size:
      block, start = divmod(place + done, PAYLOAD)
      offset = block * BLOCK + BLOCK_HEADER + start
      buffers, expected = [], 0
      while done < size and len(buffers) < _MAX_BUFFERS:
        count = min(PAYLOAD - start, size - done)
        buffers += [stream[done : done + count], skipped]
        done, start, expected = done + count, 0, expected + count + BLOCK_HEADER
      buffers.pop()
      if os.preadv(self._descriptor, buffers, offset) != expected - BLOCK_HEADER:
        raise OSError(f'{self._path}: ends before its last record')
    return stream
