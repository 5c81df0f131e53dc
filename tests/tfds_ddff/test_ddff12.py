"""DDFF-12 from the official files to what a reader gets: bit by bit, and nothing left where a build goes wrong."""

import itertools
import signal
import types
from pathlib import Path

import h5py
import numpy as np
import programs
import pytest
import tensorflow_datasets as tfds
from layouts import DDFF12_TRAINVAL as TRAINVAL
from layouts import write_ddff12
from tensorflow_datasets.core import shuffle

import tfds_ddff.build
from focal_jax.errors import InputError
from focal_jax.optics import ddff_focus_disparities
from tfds_ddff import load, record_file, stack_builder
from tfds_ddff.build import build, draw_contact_sheet

ROOT = Path(__file__).parents[2]
REAL_DATA = ROOT.parent / 'shared' / 'data' / 'ddff12'
TEST = 'ddff-dataset-test.h5'
COUNTS = {'train': 5, 'val': 3}
HEIGHT, WIDTH = 6, 8


@pytest.fixture
def official(tmp_path: Path) -> Path:
  """A folder with a small train and val file in the official layout, some disparities unknown."""
  folder = tmp_path / 'official'
  write_ddff12(folder, COUNTS, (HEIGHT, WIDTH))
  return folder


def write_test_file(folder: Path, shape: tuple[int, ...] = (1, 10, 383, 552, 3)) -> np.ndarray:
  stack = np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint8).reshape(shape)
  with h5py.File(folder / TEST, 'w') as file:
    file['stack_test'] = stack
  return stack


def replace(folder: Path, key: str, value: np.ndarray | None) -> None:
  with h5py.File(folder / TRAINVAL, 'r+') as file:
    del file[key]
    if value is not None:
      file[key] = value


def assert_same_as_files(folder: Path, data_dir: Path, file_name: str, split: str) -> None:
  """Compares every example with loops over the file that know nothing of how the builder swaps axes."""
  source = load('ddff12', split, data_dir)
  with h5py.File(folder / file_name) as file:
    stack = file[f'stack_{split}']
    assert len(source) == len(stack)
    for index in range(len(stack)):
      example = source[index]
      assert set(example) == {'images', 'focus', 'fov', 'motion', 'target', 'valid', 'all_in_focus', 'name'}
      assert example['name'] == f'{split}_{index:05d}'.encode()
      frames = stack[index]
      assert (example['images'].dtype, example['images'].shape) == (np.uint8, frames.shape)
      for n in range(10):
        for red_green_blue in range(3):
          blue_green_red = 2 - red_green_blue
          np.testing.assert_array_equal(example['images'][n, ..., red_green_blue], frames[9 - n, ..., blue_green_red])
      disparity = file[f'disp_{split}'][index] if split != 'test' else np.zeros(frames.shape[1:3])
      known = np.isfinite(disparity) & (disparity > 0)
      for key, expected in (('target', np.where(known, disparity, 0)), ('valid', known)):
        assert example[key].dtype == np.float32
        np.testing.assert_array_equal(example[key], expected.astype(np.float32))
      assert example['focus'].dtype == example['fov'].dtype == np.float32
      np.testing.assert_array_equal(example['focus'], ddff_focus_disparities().astype(np.float32)[::-1])
      np.testing.assert_array_equal(example['fov'], np.ones(10, np.float32))
      np.testing.assert_array_equal(example['motion'], np.zeros((10, 3), np.float32))
      assert example['all_in_focus'].shape == (1, 1, 3)


def test_examples_are_the_files_bit_by_bit(official: Path, tmp_path: Path, capsys):
  write_test_file(official)
  before = {path: path.read_bytes() for path in official.iterdir()}
  data_dir = tmp_path / 'not' / 'there'
  assert build('ddff12', official, data_dir) == COUNTS | {'test': 1}
  assert 'no split' not in capsys.readouterr().out
  for split in COUNTS:
    assert_same_as_files(official, data_dir, TRAINVAL, split)
  assert_same_as_files(official, data_dir, TEST, 'test')
  assert not load('ddff12', 'test', data_dir)[0]['valid'].any()
  np.testing.assert_array_equal(load('ddff12', 'val', data_dir)[0]['valid'][0, :4], [0, 0, 0, 1])
  assert {path: path.read_bytes() for path in official.iterdir()} == before
  assert [path.name for path in data_dir.iterdir()] == ['ddff12']
  assert draw_contact_sheet('ddff12', data_dir).read_bytes().startswith(b'\x89PNG')


def test_a_large_split_is_several_files_in_order_and_is_not_sorted(official: Path, tmp_path: Path, monkeypatch):
  monkeypatch.setattr(stack_builder, 'SHARD_BYTES', 5000)  # an example takes 1824
  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 0)  # TFDS's sorter would now import TensorFlow
  build('ddff12', official, tmp_path / 'data')
  assert sorted(path.name for path in (tmp_path / 'data').rglob('*train*')) == [
    'ddff12-train.array_record-00000-of-00002',
    'ddff12-train.array_record-00001-of-00002',
  ]
  assert_same_as_files(official, tmp_path / 'data', TRAINVAL, 'train')


def test_without_the_test_file_there_is_no_test_split(official: Path, tmp_path: Path, capsys):
  assert build('ddff12/official', official, tmp_path / 'data') == COUNTS
  assert f"{TEST}: missing, so the build has no split 'test'" in capsys.readouterr().out
  with pytest.raises(InputError, match=r"no split 'test', expected train, val; .*tfds_ddff\.build.*--overwrite"):
    load('ddff12', 'test', tmp_path / 'data')


def test_load_takes_parts_and_sums_of_splits(official: Path, tmp_path: Path):
  build('ddff12', official, tmp_path)
  assert [example['name'] for example in load('ddff12', 'train[1:2]+val[2:]', tmp_path)] == [
    b'train_00001',
    b'val_00002',
  ]


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('ddff12', 'found no data set, expected ddff12; build it with: python -m tfds_ddff.build --dataset=ddff12'),
    ('ddff13', "data set 'ddff13' is unknown, expected one of: ddff12"),
    ('ddff12/x', "data set 'ddff12/x' is unknown, expected ddff12/ and one of: official"),
  ],
)
def test_load_says_what_is_missing(name: str, message: str, tmp_path: Path):
  with pytest.raises(InputError, match=message):
    load(name, 'train', tmp_path)


def test_load_reads_what_tfds_reads(official: Path, tmp_path: Path, monkeypatch):
  """TFDS's own reader and decoder agree with ours, which also works where files are not as expected."""
  build('ddff12', official, tmp_path)
  reference = tfds.builder_from_directory(tfds_ddff.built_folder('ddff12', tmp_path)).as_data_source('train')
  ours = load('ddff12', 'train', tmp_path)
  monkeypatch.setattr(record_file, 'ONE_RECORD', -1)
  fallback = load('ddff12', 'train', tmp_path)
  assert type(ours.records) is not type(fallback.records)
  for examples in zip(reference, ours, fallback, strict=True):
    for other in examples[1:]:
      assert set(other) == set(examples[0])
      for name, expected in examples[0].items():
        np.testing.assert_array_equal(other[name], expected, strict=True)
  with pytest.raises(IndexError):
    ours[len(ours)]
  with pytest.raises(ValueError, match='read-only'):
    ours[0]['images'][0] = 0


def test_a_data_set_with_a_missing_file(official: Path, tmp_path: Path):
  build('ddff12', official, tmp_path)
  next(tmp_path.rglob('*train.array_record*')).unlink()
  with pytest.raises(InputError, match=r'2\.0\.0: cannot be read \(.*train.*\), expected a complete data set'):
    load('ddff12', 'train', tmp_path)


def truncate(folder: Path) -> None:
  path = folder / TRAINVAL
  path.write_bytes(path.read_bytes()[:-100])


def damage_an_example(folder: Path) -> None:
  with h5py.File(folder / TRAINVAL) as file:
    chunk = file['stack_val'].id.get_chunk_info(1)
  with (folder / TRAINVAL).open('r+b') as file:
    file.seek(chunk.byte_offset)
    file.write(bytes(chunk.size))


BAD_INPUTS = {
  'no file': (lambda folder: (folder / TRAINVAL).unlink(), f'{TRAINVAL}: found no such file, expected'),
  'truncated': (truncate, rf'{TRAINVAL}: found a file that cannot be read \(.*truncated.*\), expected HDF5'),
  'no HDF5': (lambda folder: (folder / TEST).write_text('html'), rf'{TEST}: found a file that cannot be read .*HDF5'),
  'damaged': (damage_an_example, rf'{TRAINVAL}: found stack_val\[1\] damaged \(.*\), expected an intact file'),
  'no key': (
    lambda folder: replace(folder, 'disp_val', None),
    rf'{TRAINVAL}: disp_val is missing, found disp_train, stack_train, stack_val, expected \(3, 6, 8\) float64',
  ),
  'frames': (
    lambda folder: replace(folder, 'stack_train', np.zeros((5, 9, 6, 8, 3), np.uint8)),
    rf'{TRAINVAL}: stack_train is \(5, 9, 6, 8, 3\) uint8, expected \(n, 10, h, w, 3\) uint8',
  ),
  'rank': (
    lambda folder: replace(folder, 'stack_train', np.zeros((10, 6, 8, 3), np.uint8)),
    rf'{TRAINVAL}: stack_train is \(10, 6, 8, 3\) uint8, expected \(n, 10, h, w, 3\) uint8',
  ),
  'empty': (
    lambda folder: replace(folder, 'stack_val', np.zeros((0, 10, 6, 8, 3), np.uint8)),
    rf'{TRAINVAL}: stack_val is \(0, 10, 6, 8, 3\) uint8, expected \(n, 10, h, w, 3\) uint8',
  ),
  'stack dtype': (
    lambda folder: replace(folder, 'stack_val', np.zeros((3, 10, 6, 8, 3), np.float32)),
    rf'{TRAINVAL}: stack_val is \(3, 10, 6, 8, 3\) float32, expected \(n, 10, h, w, 3\) uint8',
  ),
  'disparity dtype': (
    lambda folder: replace(folder, 'disp_val', np.zeros((3, 6, 8), np.uint16)),
    rf'{TRAINVAL}: disp_val is \(3, 6, 8\) uint16, expected \(3, 6, 8\) float64',
  ),
  'count': (
    lambda folder: replace(folder, 'disp_train', np.zeros((4, 6, 8))),
    rf'{TRAINVAL}: disp_train is \(4, 6, 8\) float64, expected \(5, 6, 8\) float64, because stack_train is',
  ),
  'size of the test': (
    lambda folder: write_test_file(folder, (1, 10, 224, 224, 3)),
    rf'{TEST}: stack_test is \(1, 10, 224, 224, 3\) uint8, expected \(n, 10, 383, 552, 3\) uint8',
  ),
}


@pytest.mark.parametrize(('spoil', 'message'), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_named_and_nothing_is_left(spoil, message: str, official: Path, tmp_path: Path):
  spoil(official)
  with pytest.raises(InputError, match=message) as raised:
    build('ddff12', official, tmp_path / 'new' / 'data')
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'new').exists()


def test_a_data_dir_that_cannot_be_made(official: Path, tmp_path: Path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'file/data: cannot be written to \(Not a directory\)'):
    build('ddff12', official, tmp_path / 'file' / 'data')


def test_a_disk_that_is_full(official: Path, tmp_path: Path, monkeypatch):
  monkeypatch.setattr(tfds_ddff.build.shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=1000))
  with pytest.raises(InputError, match=r'data: found 0\.0 GB free on its disk, expected 0\.0 GB'):
    build('ddff12', official, tmp_path / 'data')
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize('after', [2, 7], ids=['in the first split', 'in the second'])
def test_an_interrupted_build_leaves_nothing(after: int, official: Path, tmp_path: Path):
  asked = itertools.count(1)
  with pytest.raises(KeyboardInterrupt):
    build('ddff12', official, tmp_path / 'new' / 'data', should_stop=lambda: next(asked) == after)
  assert not (tmp_path / 'new').exists()


def test_a_built_data_set_is_replaced_on_request_only_and_only_by_a_complete_one(official: Path, tmp_path: Path):
  build('ddff12', official, tmp_path / 'data')
  with pytest.raises(InputError, match='found a built data set, expected none; pass --overwrite'):
    build('ddff12', official, tmp_path / 'data')

  intact = (official / TRAINVAL).read_bytes()
  damage_an_example(official)
  with pytest.raises(InputError, match='damaged'):
    build('ddff12', official, tmp_path / 'data', overwrite=True)
  (official / TRAINVAL).write_bytes(intact)
  assert_same_as_files(official, tmp_path / 'data', TRAINVAL, 'val')

  with h5py.File(official / TRAINVAL, 'r+') as file:
    file['stack_val'][0] = 7
  build('ddff12', official, tmp_path / 'data', overwrite=True)
  assert_same_as_files(official, tmp_path / 'data', TRAINVAL, 'val')
  assert [path.name for path in (tmp_path / 'data').iterdir()] == ['ddff12']


@pytest.fixture
def command(official: Path, tmp_path: Path, monkeypatch):
  """Runs `main` on the small files with --data_dir=tmp_path/data; the handlers of signals are then as they were."""
  flags = types.SimpleNamespace(dataset='ddff12', manual_dir=official, data_dir=tmp_path / 'data', overwrite=False)
  monkeypatch.setattr(tfds_ddff.build.flags, 'FLAGS', flags)
  handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  yield lambda: tfds_ddff.build.main(['build'])
  for number, handler in handlers.items():
    signal.signal(number, handler)


def test_the_command_reports_bad_input_in_one_line(command, official: Path, tmp_path: Path, capsys):
  truncate(official)
  assert command() == 2
  output = capsys.readouterr()
  assert output.out == ''
  assert output.err.startswith(f'tfds_ddff.build: error: {official / TRAINVAL}: found a file that cannot be read')
  assert output.err.count('\n') == 1
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_nothing_is_left(number: int, command, tmp_path: Path, monkeypatch, capsys):
  class Killed(tfds_ddff.build.tqdm):
    def update(self, n: int = 1):
      super().update(n)
      signal.raise_signal(number)

  monkeypatch.setattr(tfds_ddff.build, 'tqdm', Killed)
  assert command() == 130
  assert capsys.readouterr().err.endswith('tfds_ddff.build: interrupted; no partial data set is left\n')
  assert not (tmp_path / 'data').exists()


def test_the_command_builds_and_load_reads_without_tensorflow(official: Path, tmp_path: Path):
  flags = ['--dataset=ddff12', f'--manual_dir={official}', f'--data_dir={tmp_path / "data"}']
  program = f"""
import sys
import tfds_ddff.build
sys.argv = {['build', *flags]}
try:
  tfds_ddff.build.run()
except SystemExit as exit:
  assert not exit.code, exit.code
assert tfds_ddff.load('ddff12', 'val', {str(tmp_path / 'data')!r})[2]['name'] == b'val_00002'
assert 'tensorflow' not in sys.modules
"""
  result = programs.run('-c', program)
  assert result.returncode == 0, result.stderr
  folder = tmp_path / 'data' / 'ddff12' / 'official' / '2.0.0'
  assert f'{folder}: built\n  train      5 examples\n  val        3 examples\n' in result.stdout
  assert f'{folder / "contact_sheet.png"}: some examples' in result.stdout


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f'{REAL_DATA} is absent')
def test_real_files(tmp_path: Path):
  counts = build('ddff12', REAL_DATA, tmp_path)
  for split in ('train', 'val'):
    assert_same_as_files(REAL_DATA, tmp_path, TRAINVAL, split)
  assert_same_as_files(REAL_DATA, tmp_path, TEST, 'test')
  target = np.stack([example['target'] for example in load('ddff12', 'train', tmp_path)])
  assert len(target) == counts['train']
  assert 0.8 < (target > 0).mean() < 1
  assert target.max() < 0.3  # px, so nearer than half a metre is rare
