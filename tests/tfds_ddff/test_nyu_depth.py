"""NYU Depth v2 from the MATLAB file to what a reader gets: bit by bit, and nothing left where a build goes wrong."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from focal_jax.errors import InputError
from tfds_ddff import load
from tfds_ddff.build import build, draw_contact_sheet

FILE = 'nyu_depth_v2_labeled.mat'
COUNT, HEIGHT, WIDTH = 3, 6, 8


@pytest.fixture
def official(tmp_path: Path) -> Path:
  """A folder with a small file in the layout of MATLAB 7.3: HDF5 after 512 bytes, with all axes in reverse."""
  rng = np.random.default_rng(0)
  folder = tmp_path / 'official'
  folder.mkdir()
  depth = rng.uniform(0.7, 10, (COUNT, WIDTH, HEIGHT)).astype(np.float32)
  depth[0, :5, 0] = [np.nan, np.inf, -1, 0, 0.5]  # only the last is a depth
  with h5py.File(folder / FILE, 'w', userblock_size=512) as file:
    file['images'] = rng.integers(0, 256, (COUNT, 3, WIDTH, HEIGHT), np.uint8)
    file['depths'] = depth
    file['labels'] = np.zeros((COUNT, WIDTH, HEIGHT), np.uint16)
  with (folder / FILE).open('r+b') as file:
    file.write(b'MATLAB 7.3 MAT-file')
  return folder


def replace(folder: Path, key: str, value: np.ndarray | None) -> None:
  with h5py.File(folder / FILE, 'r+') as file:
    del file[key]
    if value is not None:
      file[key] = value


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_examples_are_the_file_bit_by_bit(dtype: type, official: Path, tmp_path: Path):
  with h5py.File(official / FILE) as file:
    images, depths = file['images'][:], file['depths'][:].astype(dtype)
  replace(official, 'depths', depths)
  before = (official / FILE).read_bytes()
  assert build('nyu_depth', official, tmp_path / 'data') == {'train': COUNT}
  assert (official / FILE).read_bytes() == before
  source = load('nyu_depth', 'train', tmp_path / 'data')
  assert len(source) == COUNT
  for index, example in enumerate(source):
    assert example['name'] == f'train_{index:05d}'.encode()
    assert (example['images'].dtype, example['images'].shape) == (np.uint8, (1, HEIGHT, WIDTH, 3))
    for key in ('focus', 'fov', 'motion', 'target', 'valid'):
      assert example[key].dtype == np.float32
    for row in range(HEIGHT):
      for column in range(WIDTH):
        np.testing.assert_array_equal(example['images'][0, row, column], images[index, :, column, row])
        depth = depths[index, column, row]
        known = np.isfinite(depth) and depth > 0
        assert example['valid'][row, column] == known
        assert example['target'][row, column] == (depth if known else 0)
    np.testing.assert_array_equal(example['focus'], [np.nan])
    np.testing.assert_array_equal(example['fov'], [1])
    np.testing.assert_array_equal(example['motion'], np.zeros((1, 3)))
    assert example['all_in_focus'].shape == (1, 1, 3)
  np.testing.assert_array_equal(source[0]['valid'][0, :5], [0, 0, 0, 0, 1])
  assert draw_contact_sheet('nyu_depth', tmp_path / 'data').read_bytes().startswith(b'\x89PNG')


def truncate(folder: Path) -> None:
  path = folder / FILE
  path.write_bytes(path.read_bytes()[:-100])


BAD_INPUTS = {
  'no file': (lambda folder: (folder / FILE).unlink(), rf'{FILE}: found no such file, expected .*cs\.nyu\.edu'),
  'truncated': (truncate, rf'{FILE}: found a file that cannot be read \(.*truncated.*\), expected HDF5'),
  'MATLAB 5': (
    lambda folder: (folder / FILE).write_bytes(b'MATLAB 5.0 MAT-file'.ljust(1024)),
    rf'{FILE}: found a file that cannot be read .*, expected HDF5',
  ),
  'no depth': (
    lambda folder: replace(folder, 'depths', None),
    rf'{FILE}: depths is missing, found images, labels, expected \(3, 8, 6\) floating, because images is',
  ),
  'channels last': (
    lambda folder: replace(folder, 'images', np.zeros((3, 6, 8, 3), np.uint8)),
    rf'{FILE}: images is \(3, 6, 8, 3\) uint8, expected \(n, 3, w, h\) uint8',
  ),
  'image dtype': (
    lambda folder: replace(folder, 'images', np.zeros((3, 3, 8, 6), np.float32)),
    rf'{FILE}: images is \(3, 3, 8, 6\) float32, expected \(n, 3, w, h\) uint8',
  ),
  'depth dtype': (
    lambda folder: replace(folder, 'depths', np.zeros((3, 8, 6), np.uint16)),
    rf'{FILE}: depths is \(3, 8, 6\) uint16, expected \(3, 8, 6\) floating',
  ),
  'count': (
    lambda folder: replace(folder, 'depths', np.zeros((2, 8, 6))),
    rf'{FILE}: depths is \(2, 8, 6\) float64, expected \(3, 8, 6\) floating',
  ),
}


@pytest.mark.parametrize(('spoil', 'message'), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_named_and_nothing_is_left(spoil, message: str, official: Path, tmp_path: Path):
  spoil(official)
  with pytest.raises(InputError, match=message) as raised:
    build('nyu_depth', official, tmp_path / 'new' / 'data')
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'new').exists()
