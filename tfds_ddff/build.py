"""Builds a data set from published files, or from the simulator.

  python -m tfds_ddff.build --dataset=ddff12 --manual_dir=DIR --data_dir=DIR [--overwrite]
  python -m tfds_ddff.build --dataset=simulated --config=configs/simulated.py --num_train=1000 --data_dir=DIR

`--manual_dir` contains the published files, which are only read; `--data_dir` receives the data set for
`tfds_ddff.load`, with a picture of some examples. All input is checked before anything is written, and a build that
fails or is interrupted leaves `--data_dir` unchanged. Exit status: 0; 2 for bad input, with one line on stderr; 130 if
interrupted.
"""

import contextlib
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from focal_jax.command_line import FLAG_ERRORS, flag_message, run_program
from focal_jax.errors import InputError
from focal_jax.files.outputs import staging
from focal_jax.files.pictures import Panel, contact_sheet
from focal_jax.simulate.stacks import SimulatorSettings, settings_from_config
from tfds_ddff import DATASETS, built_folder, find, load
from tfds_ddff.simulated.simulated_dataset_builder import joined_splits, simulated_metadata, simulated_splits
from tfds_ddff.stack_builder import SourceSplit

CONTACT_SHEET = 'contact_sheet.png'


def build(
  name: str,
  manual_dir: str | os.PathLike[str] | None,
  data_dir: str | os.PathLike[str],
  overwrite: bool = False,
  should_stop: Callable[[], bool] = lambda: False,
  *,
  splits: dict[str, SourceSplit] | None = None,
  metadata: Mapping[str, Any] | None = None,
) -> dict[str, int]:
  """Builds one data set.

  Args:
    name: data set, with or without its config, as for `tfds_ddff.load`.
    manual_dir: the published files; never written to. None if `splits` are given.
    data_dir: created if it does not exist.
    overwrite: replace an existing data set. The old one is kept until the new one is complete.
    should_stop: called after each example; True interrupts the build.
    splits: what to write; None: what the data set finds in `manual_dir`.
    metadata: stored with the data set, overriding its own.

  Returns:
    Number of examples in each split.

  Raises:
    InputError: invalid input, or the data set is already built. `data_dir` is then unchanged.
    KeyboardInterrupt: interrupted. `data_dir` is then unchanged.
  """
  data_dir = Path(data_dir).expanduser()
  builder_class, config = find(name)
  target = built_folder(name, data_dir)
  if target.exists() and not overwrite:
    raise InputError(f'{target}: found a built data set, expected none; pass --overwrite to replace it')
  if splits is None:
    if manual_dir is None:
      raise InputError(f'{name} needs --manual_dir, the folder with the files published by its authors')
    manual_dir = Path(manual_dir).expanduser()
    splits = config.find_splits(manual_dir)
    for split, file in config.optional.items():
      if split not in splits:
        print(f'{manual_dir / file}: missing, so the build has no split {split!r}')

  with staging(data_dir) as stage:
    free, needed = shutil.disk_usage(stage).free, sum(source.num_bytes for source in splits.values())
    if free < needed:
      raise InputError(f'{data_dir}: found {free / 1e9:.1f} GB free on its disk, expected {needed / 1e9:.1f} GB')
    builder = builder_class(data_dir=stage, config=config, file_format='array_record')
    builder.sources = splits
    builder.info.metadata.update(metadata or {})
    total = sum(map(len, splits.values()))
    # TFDS prints the staging folder on stdout, which is removed at the end.
    with contextlib.redirect_stdout(io.StringIO()), tqdm(total=total, desc=name, unit=' examples') as bar:

      def progress() -> None:
        bar.update()
        if should_stop():
          raise KeyboardInterrupt

      builder.progress = progress
      builder.download_and_prepare(
        download_dir=stage / 'downloads',
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False),
      )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(stage / builder.name / '.config', data_dir / builder.name / '.config', dirs_exist_ok=True)
    if target.exists():
      target.rename(stage / 'replaced')
    built_folder(name, stage).rename(target)
  return {split: len(source) for split, source in splits.items()}


def build_simulated(
  settings: SimulatorSettings,
  counts: Mapping[str, int],
  data_dir: str | os.PathLike[str],
  *,
  seed: int = 0,
  process_index: int | None = None,
  process_count: int = 1,
  overwrite: bool = False,
  should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, dict[str, int]]:
  """Builds the data set `simulated`, a part of it, or joins its parts; see the module of its builder.

  Args:
    settings: the simulator's settings.
    data_dir: created if it does not exist.
    counts: number of examples in 'train' and 'val'.
    seed: random seed of the stacks.
    process_count: number of parts.
    process_index: the part to build, from 0; None with several processes: join the parts.
    overwrite: replace an existing data set.
    should_stop: called after each example; True interrupts the build.

  Returns:
    The folder of the result, `data_dir` or that of a part; and the number of examples in each split there.

  Raises:
    InputError, KeyboardInterrupt: as for `build`.
  """
  for name, value, low, high in (
    ('num_train', counts['train'], 1, None),
    ('num_val', counts['val'], 0, None),
    ('process_count', process_count, 1, counts['train']),
    ('process_index', process_index or 0, 0, process_count - 1),
  ):
    if value < low or (high is not None and value > high):
      limit = f'at least {low}' if high is None else f'{low} to {high}'
      raise InputError(f'--{name} is {value}, expected {limit}')
  data_dir = Path(data_dir).expanduser()
  metadata = simulated_metadata(settings, counts, seed)
  folders = [data_dir / f'part-{n}-of-{process_count}' for n in range(process_count)]
  join = process_count > 1 and process_index is None
  if join:
    splits = joined_splits([built_folder('simulated', folder) for folder in folders], counts, metadata)
  else:
    splits = simulated_splits(settings, counts, seed, process_index or 0, process_count)
  target = data_dir if join or process_count == 1 else folders[process_index]
  built = build('simulated', None, target, overwrite, should_stop, splits=splits, metadata=metadata)
  if join:
    for folder in folders:
      shutil.rmtree(folder)
  return target, built


def draw_contact_sheet(name: str, data_dir: str | os.PathLike[str], examples_per_split: int = 2) -> Path:
  """Draws examples of every split, evenly spread: far, middle and near frame, and depth in colour.

  The colours of a depth map span the focus coordinates of its example; pixels without depth are grey.

  Args:
    name: data set.
    data_dir: where it is built.
    examples_per_split: maximum number of examples per split.

  Returns:
    The PNG file, in the folder of the data set.
  """
  folder = built_folder(name, data_dir)
  rows = []
  for split in tfds.builder_from_directory(folder).info.splits:
    source = load(name, split, data_dir)
    places = np.unique(np.linspace(0, len(source) - 1, examples_per_split).astype(int))
    rows += [_panels(source[index], source.focus_unit) for index in places]
  path = folder / CONTACT_SHEET
  contact_sheet(path, rows, name)
  return path


def _panels(example: dict, unit: str) -> list[Panel]:
  """Far, middle and near frame and all-in-focus image, as far as they exist; depth in colour, if known."""
  name, focus, frames = example['name'].decode(), example['focus'], len(example['focus'])
  if frames == 1:
    panels = [Panel(f'{name}, all in focus', example['images'][0])]
  else:
    unit = f'({unit})' if ' ' in unit else unit
    places = (('far', 0), ('middle', frames // 2), ('near', frames - 1))
    panels = [Panel(f'{name}, {where}: {focus[n]:.4g} {unit}', example['images'][n]) for where, n in places]
  if example['all_in_focus'].shape[:2] == example['target'].shape:
    panels.append(Panel('all in focus', example['all_in_focus']))
  valid = example['valid'] > 0
  if valid.any():
    limits = (float(focus.min()), float(focus.max())) if frames > 1 else None
    target = np.where(valid, example['target'], np.nan)
    panels.append(Panel(f'target, {valid.mean():.0%} valid', target, unit, limits))
  return panels


def main(argv: list[str]) -> int:
  if len(argv) > 1:
    raise app.UsageError(f'found arguments {argv[1:]}, expected flags only')
  logging.set_verbosity(logging.WARNING)  # TFDS would log its steps across the progress bar
  options = flags.FLAGS
  # The handler only sets a flag, because an exception raised in a handler is lost during garbage collection.
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  try:
    if options.dataset.partition('/')[0] == 'simulated':
      data_dir, counts = build_simulated(
        _simulator_settings(options.config),
        {'train': options.num_train, 'val': options.num_val},
        options.data_dir,
        seed=options.seed,
        process_index=options.process_index,
        process_count=options.process_count,
        overwrite=options.overwrite,
        should_stop=stop.is_set,
      )
    else:
      data_dir = options.data_dir
      counts = build(options.dataset, options.manual_dir, data_dir, options.overwrite, stop.is_set)
    sheet = draw_contact_sheet(options.dataset, data_dir)
  except InputError as error:
    print(f'tfds_ddff.build: error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('tfds_ddff.build: interrupted; no partial data set is left', file=sys.stderr)
    return 130
  print(f'{sheet.parent}: built')
  for split, count in counts.items():
    print(f'  {split:<6}{count:>6} examples')
  print(f'{sheet}: some examples for inspection')
  return 0


def _simulator_settings(config: ConfigDict | None) -> SimulatorSettings:
  """The settings from the flag --config; InputError if it is missing or invalid."""
  if config is None:
    raise InputError('simulated needs --config, for example configs/simulated.py')
  try:
    return settings_from_config(config.simulator)
  except FLAG_ERRORS as error:
    raise InputError(flag_message(error)) from error


def run() -> None:
  """Entry point. Flags are global, so they are defined here and not on import: other programs also have --data_dir."""
  flags.DEFINE_string('dataset', None, f'One of {", ".join(DATASETS)}; a config may follow a slash.', required=True)
  flags.DEFINE_string('manual_dir', None, 'Folder with the published files; only read. Not for simulated.')
  flags.DEFINE_string('data_dir', None, 'Folder for the data set; created if it does not exist.', required=True)
  flags.DEFINE_bool('overwrite', False, 'Replace the data set if it is already built.')
  config_flags.DEFINE_config_file('config', None, 'simulated: recipe with the settings of the simulator.')
  flags.DEFINE_integer('num_train', 1000, 'simulated: number of examples of the split train.')
  flags.DEFINE_integer('num_val', 0, 'simulated: number of examples of the split val; 0: no such split.')
  flags.DEFINE_integer('seed', 0, 'simulated: random seed of the stacks.')
  flags.DEFINE_integer('process_count', 1, 'simulated: number of parts, each built by its own process.')
  flags.DEFINE_integer('process_index', None, 'simulated: the part to build, from 0. Without it, the parts are joined.')
  run_program(main, 'tfds_ddff.build')


if __name__ == '__main__':
  run()
