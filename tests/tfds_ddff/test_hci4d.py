"""HCI 4D Light Field from the packed file to what a reader gets: bit by bit, and nothing left where it goes wrong."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts import HCI4D_FILE as FILE
from layouts import HCI4D_FOCUS as FOCUS
from layouts import write_hci4d

from focal_jax.errors import InputError
from tfds_ddff import load
from tfds_ddff.build import build, draw_contact_sheet

COUNTS = {'train': 3, 'val': 2}
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def official(tmp_path: Path) -> Path:
  """A folder with a small file."""
  folder = tmp_path / 'official'
  write_hci4d(folder, COUNTS, (HEIGHT, WIDTH))
  return folder


def replace(folder: Path, key: str, value: np.ndarray | None) -> None:
  with h5py.File(folder / FILE, 'r+') as file:
    del file[key]
    if value is not None:
      file[key] = value


def test_examples_are_the_file_bit_by_bit(official: Path, tmp_path: Path):
  before = (official / FILE).read_bytes()
  assert build('hci4d', official, tmp_path / 'data') == COUNTS
  assert (official / FILE).read_bytes() == before
  for split, count in COUNTS.items():
    source = load('hci4d', split, tmp_path / 'data')
    assert len(source) == count
    with h5py.File(official / FILE) as file:
      for index, example in enumerate(source):
        assert example['name'] == f'{split}_{index:05d}'.encode()
        assert example['images'].dtype == example['all_in_focus'].dtype == np.uint8
        assert example['images'].shape == (10, HEIGHT, WIDTH, 3)
        for n in range(10):
          np.testing.assert_array_equal(example['images'][n], file[f'stack_{split}'][index, n])
        np.testing.assert_allclose(example['all_in_focus'], file[f'AiF_{split}'][index], atol=1e-4)
        for row in range(HEIGHT):
          for column in range(WIDTH):
            disparity = file[f'disp_{split}'][index, row, column]
            known = np.isfinite(disparity) and (split == 'train' or -2.5 <= disparity <= 2.5)
            assert example['valid'][row, column] == known
            assert example['target'][row, column] == (disparity if known else 0)
        for key in ('focus', 'fov', 'motion', 'target', 'valid'):
          assert example[key].dtype == np.float32
        np.testing.assert_array_equal(example['focus'], FOCUS[0])
        np.testing.assert_array_equal(example['fov'], np.ones(10))
        np.testing.assert_array_equal(example['motion'], np.zeros((10, 3)))
  np.testing.assert_array_equal(load('hci4d', 'train', tmp_path / 'data')[0]['valid'][0], [1, 1, 1, 0, 0, 1, 1, 0])
  np.testing.assert_array_equal(load('hci4d', 'val', tmp_path / 'data')[0]['valid'][0], [1, 1, 1, 0, 0, 0, 0, 0])
  assert draw_contact_sheet('hci4d', tmp_path / 'data').read_bytes().startswith(b'\x89PNG')


def test_disparities_and_focus_of_double_precision(official: Path, tmp_path: Path):
  disparity = np.random.default_rng(1).uniform(-2, 2, (2, HEIGHT, WIDTH))
  replace(official, 'disp_val', disparity)
  replace(official, 'focus_position_disp', FOCUS.astype(np.float64))
  build('hci4d', official, tmp_path / 'data')
  for example, expected in zip(load('hci4d', 'val', tmp_path / 'data'), disparity, strict=True):
    np.testing.assert_array_equal(example['target'], expected.astype(np.float32))
    np.testing.assert_array_equal(example['focus'], FOCUS[0])


def truncate(folder: Path) -> None:
  path = folder / FILE
  path.write_bytes(path.read_bytes()[:-100])


def set_value(key: str, place: tuple[int, ...], value: float):
  def spoil(folder: Path) -> None:
    with h5py.File(folder / FILE, 'r+') as file:
      file[key][place] = value

  return spoil


BAD_INPUTS = {
  'no file': (lambda folder: (folder / FILE).unlink(), rf'{FILE}: found no such file, expected .*AiFDepthNet'),
  'truncated': (truncate, rf'{FILE}: found a file that cannot be read \(.*truncated.*\), expected HDF5'),
  'no focus': (
    lambda folder: replace(folder, 'focus_position_disp', None),
    rf'{FILE}: focus_position_disp is missing, found AiF_train, .*, expected \(1, 10\) floating',
  ),
  'number of focus positions': (
    lambda folder: replace(folder, 'focus_position_disp', np.zeros((1, 9))),
    rf'{FILE}: focus_position_disp is \(1, 9\) float64, expected \(1, 10\) floating',
  ),
  'near to far': (
    lambda folder: replace(folder, 'focus_position_disp', FOCUS[:, ::-1]),
    rf'{FILE}: focus_position_disp is 2\.5, 1\.944, .*-2\.5, expected finite numbers, each above the one before',
  ),
  'focus twice': (
    set_value('focus_position_disp', (0, 3), FOCUS[0, 2]),
    rf'{FILE}: focus_position_disp is .*, expected finite numbers, each above the one before',
  ),
  'infinite focus': (
    set_value('focus_position_disp', (0, 9), np.inf),
    rf'{FILE}: focus_position_disp is .*inf, expected finite numbers',
  ),
  'no val': (
    lambda folder: replace(folder, 'stack_val', None),
    rf'{FILE}: stack_val is missing, found .*, expected \(n, 10, h, w, 3\) float32',
  ),
  'frames': (
    lambda folder: replace(folder, 'stack_train', np.zeros((3, 9, 6, 8, 3), np.float32)),
    rf'{FILE}: stack_train is \(3, 9, 6, 8, 3\) float32, expected \(n, 10, h, w, 3\) float32',
  ),
  'stack dtype': (
    lambda folder: replace(folder, 'stack_train', np.zeros((3, 10, 6, 8, 3), np.uint8)),
    rf'{FILE}: stack_train is \(3, 10, 6, 8, 3\) uint8, expected \(n, 10, h, w, 3\) float32',
  ),
  'disparity dtype': (
    lambda folder: replace(folder, 'disp_val', np.zeros((2, 6, 8), np.int32)),
    rf'{FILE}: disp_val is \(2, 6, 8\) int32, expected \(2, 6, 8\) floating, because stack_val is \(2, 10, 6, 8, 3\)',
  ),
  'count': (
    lambda folder: replace(folder, 'disp_train', np.zeros((2, 6, 8))),
    rf'{FILE}: disp_train is \(2, 6, 8\) float64, expected \(3, 6, 8\) floating, because stack_train is',
  ),
  'size': (
    lambda folder: replace(folder, 'AiF_train', np.zeros((3, 8, 6, 3), np.float32)),
    rf'{FILE}: AiF_train is \(3, 8, 6, 3\) float32, expected \(3, 6, 8, 3\) float32, because stack_train is',
  ),
  'too bright': (
    set_value('stack_val', (1, 0, 0, 0, 0), 256),
    rf'{FILE}: stack_val\[1\]: values range from .* to 256.0, expected 0 to 255',
  ),
  'not a number': (
    set_value('AiF_train', (2, 0, 0, 0), np.nan),
    rf'{FILE}: AiF_train\[2\]: values range from nan to nan, expected 0 to 255',
  ),
}


@pytest.mark.parametrize(('spoil', 'message'), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_named_and_nothing_is_left(spoil, message: str, official: Path, tmp_path: Path):
  spoil(official)
  with pytest.raises(InputError, match=message) as raised:
    build('hci4d', official, tmp_path / 'new' / 'data')
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'new').exists()
