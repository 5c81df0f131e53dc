r"""Frozen simulated stacks: any number of them, with the scenes, cameras and sensor described by a config.

Training on stacks simulated anew in every step needs no data set. This one is for stacks that must stay the same or be
available without computation: a validation set, an ablation, a machine with slow cores.

  python -m tfds_ddff.build --dataset=simulated --data_dir=DIR --config=configs/simulated.py --num_train=1000 \
    --num_val=50 [--seed=0]

As a source its name is `simulated/frozen`; `simulated` alone is the simulator itself.

Splits are `train` and, if `--num_val` is above 0, `val`. Example i of a split is `simulate` with the key
fold_in(fold_in(key(seed), 0 for train and 1 for val), i), images rounded to eight bits, with all ground truth: depth,
motion, all-in-focus image. It does not depend on the number of examples or on the process that computes it, but other
devices and versions of JAX round differently. `metadata.json` in the same folder contains seed, numbers and settings.
Focus and target are in the unit of the config's cameras, which must share one; `valid` is 1 within the focus range of
the sweep, else 0.

Several processes, on any machines with a shared disk, may each build one part of every split, in any order. One command
joins the parts when all are complete:

  python -m tfds_ddff.build (as above) --process_count=4 --process_index=0    # and with 1, 2 and 3
  python -m tfds_ddff.build (as above) --process_count=4

A part is a data set of its own in `DIR/part-I-of-N`, either complete or absent, which is removed once it is joined.
Joined parts equal a build by a single process.
"""

import bisect
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError
from focal_jax.simulate.stacks import SimulatorSettings, focus_unit, simulate
from focal_jax.stack import FocalStack
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes
from tfds_ddff.stack_source import StackSource

SPLITS = ('train', 'val')  # the index of a split is part of its keys


def simulated_splits(
  settings: SimulatorSettings, counts: Mapping[str, int], seed: int = 0, part: int = 0, parts: int = 1
) -> dict[str, SourceSplit]:
  """The splits, or one part of each; a split without examples in this part is skipped.

  Args:
    settings: the simulator's settings.
    counts: total number of examples of each split, in all parts.
    seed: random seed of the stacks.
    part: index of the part, from 0.
    parts: number of parts.
  """
  render = jax.jit(functools.partial(simulate, settings=settings))
  size = stack_bytes(settings.num_frames, settings.height_px, settings.width_px, all_in_focus=True)
  splits = {}
  for split, count in counts.items():
    indices = _part_indices(count, parts)[part]
    if indices:
      key = jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))
      read = functools.partial(_simulate, render, key, split, indices)
      splits[split] = SourceSplit(len(indices), len(indices) * size, read)
  return splits


def joined_splits(
  folders: Sequence[Path], counts: Mapping[str, int], metadata: dict[str, Any]
) -> dict[str, SourceSplit]:
  """The splits made from the parts in these folders, in their order.

  Raises:
    InputError: a part is missing, or belongs to another data set.
  """
  for n, folder in enumerate(folders):
    if not (folder / 'dataset_info.json').is_file():
      raise InputError(f'{folder}: found no part of the data set, expected one; build it with --process_index={n}')
    if json.loads((folder / 'metadata.json').read_text()) != metadata:
      raise InputError(f'{folder}: found a part with another config, seed or number of examples, expected those given')
  builders = [tfds.builder_from_directory(folder) for folder in folders]
  splits = {}
  for split, count in counts.items():
    parts = {indices[0]: n for n, indices in enumerate(_part_indices(count, len(folders))) if indices}
    sources = [StackSource(builders[n], split) for n in parts.values()]
    if count:
      num_bytes = sum(builders[n].info.splits[split].num_bytes for n in parts.values())
      splits[split] = SourceSplit(count, num_bytes, functools.partial(_read, sources, list(parts)))
  return splits


def simulated_metadata(settings: SimulatorSettings, counts: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
  """Metadata of a simulated data set: `focus_unit`, `seed`, `examples` and `simulator`, as JSON.

  Raises:
    InputError: the cameras in the settings have different units.
  """
  metadata = {
    'focus_unit': focus_unit(settings),
    'seed': seed,
    'examples': dict(counts),
    'simulator': dataclasses.asdict(settings),
  }
  return json.loads(json.dumps(metadata))


def _part_indices(count: int, parts: int) -> list[range]:
  """Contiguous index ranges, in order, with lengths that differ by at most one."""
  bounds = [count * n // parts for n in range(parts + 1)]
  return [range(first, end) for first, end in itertools.pairwise(bounds)]


def _simulate(render: Callable[[jax.Array], FocalStack], key: jax.Array, split: str, indices: range, n: int) -> Example:
  stack = jax.device_get(render(jax.random.fold_in(key, indices[n])))
  images, all_in_focus = (np.round(x * 255).astype(np.uint8) for x in (stack.images, stack.all_in_focus))
  return make_example(
    f'{split}_{indices[n]:05d}',
    images,
    stack.focus,
    stack.target,
    stack.valid,
    fov=stack.fov,
    motion=stack.motion,
    all_in_focus=all_in_focus,
  )


def _read(sources: Sequence[StackSource], firsts: Sequence[int], index: int) -> Example:
  """The example at an index, from the source that contains it."""
  n = bisect.bisect_right(firsts, index) - 1
  example = sources[n][index - firsts[n]]
  return {**example, 'name': example['name'].decode()}


def _no_files(manual_dir: Path) -> dict[str, SourceSplit]:
  raise InputError("the data set 'simulated' is not made from files, expected --config and --num_train")


class Builder(StackBuilder):
  """TFDS builder of `simulated`. See the module for splits, keys and building by several processes."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = 'https://arxiv.org/abs/2207.09658'
  LICENSE = 'Apache-2.0, like the simulator'
  CITATION = ''
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='frozen',
      description='Stacks of the simulator; metadata.json contains its settings.',
      find_splits=_no_files,
      num_frames=None,
      focus_unit='1/m',  # or the unit of the settings' cameras
    ),
  ]
