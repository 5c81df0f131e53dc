"""Reads built data sets example by example, several times faster than TFDS's own decoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2


class StackSource(Sequence):
  """A split of a built data set, for random access from any number of threads.

  `source[i]` is a dict as in `stack_builder.stack_features`: read-only NumPy arrays, and `name` as bytes.

  Attributes:
    focus_unit: of `focus` and `target`.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self._records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    self._features = {
      name: (feature.shape, feature.np_dtype) for name, feature in builder.info.features.items() if name != 'name'
    }
    self.focus_unit: str = builder.info.metadata['focus_unit']

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'example {index} of {len(self)}')
    stored = tf_example_pb2.Example.FromString(self._records[index]).features.feature
    example: dict[str, Any] = {'name': stored['name'].bytes_list.value[0]}
    for name, (shape, dtype) in self._features.items():
      # TFDS stores the shape beside the bytes where more than one length is open.
      dynamic = shape.count(None) > 1
      data = stored[f'{name}/value' if dynamic else name].bytes_list.value[0]
      lengths = stored[f'{name}/shape'].int64_list.value if dynamic else [-1 if n is None else n for n in shape]
      example[name] = np.frombuffer(data, dtype).reshape(lengths)
    return example
