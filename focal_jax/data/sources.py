"""Where stacks come from: data sets built by `tfds_ddff`, or the crops that ship with the project. Random access."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import tfds_ddff
from focal_jax import optics
from focal_jax.errors import InputError

EXAMPLES = Path(__file__).parents[2] / 'examples'
DDFF_EXAMPLES = EXAMPLES / 'ddff12_val.h5'


def open_source(dataset: str, split: str, data_dir: str) -> Sequence[dict[str, Any]]:
  """Examples as dicts of numpy arrays, frames far to near; see `tfds_ddff.stack_builder` for the features.

  `dataset` 'examples' is the small set that ships with the project: five DDFF-12 crops, split 'val'.
  """
  if dataset != 'examples':
    return tfds_ddff.load(dataset, split, data_dir)
  if split != 'val':
    raise InputError(f"eval.split is '{split}', but the data set 'examples' has only the split 'val'")
  return ddff_examples()


def _open_examples() -> h5py.File:
  if not DDFF_EXAMPLES.is_file():
    raise InputError(f'{DDFF_EXAMPLES}: not there; expected the real crops that come with a checkout of the project')
  return h5py.File(DDFF_EXAMPLES)


def ddff_examples() -> list[dict[str, Any]]:
  """The five real DDFF-12 crops of `examples/`, [10, 224, 224, 3], focus and target in disparity px."""
  with _open_examples() as file:
    stacks, disparities = file['stack_val'][:], file['disp_val'][:]
  focus = optics.ddff_focus_disparities()[::-1].astype(np.float32)
  return [
    {
      'images': stack[::-1, ..., ::-1],  # nearest first and BGR in the official layout
      'focus': focus,
      'fov': np.ones_like(focus),
      'target': disparity.astype(np.float32),
      'valid': (disparity > 0).astype(np.float32),
      'name': f'val_{index:05}',
    }
    for index, (stack, disparity) in enumerate(zip(stacks, disparities, strict=True))
  ]


def mean_target(dataset: str, data_dir: str) -> float:
  """Mean valid target of the training split: what a constant prediction would be."""
  if dataset == 'examples':
    with _open_examples() as file:
      return float(file.attrs['mean_train_disparity_px'])
  total = count = 0.0
  for example in tfds_ddff.load(dataset, 'train', data_dir):
    total += float(np.sum(example['target'] * example['valid'], dtype=np.float64))
    count += float(np.sum(example['valid'], dtype=np.float64))
  return total / count
