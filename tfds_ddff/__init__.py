"""Data sets of focal stacks for TensorFlow Datasets (TFDS), built and read without TensorFlow.

Each data set has a folder with `<name>_dataset_builder.py`. All have the same features, which `stack_builder.py`
defines. Build with `python -m tfds_ddff.build`, read with `tfds_ddff.load`.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from focal_jax.errors import InputError

# Imported on use, because other readers of stacks, such as folders of images, do not need TFDS.
if TYPE_CHECKING:
  from tfds_ddff.stack_builder import Config, StackBuilder
  from tfds_ddff.stack_source import StackSource

DATASETS = (
  'ddff12', 'flyingthings_fs', 'fod500', 'hci4d', 'middlebury_fs', 'mobile_depth', 'nyu_depth', 'simulated',
  'smartphone',
)  # fmt: skip


def load(name: str, split: str, data_dir: str | os.PathLike[str]) -> 'StackSource':
  """Opens a built split for random access: `len(source)`, `source[i]`, `source.focus_unit` (see `StackSource`).

  Examples keep the order of the files that they were built from.

  Args:
    name: data set, with or without its config: `'ddff12'`, `'ddff12/official'`.
    split: `'train'`, or any TFDS expression such as `'train[:90%]'` or `'train+val'`.
    data_dir: as given to `python -m tfds_ddff.build`.

  Raises:
    InputError: there is no such data set, or it or the split is not built in `data_dir`.
  """
  import tensorflow_datasets as tfds

  from tfds_ddff.stack_source import StackSource

  folder = built_folder(name, data_dir)
  command = f'python -m tfds_ddff.build --dataset={name} --manual_dir=DIR --data_dir={data_dir}'
  if not (folder / 'dataset_info.json').is_file():
    raise InputError(f'{folder}: found no data set, expected {name}; build it with: {command}')
  builder = tfds.builder_from_directory(folder)
  try:
    return StackSource(builder, split)
  except OSError as error:
    raise InputError(f'{folder}: cannot be read ({error}), expected a complete data set; build it again') from error
  except ValueError as error:
    splits = ', '.join(builder.info.splits)
    raise InputError(
      f'{folder}: no split {split!r}, expected {splits}; to build more: {command} --overwrite'
    ) from error


def find(name: str) -> 'tuple[type[StackBuilder], Config]':
  """The builder class and config of a data set: `'ddff12/official'`, or `'ddff12'` for its first config.

  Raises:
    InputError: there is no such data set or config.
  """
  dataset, _, config_name = name.partition('/')
  if dataset not in DATASETS:
    raise InputError(f'data set {name!r} is unknown, expected one of: {", ".join(DATASETS)}')
  builder_class = importlib.import_module(f'tfds_ddff.{dataset}.{dataset}_dataset_builder').Builder
  configs = {config.name: config for config in builder_class.BUILDER_CONFIGS}
  if config_name and config_name not in configs:
    raise InputError(f'data set {name!r} is unknown, expected {dataset}/ and one of: {", ".join(configs)}')
  return builder_class, configs[config_name or next(iter(configs))]


def built_folder(name: str, data_dir: str | os.PathLike[str]) -> Path:
  """Folder of a built data set: `<data_dir>/<data set>/<config>/<version>`."""
  builder_class, config = find(name)
  return Path(data_dir).expanduser() / builder_class.name / config.name / str(builder_class.VERSION)
