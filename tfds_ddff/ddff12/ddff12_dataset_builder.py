"""DDFF-12: focal stacks of twelve indoor scenes, refocused from light fields, with depth of a registered RGB-D camera.

Hazirbas, Soyer, Staab, Leal-Taixe and Cremers, "Deep Depth From Focus", ACCV 2018. The authors publish it at
https://vision.in.tum.de/data/datasets/ddff12scene under CC BY 4.0.

Every example holds ten frames, far to near, focused at planes evenly spaced in disparity, from 0.0202 px (7 m) to
0.2825 px (0.5 m). They are refocused from one light field of a Lytro Illum, and so are aligned (`fov` is 1). The target
is disparity in pixels between neighbouring views of the light field, 0.1412 m px / depth, and `valid` is 1 where it is
above 0, else 0; it is not limited to the range of the focus.

Config `official` reads the two files of the benchmark:

  split   examples  height x width  file                      keys                     depth
  train       5269  224 x 224       ddff-dataset-trainval.h5  stack_train, disp_train  of 80 % of the pixels or more
  val         1318  224 x 224       ddff-dataset-trainval.h5  stack_val, disp_val      of 80 % of the pixels or more
  test         120  383 x 552       ddff-dataset-test.h5      stack_test               hidden: target and valid are 0

Train and val are crops of the same six scenes, so val says little about other rooms. The benchmark is the test split:
six other scenes, whose depth only the server of the authors knows. Examples keep the order of the files.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import tensorflow_datasets as tfds

from focal_jax.errors import InputError
from focal_jax.optics import ddff_focus_disparities
from tfds_ddff.stack_builder import Config, Example, StackBuilder, StackInfo, stack_features

NUM_FRAMES = 10
TRAINVAL_FILE = 'ddff-dataset-trainval.h5'
TEST_FILE = 'ddff-dataset-test.h5'
HOMEPAGE = 'https://vision.in.tum.de/data/datasets/ddff12scene'

CITATION = """
@inproceedings{hazirbas2018deep,
  title = {Deep Depth From Focus},
  author = {Hazirbas, Caner and Soyer, Sebastian Georg and Staab, Maximilian Christian and
            Leal-Taix{\\'e}, Laura and Cremers, Daniel},
  booktitle = {Asian Conference on Computer Vision (ACCV)},
  year = {2018},
}
"""


@dataclasses.dataclass(frozen=True)
class OfficialSplit:
  """One split as it lies in an official file: frames nearest first, channels BGR, disparity 0 where unknown.

  Attributes:
    path: HDF5 file.
    stack_key: [n, 10, H, W, 3] uint8.
    disparity_key: [n, H, W] float64, px; None where the depth is hidden.
    shape: of the stack.
  """

  path: Path
  stack_key: str
  disparity_key: str | None
  shape: tuple[int, ...]

  def __len__(self) -> int:
    return self.shape[0]

  @property
  def num_bytes(self) -> int:
    n, frames, height, width, channels = self.shape
    return n * height * width * (frames * channels + 4 + 4)  # uint8 images, float32 target and valid

  def examples(self, name: str) -> Iterator[Example]:
    """Examples far to near and RGB, called `<name>_<index in the file, five digits>`."""
    focus = ddff_focus_disparities(NUM_FRAMES)[::-1].astype(np.float32)
    with _open(self.path) as file:
      for index in range(len(self)):
        stack = _read(file, self.stack_key, index)
        if self.disparity_key is None:
          disparity = np.zeros(stack.shape[1:3], np.float32)
        else:
          disparity = _read(file, self.disparity_key, index).astype(np.float32)
        valid = np.isfinite(disparity) & (disparity > 0)
        yield {
          'images': stack[::-1, ..., ::-1],
          'focus': focus,
          'fov': np.ones_like(focus),
          'target': np.where(valid, disparity, np.float32(0)),
          'valid': valid.astype(np.float32),
          'name': f'{name}_{index:05d}',
        }


def official_splits(manual_dir: Path) -> dict[str, OfficialSplit]:
  """Checks all but the pixels of the official files and returns the splits that they hold.

  Args:
    manual_dir: folder with `ddff-dataset-trainval.h5` and, for the split `test`, `ddff-dataset-test.h5`.

  Raises:
    InputError: the first file is missing, or either is damaged or is not laid out as stated above.
  """
  with _open(manual_dir / TRAINVAL_FILE) as file:
    splits = {name: _check_split(file, name, ('n', NUM_FRAMES, 'h', 'w', 3)) for name in ('train', 'val')}
  if (manual_dir / TEST_FILE).exists():
    with _open(manual_dir / TEST_FILE) as file:
      splits['test'] = _check_split(file, 'test', ('n', NUM_FRAMES, 383, 552, 3), hidden=True)
  return splits


class Builder(StackBuilder):
  """TFDS builder of `ddff12`. The module states splits, units and protocol."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS wants it)
    Config(
      name='official',
      description='The files of the benchmark: crops for training, full frames with hidden depth for the test.',
      find_splits=official_splits,
      optional={'test': TEST_FILE},
    ),
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'{TRAINVAL_FILE} (12.6 GB) and {TEST_FILE} (0.8 GB) from {HOMEPAGE}'

  def _info(self) -> StackInfo:
    return StackInfo(
      builder=self,
      description=__doc__,
      features=stack_features(NUM_FRAMES),
      homepage=HOMEPAGE,
      citation=CITATION,
      license='CC BY 4.0, https://creativecommons.org/licenses/by/4.0/',
      disable_shuffling=True,  # a submission needs the order of the test file, and a reader shuffles by itself
    )


def _check_split(file: h5py.File, name: str, stack_shape: tuple[int | str, ...], hidden: bool = False) -> OfficialSplit:
  """Checks the stacks of a split and, unless the depth is `hidden`, that the disparities fit them."""
  stack_key, disparity_key = f'stack_{name}', None if hidden else f'disp_{name}'
  shape = _check_array(file, stack_key, stack_shape, np.uint8)
  if disparity_key:
    _check_array(file, disparity_key, (shape[0], *shape[2:4]), np.float64, why=f', because {stack_key} is {shape}')
  return OfficialSplit(Path(file.filename), stack_key, disparity_key, shape)


def _check_array(
  file: h5py.File, key: str, shape: tuple[int | str, ...], dtype: type[np.generic], why: str = ''
) -> tuple[int, ...]:
  """The shape of array `key`; InputError unless it fits `shape`, where letters are any length but 0, and `dtype`."""
  expected = f'({", ".join(map(str, shape))}) {np.dtype(dtype)}{why}'
  array = file.get(key)
  if not isinstance(array, h5py.Dataset):
    raise InputError(f'{file.filename}: {key} is missing, found {", ".join(file) or "no keys"}, expected {expected}')
  lengths_fit = len(array.shape) == len(shape) and all(
    found > 0 if isinstance(wanted, str) else found == wanted for found, wanted in zip(array.shape, shape, strict=True)
  )
  if not lengths_fit or array.dtype != dtype:
    raise InputError(f'{file.filename}: {key} is {array.shape} {array.dtype}, expected {expected}')
  return array.shape


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
  """Opens an HDF5 file for reading; InputError if it is missing or not a complete HDF5 file."""
  if not path.is_file():
    raise InputError(f'{path}: found no such file, expected the one from {HOMEPAGE}')
  try:
    file = h5py.File(path, 'r')
  except OSError as error:
    raise InputError(f'{path}: found a file that cannot be read ({_one_line(error)}), expected HDF5') from error
  with file:
    yield file


def _read(file: h5py.File, key: str, index: int) -> np.ndarray:
  """One example of an array; InputError if its bytes are damaged."""
  try:
    return file[key][index]
  except OSError as error:
    raise InputError(
      f'{file.filename}: found {key}[{index}] damaged ({_one_line(error)}), expected an intact file'
    ) from error


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())
