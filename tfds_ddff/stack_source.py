"""Reads built data sets example by example, several times faster than TFDS's own reader."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_ddff.record_file import RecordFile


class StackSource(Sequence):
  """A split of a built data set, for random access from any number of threads.

  `source[i]` is a dict in the form of `stack_builder.stack_features`: read-only NumPy arrays, and `name` as bytes.

  Attributes:
    records: the stored examples, serialised.
    focus_unit: of `focus` and `target`.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self.records = _Records(builder.info.splits[split].file_instructions)
    if not self.records.is_readable:
      self.records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    self._features = {
      name: (feature.shape, feature.np_dtype) for name, feature in builder.info.features.items() if name != 'name'
    }
    self.focus_unit: str = builder.info.metadata['focus_unit']

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'example {index} of {len(self)}')
    record = memoryview(self.records[index]).toreadonly()
    stored = locate_features(record)
    example: dict[str, Any] = {'name': bytes(record[slice(*stored['name'])])}
    for name, (shape, dtype) in self._features.items():
      # TFDS stores the shape with the bytes if more than one length is unknown.
      if shape.count(None) > 1:
        start, end = stored[f'{name}/value']
        shape = _read_integers(record, *stored[f'{name}/shape'])
      else:
        start, end = stored[name]
        shape = [-1 if length is None else length for length in shape]
      count = (end - start) // dtype.itemsize
      example[name] = np.frombuffer(record, dtype, count, start).reshape(shape)
    return example


class _Records(Sequence):
  """The records that a split takes from its files."""

  def __init__(self, instructions: Sequence[Any]):
    self._files = [RecordFile(Path(part.filename), part.examples_in_shard) for part in instructions]
    self._skipped = [part.skip for part in instructions]
    self._ends = list(itertools.accumulate(part.take for part in instructions))
    self.is_readable = all(file.is_readable for file in self._files)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> memoryview:
    part = bisect.bisect_right(self._ends, index)
    first = self._ends[part - 1] if part else 0
    return self._files[part][self._skipped[part] + index - first]


def locate_features(record: memoryview) -> dict[str, tuple[int, int]]:
  """Position of each feature's value in a serialised `tf.train.Example`: its first byte and the one after its last.

  Values are single byte strings or packed integers. The protobuf library copies every value twice, which for a focal
  stack takes as long as reading it; here nothing is copied. The messages, each a sequence of fields with a length:

    Example {1: Features {1: map entry {1: name, 2: Feature {1 | 3: list {1: value}}}, ...}}
  """
  located = {}
  for features in _fields(record, 0, len(record)):
    for entry in _fields(record, *features):
      name, feature = _fields(record, *entry)
      (values,) = _fields(record, *feature)
      (located[str(record[slice(*name)], 'ascii')],) = _fields(record, *values)
  return located


def _fields(record: memoryview, start: int, end: int) -> Iterator[tuple[int, int]]:
  """The fields of a message; all have a length and are in order of their numbers."""
  while start < end:
    length, start = _varint(record, start + 1)  # after the tag, one byte for numbers below 16
    yield start, start + length
    start += length


def _varint(record: memoryview, start: int) -> tuple[int, int]:
  """A number in groups of seven bits, lowest first, and the position after it."""
  number = shift = 0
  while record[start] >= 128:
    number |= (record[start] - 128) << shift
    start, shift = start + 1, shift + 7
  return number | record[start] << shift, start + 1


def _read_integers(record: memoryview, start: int, end: int) -> list[int]:
  integers = []
  while start < end:
    number, start = _varint(record, start)
    integers.append(number)
  return integers
