"""FoD500: focal stacks of 500 rendered scenes with depth, known as `fs_6` and as the data set of DefocusNet.

Maximov, Galim and Leal-Taixe, "Focus on Defocus: Bridging the Synthetic to Real Domain Gap for Depth Estimation",
CVPR 2020. The authors publish it at https://github.com/dvl-tum/defocus-net and state no licence.

Every example holds five frames, far to near, focused at 1.5, 0.7, 0.3, 0.15 and 0.1 m (the files count from the
nearest). They are rendered from one view, with f = 2.9 mm and F/1, and so are aligned (`fov` is 1). Focus and target
are depth in metres; there is no all-in-focus image (`all_in_focus` is one black pixel).

  split  examples  height x width  scenes         valid is 1 where
  train       400  256 x 256       the first 80%  0 < depth <= 2.0 m
  test        100  256 x 256       the rest       0.1 <= depth <= 1.5 m, the range of the focus

Bounds are compared in float32, so the 0.1 of the files, a half float slightly below it, is outside. Results are
reported on the test split within 0.1 .. 1.5 m: MAE, MSE, RMS, log RMS, AbsRel and SqRel.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError
from tfds_ddff.files import check_same_size, common_size, exr_channels, exr_size, read_exr, read_image
from tfds_ddff.stack_builder import Config, Example, SourceSplit, StackBuilder, make_example, stack_bytes

FOCUS_M = np.array([1.5, 0.7, 0.3, 0.15, 0.1])  # far to near
NUM_FRAMES = len(FOCUS_M)
FOLDER = 'fs_6'
HOMEPAGE = 'https://github.com/dvl-tum/defocus-net'
FILE_NAME = re.compile(r'(\d{6})(?:_\d{2}All\.tif|Dpt\.exr)')

CITATION = """
@inproceedings{maximov2020focus,
  title = {Focus on Defocus: Bridging the Synthetic to Real Domain Gap for Depth Estimation},
  author = {Maximov, Maxim and Galim, Kevin and Leal-Taix{\\'e}, Laura},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2020},
}
"""


def official_splits(manual_dir: Path) -> dict[str, SourceSplit]:
  """The splits of the official files.

  Args:
    manual_dir: folder with `fs_6`, which holds `000000_00All.tif` .. `000000_04All.tif`, `000000Dpt.exr` and so on.

  Raises:
    InputError: a scene between the first and the last lacks a file, a file belongs to no scene, or one is not as
      described above.
  """
  folder = manual_dir / FOLDER
  found = {path.name: int(match[1]) for path in folder.glob('*') if (match := FILE_NAME.fullmatch(path.name))}
  count = 1 + max(found.values(), default=0)  # without any file, report the first one of scene 0 as missing
  num_bytes = [_check_scene(folder, scene) for scene in range(count)]
  expected = {path.name for scene in range(count) for path in (*_frames(folder, scene), _depth(folder, scene))}
  if stray := sorted(found.keys() - expected):
    raise InputError(f'{folder / stray[0]}: found a stray file, expected frames 00 to {NUM_FRAMES - 1:02d} of a scene')
  num_train = count * 4 // 5
  if not num_train:
    raise InputError(f'{folder}: found one scene, expected at least two, for train and test')
  splits = {
    'train': (range(num_train), lambda depth: (depth > 0) & (depth <= 2)),
    'test': (range(num_train, count), lambda depth: (depth >= 0.1) & (depth <= 1.5)),
  }
  return {
    name: SourceSplit(
      len(scenes), sum(num_bytes[scene] for scene in scenes), functools.partial(_read, folder, scenes, is_valid)
    )
    for name, (scenes, is_valid) in splits.items()
  }


def _frames(folder: Path, scene: int) -> list[Path]:
  """Frame files, far to near."""
  return [folder / f'{scene:06d}_{frame:02d}All.tif' for frame in reversed(range(NUM_FRAMES))]


def _depth(folder: Path, scene: int) -> Path:
  return folder / f'{scene:06d}Dpt.exr'


def _check_scene(folder: Path, scene: int) -> int:
  """Checks the headers of a scene; returns its size in bytes."""
  frames, depth = _frames(folder, scene), _depth(folder, scene)
  size = common_size(frames, HOMEPAGE)
  check_same_size(depth, exr_size(depth, HOMEPAGE), size, frames[0])
  if 'R' not in (channels := exr_channels(depth, HOMEPAGE)):
    raise InputError(f'{depth}: found channels {", ".join(channels)}, expected R')
  return stack_bytes(NUM_FRAMES, *size)


def _read(folder: Path, scenes: range, is_valid: Callable[[np.ndarray], np.ndarray], index: int) -> Example:
  scene = scenes[index]
  images = np.stack([read_image(path, HOMEPAGE) for path in _frames(folder, scene)])
  depth = read_exr(_depth(folder, scene), HOMEPAGE)['R'].astype(np.float32)
  return make_example(f'{scene:06d}', images, FOCUS_M, depth, is_valid(depth))


class Builder(StackBuilder):
  """TFDS builder of `fod500`. See the module for splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  DESCRIPTION = __doc__
  HOMEPAGE = HOMEPAGE
  LICENSE = f'not stated; see {HOMEPAGE}'
  CITATION = CITATION
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{FOLDER}.zip, unpacked to {FOLDER}, from {HOMEPAGE}'
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='All scenes; the first 80 % for training, the rest for testing.',
      find_splits=official_splits,
      num_frames=NUM_FRAMES,
      focus_unit='m',
    ),
  ]
