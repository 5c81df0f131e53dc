"""What all data sets of focal stacks have in common: their features, and how a builder writes them.

A data set subclasses `StackBuilder` and lists a `Config` for each of its protocols; a config's `find_splits` checks the
published files and returns a `SourceSplit` for each split, which reads them example by example.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, writer

Example = dict[str, np.ndarray | str]

SHARD_BYTES = 1 << 29  # before compression


def stack_features(num_frames: int | None) -> tfds.features.FeaturesDict:
  """What an example of every data set holds. Frames run from far to near; examples may differ in height and width.

  Everything but `name` is stored as raw bytes, an order of magnitude faster to read and write than TFDS's default.

  Args:
    num_frames: N, or None where it differs between examples.
  """

  def tensor(shape: tuple[int | None, ...], dtype: type[np.generic], doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes', doc=doc)

  return tfds.features.FeaturesDict(
    {
      'images': tensor((num_frames, None, None, 3), np.uint8, '[N, H, W, 3] RGB frames, far to near'),
      'focus': tensor((num_frames,), np.float32, '[N] focus coordinate of each frame'),
      'fov': tensor((num_frames,), np.float32, '[N] relative field of view, 1 for the narrowest frame'),
      'target': tensor((None, None), np.float32, '[H, W] depth in the unit of focus; 0 where not valid'),
      'valid': tensor((None, None), np.float32, '[H, W] weight of each pixel of target, 0 .. 1'),
      'name': tfds.features.Text(doc='split and index in the published files'),
    }
  )


class SourceSplit(Protocol):
  """One split in its published files, checked."""

  @property
  def num_bytes(self) -> int:
    """Size of all features of all examples, before compression."""

  def __len__(self) -> int:
    """Number of examples."""

  def examples(self, name: str) -> Iterator[Example]:
    """Yields `len(self)` examples as in `stack_features`, reading one at a time. `name` is the name of the split.

    Raises:
      InputError: the files are damaged where only reading shows it.
    """


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """One protocol of a data set.

  Attributes:
    find_splits: takes the folder with the published files, checks them, and returns the splits that they hold; raises
      InputError.
    optional: splits that are left out where their file is missing, with the name of the file.
  """

  find_splits: Callable[[Path], dict[str, SourceSplit]]
  optional: dict[str, str] = dataclasses.field(default_factory=dict)


class StackInfo(tfds.core.DatasetInfo):
  """Metadata that are not looked up in TFDS's bucket, which has none of these and leaves a temporary folder behind."""

  def initialize_from_bucket(self) -> None:
    pass


class StackBuilder(tfds.core.GeneratorBasedBuilder):
  """Writes the splits of its config, one example after the other, in the order they are read.

  Attributes:
    progress: called after each example.
  """

  progress: Callable[[], object] = staticmethod(lambda: None)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Example]]]:
    splits = self.builder_config.find_splits(Path(dl_manager.manual_dir))
    return {name: self._generate_examples(name, split) for name, split in splits.items()}

  def _generate_examples(self, name: str, split: SourceSplit) -> Iterator[tuple[int, Example]]:
    yield from enumerate(split.examples(name))

  def _download_and_prepare(
    self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
  ) -> None:
    # TFDS would sort each split before it writes it. Above 1 GB that takes TensorFlow and twice the disk; and as the
    # order is to stay, there is nothing to sort.
    sources = self.builder_config.find_splits(Path(dl_manager.manual_dir))
    written = [
      self._write_split(name, examples, sources[name]) for name, examples in self._split_generators(dl_manager).items()
    ]
    self.info.set_splits(tfds.core.splits.SplitDict(written))

  def _write_split(
    self, name: str, examples: Iterator[tuple[int, Example]], source: SourceSplit
  ) -> tfds.core.SplitInfo:
    """Writes one split to as many files of equal length as keep each below `SHARD_BYTES`."""
    features = self.info.features
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    num_bytes = 0

    def serialized(count: int) -> Iterator[tuple[int, bytes]]:
      nonlocal num_bytes
      for key, example in itertools.islice(examples, count):
        record = serializer.serialize_example(features.encode_example(example))
        num_bytes += len(record)
        yield key, record
        self.progress()

    template = self._get_filename_template(name)
    num_shards = min(len(source), 1 + source.num_bytes // SHARD_BYTES)
    shard_lengths = [len(part) for part in np.array_split(range(len(source)), num_shards)]
    for shard, count in enumerate(shard_lengths):
      path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
      writer.ExampleWriter(self.info.file_format).write(path, serialized(count))
    return tfds.core.SplitInfo(name=name, shard_lengths=shard_lengths, num_bytes=num_bytes, filename_template=template)
