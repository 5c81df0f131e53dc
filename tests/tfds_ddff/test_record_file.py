"""Records as the library reads them: files are written, and read for comparison, by array_record itself."""

from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from tfds_ddff.record_file import PAYLOAD, RecordFile


def write(path: Path, sizes: list[int], options: str = 'group_size:1,uncompressed') -> list[bytes]:
  rng = np.random.default_rng(0)
  records = [rng.bytes(size) for size in sizes]
  writer = ArrayRecordWriter(str(path), options)
  for record in records:
    writer.write(record)
  writer.close()
  return records


@pytest.mark.parametrize(
  'sizes',
  [
    [1],
    [5, 100_000, 1, 300_000, 2**21, 7],
    # Chunks that end just before, at and behind the end of a block.
    [PAYLOAD - 40 - 40 - 5 + offset for offset in range(-60, 60)],
    list(range(100, 1000)),
  ],
  ids=['one byte', 'mixed', 'about a block', 'many'],
)
def test_records_are_those_of_the_library(sizes: list[int], tmp_path: Path):
  records = write(tmp_path / 'file', sizes)
  file = RecordFile(tmp_path / 'file', len(sizes))
  assert file.is_readable
  order = np.random.default_rng(1).permutation(len(sizes))
  library = ArrayRecordReader(str(tmp_path / 'file')).read([int(index) for index in order])
  for index, expected in zip(order, library, strict=True):
    assert bytes(file[index]) == expected == records[index]


@pytest.mark.parametrize('options', ['group_size:1', 'group_size:2,uncompressed', 'group_size:1,brotli:1'])
def test_other_files_are_left_to_the_library(options: str, tmp_path: Path):
  write(tmp_path / 'file', [1000, 1000, 1000], options)
  assert not RecordFile(tmp_path / 'file', 3).is_readable


def test_more_records_than_one_system_call_takes_buffers(tmp_path: Path):
  (record,) = write(tmp_path / 'file', [70 * 2**20])
  assert bytes(RecordFile(tmp_path / 'file', 1)[0]) == record


def test_a_truncated_file_is_an_error(tmp_path: Path):
  write(tmp_path / 'file', [100_000, 100_000])
  (tmp_path / 'short').write_bytes((tmp_path / 'file').read_bytes()[:150_000])
  file = RecordFile(tmp_path / 'short', 2)
  assert len(bytes(file[0])) == 100_000
  with pytest.raises(OSError, match='short: ends before its last record'):
    file[1]
