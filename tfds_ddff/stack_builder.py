"""Common parts of all data sets of focal stacks: their features, and how a builder writes them.

A data set subclasses `StackBuilder` and lists a `Config` for each of its protocols. The `find_splits` of a config
checks the published files and returns a `SourceSplit` for each split, which reads them example by example.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

Example = dict[str, np.ndarray | str]

SHARD_BYTES = 1 << 29  # before compression


def stack_features(num_frames: int | None) -> tfds.features.FeaturesDict:
  """Features of an example of every data set. Frames run from far to near; examples may differ in height and width.

  Everything except `name` is stored as raw bytes, which are an order of magnitude faster to read and write than TFDS's
  default. An RGB-D image is a single all-in-focus frame without a focus coordinate: `focus` is NaN.

  Args:
    num_frames: N, or None if it differs between examples.
  """

  def tensor(shape: tuple[int | None, ...], dtype: type[np.generic], doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes', doc=doc)

  # TFDS cannot decode empty arrays, so a missing all-in-focus image has one pixel.
  return tfds.features.FeaturesDict(
    {
      'images': tensor((num_frames, None, None, 3), np.uint8, '[N, H, W, 3] RGB frames, far to near'),
      'focus': tensor((num_frames,), np.float32, '[N] focus coordinate of each frame'),
      'fov': tensor((num_frames,), np.float32, '[N] relative field of view, 1 for the narrowest frame'),
      'motion': tensor((num_frames, 3), np.float32, '[N, 3] true (alpha, beta, gamma) of each frame; NaN if unknown'),
      'target': tensor((None, None), np.float32, '[H, W] depth in the unit of focus; 0 where not valid'),
      'valid': tensor((None, None), np.float32, '[H, W] weight of each pixel of target (its confidence), 0 .. 1'),
      'all_in_focus': tensor((None, None, 3), np.uint8, '[H, W, 3] RGB, sharp everywhere; one black pixel if none'),
      'name': tfds.features.Text(doc='split and index or scene in the published files'),
    }
  )


def make_example(
  name: str,
  images: np.ndarray,
  focus: np.ndarray,
  target: np.ndarray | None = None,
  valid: np.ndarray | None = None,
  *,
  fov: np.ndarray | None = None,
  aligned: bool = True,
  motion: np.ndarray | None = None,
  all_in_focus: np.ndarray | None = None,
) -> Example:
  """An example in the form of `stack_features`; missing fields are filled in.

  Args:
    name: split and index or scene.
    images: [N, H, W, 3] uint8 RGB, far to near.
    focus: [N] focus coordinates, in the unit of `target`.
    target: [H, W], any floating-point type; None if the depth is unknown.
    valid: [H, W] weight, or bool; pixels where `target` is not finite are never valid. None: where it is finite.
    fov: [N] relative field of view; None: equal in all frames.
    aligned: the frames show the same view by construction, so their true motion is 0.
    motion: [N, 3] true motion, if known and not 0.
    all_in_focus: [H, W, 3] uint8 RGB.
  """
  if target is None:
    target, valid = np.zeros(images.shape[1:3]), np.zeros(images.shape[1:3])
  weight = np.isfinite(target) * (1.0 if valid is None else valid)
  with np.errstate(over='ignore'):  # values beyond float32 become infinite
    target = np.where(weight > 0, target, 0).astype(np.float32)
  weight = np.where(np.isfinite(target), weight, 0)
  if motion is None:
    motion = np.full((len(images), 3), 0.0 if aligned else np.nan)
  return {
    'images': images,
    'focus': np.asarray(focus, np.float32),
    'fov': np.ones(len(images), np.float32) if fov is None else np.asarray(fov, np.float32),
    'motion': np.asarray(motion, np.float32),
    'target': np.where(weight > 0, target, np.float32(0)),
    'valid': weight.astype(np.float32),
    'all_in_focus': np.zeros((1, 1, 3), np.uint8) if all_in_focus is None else all_in_focus,
    'name': name,
  }


@dataclasses.dataclass(frozen=True)
class SourceSplit:
  """One split in its published files, checked.

  Attributes:
    length: number of examples.
    num_bytes: size of all features of all examples, before compression (`stack_bytes`).
    read: the example (`make_example`) at an index; raises InputError for damage that only reading detects.
  """

  length: int
  num_bytes: int
  read: Callable[[int], Example]

  def __len__(self) -> int:
    return self.length


def stack_bytes(num_frames: int, height: int, width: int, all_in_focus: bool = False) -> int:
  """Size of one example: uint8 frames, float32 target and valid."""
  return height * width * (3 * (num_frames + all_in_focus) + 4 + 4)


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """One protocol of a data set.

  Attributes:
    find_splits: takes the folder with the published files, checks everything except pixels, and returns the splits that
      they contain; raises InputError.
    num_frames: N, or None if it differs between examples.
    focus_unit: of `focus` and `target`: 'px' (disparity), 'm', '1/m', or other text for scales.
    optional: splits that are skipped if their files are missing, with the name of the file or folder.
  """

  find_splits: Callable[[Path], dict[str, SourceSplit]]
  num_frames: int | None
  focus_unit: str
  optional: dict[str, str] = dataclasses.field(default_factory=dict)


class StackInfo(tfds.core.DatasetInfo):
  """Metadata that is not looked up in TFDS's bucket, which has none of these data sets, and leaves a temporary folder
  behind.
  """

  def initialize_from_bucket(self) -> None:
    pass


class StackBuilder(tfds.core.GeneratorBasedBuilder):
  """Writes the splits of its config, one example after the other, in the order they are read.

  A data set defines, besides TFDS's VERSION, BUILDER_CONFIGS and MANUAL_DOWNLOAD_INSTRUCTIONS:

  Attributes:
    DESCRIPTION: splits, focus coordinates and their unit, range of the target, valid mask, protocol: the module's
      docstring.
    HOMEPAGE: where the authors publish it.
    LICENSE: the licence and its address.
    CITATION: BibTeX.
    sources: the splits to write; None: what the config's `find_splits` finds.
    progress: called after each example.
  """

  DESCRIPTION: str
  HOMEPAGE: str
  LICENSE: str
  CITATION: str

  sources: dict[str, SourceSplit] | None = None
  progress: Callable[[], object] = staticmethod(lambda: None)

  def _info(self) -> StackInfo:
    config = self.builder_config
    return StackInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=stack_features(config.num_frames),
      homepage=self.HOMEPAGE,
      citation=self.CITATION,
      license=self.LICENSE,
      metadata=tfds.core.MetadataDict(focus_unit=config.focus_unit),
      disable_shuffling=True,  # submissions need the order of the files, and readers shuffle
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Example]]]:
    if self.sources is None:
      self.sources = self.builder_config.find_splits(Path(dl_manager.manual_dir))
    return {name: self._generate_examples(split) for name, split in self.sources.items()}

  def _generate_examples(self, split: SourceSplit) -> Iterator[tuple[int, Example]]:
    for index in range(len(split)):
      yield index, split.read(index)

  def _download_and_prepare(
    self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
  ) -> None:
    # TFDS would sort each split before writing it, which above 1 GB needs TensorFlow and twice the disk space, and is
    # not needed here because the order is kept.
    generators = self._split_generators(dl_manager)
    written = [self._write_split(name, examples, self.sources[name]) for name, examples in generators.items()]
    self.info.set_splits(tfds.core.splits.SplitDict(written))

  def _write_split(
    self, name: str, examples: Iterator[tuple[int, Example]], source: SourceSplit
  ) -> tfds.core.SplitInfo:
    """Writes one split to files of equal length, as many as needed to keep each below `SHARD_BYTES`."""
    features = self.info.features
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    num_bytes = 0

    template = self._get_filename_template(name)
    num_shards = min(len(source), 1 + source.num_bytes // SHARD_BYTES)
    shard_lengths = [len(part) for part in np.array_split(range(len(source)), num_shards)]
    for shard, count in enumerate(shard_lengths):
      path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
      # Not compressed, unlike in TFDS's own writer: compression saves a quarter of the disk space at best, and reading
      # takes three to eight times as long.
      file = ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
      for _, example in itertools.islice(examples, count):
        record = serializer.serialize_example(features.encode_example(example))
        num_bytes += len(record)
        file.write(record)
        self.progress()
      file.close()
    return tfds.core.SplitInfo(name=name, shard_lengths=shard_lengths, num_bytes=num_bytes, filename_template=template)
