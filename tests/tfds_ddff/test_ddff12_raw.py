"""DDFF-12's scene-disjoint repacking and its light fields: what comes out, and one clear error for each bad input."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from focal_jax.errors import InputError
from focal_jax.optics import ddff_focus_disparities
from tfds_ddff import load
from tfds_ddff.build import build

HEIGHT, WIDTH = 11, 14
PACKED = 'my_ddff_trainVal.h5'
COUNTS = {'train': 3, 'val': 2}
FOCUS = ddff_focus_disparities()[::-1].astype(np.float32)  # far to near

TRAIN, VAL = ('kitchen', 'seminaroom', 'socialcorner', 'studentlab'), ('glassroom', 'office41')
TEST = ('lockeroom', 'cafeteria', 'library', 'spencerlab', 'office44', 'magistrale')


@pytest.fixture
def packed(tmp_path: Path) -> Path:
  """A folder with a small file in the layout of DFV."""
  rng = np.random.default_rng(0)
  folder = tmp_path / 'packed'
  folder.mkdir()
  with h5py.File(folder / PACKED, 'w') as file:
    for split, count in COUNTS.items():
      file[f'stack_{split}'] = rng.integers(0, 256, (count, 10, HEIGHT, WIDTH, 3)).astype(np.float32)
      file[f'AiF_{split}'] = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3)).astype(np.float32)
      disparity = rng.uniform(-0.1, 0.3, (count, HEIGHT, WIDTH)).clip(0).astype(np.float32)
      disparity[0, 0, :3] = [np.nan, np.inf, -1]
      file[f'disp_{split}'] = disparity
  return folder


def replace(folder: Path, key: str, value: np.ndarray | None) -> None:
  with h5py.File(folder / PACKED, 'r+') as file:
    del file[key]
    if value is not None:
      file[key] = value


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_scene_disjoint_is_the_file_bit_by_bit(dtype: type[np.floating], packed: Path, tmp_path: Path):
  with h5py.File(packed / PACKED) as file:
    disparity = file['disp_val'][:].astype(dtype)
  replace(packed, 'disp_val', disparity)
  assert build('ddff12/scene_disjoint', packed, tmp_path / 'data') == COUNTS
  with h5py.File(packed / PACKED) as file:
    for split, count in COUNTS.items():
      source = load('ddff12/scene_disjoint', split, tmp_path / 'data')
      assert len(source) == count
      for index in range(count):
        example = source[index]
        assert example['name'] == f'{split}_{index:05d}'.encode()
        assert example['images'].dtype == example['all_in_focus'].dtype == np.uint8
        for n in range(10):
          np.testing.assert_array_equal(example['images'][n], file[f'stack_{split}'][index, 9 - n])
        np.testing.assert_array_equal(example['all_in_focus'], file[f'AiF_{split}'][index])
        disparity = file[f'disp_{split}'][index]
        known = np.isfinite(disparity) & (disparity > 0)
        np.testing.assert_array_equal(example['target'], np.where(known, disparity, 0).astype(np.float32))
        np.testing.assert_array_equal(example['valid'], known)
        np.testing.assert_array_equal(example['focus'], FOCUS)
        assert not example['motion'].any()


PACKED_ERRORS = {
  'no file': (lambda folder: (folder / PACKED).unlink(), rf'{PACKED}: found no such file, expected .*github.com/fuy34'),
  'no key': (
    lambda folder: replace(folder, 'AiF_val', None),
    r'AiF_val is missing, .* expected \(2, 11, 14, 3\) float32',
  ),
  'no disparity': (lambda folder: replace(folder, 'disp_val', None), r'disp_val is missing, .* expected \(2, 11, 14\)'),
  'stack dtype': (
    lambda folder: replace(folder, 'stack_train', np.zeros((3, 10, HEIGHT, WIDTH, 3), np.uint8)),
    r'stack_train is \(3, 10, 11, 14, 3\) uint8, expected \(n, 10, h, w, 3\) float32',
  ),
  'disparity dtype': (
    lambda folder: replace(folder, 'disp_val', np.zeros((2, HEIGHT, WIDTH), int)),
    r'disp_val is \(2, 11, 14\) int64, expected \(2, 11, 14\) floating, because stack_val is',
  ),
  'count': (
    lambda folder: replace(folder, 'AiF_train', np.zeros((2, HEIGHT, WIDTH, 3), np.float32)),
    r'AiF_train is \(2, 11, 14, 3\) float32, expected \(3, 11, 14, 3\) float32, because stack_train is',
  ),
  'range of the frames': (
    lambda folder: replace(folder, 'stack_val', np.full((2, 10, HEIGHT, WIDTH, 3), 256, np.float32)),
    rf'{PACKED}: stack_val\[0\]: values range from 256.0 to 256.0, expected 0 to 255',
  ),
  'range of the all-in-focus picture': (
    lambda folder: replace(folder, 'AiF_val', np.full((2, HEIGHT, WIDTH, 3), np.nan, np.float32)),
    rf'{PACKED}: AiF_val\[0\]: values range from nan to nan, expected 0 to 255',
  ),
}


def assert_refused(config: str, folder: Path, data_dir: Path, message: str) -> None:
  with pytest.raises(InputError, match=message) as raised:
    build(config, folder, data_dir)
  assert '\n' not in str(raised.value)
  assert not data_dir.exists()


@pytest.mark.parametrize(('spoil', 'message'), PACKED_ERRORS.values(), ids=PACKED_ERRORS)
def test_a_bad_repacking_is_named_and_nothing_is_left(spoil, message: str, packed: Path, tmp_path: Path):
  spoil(packed)
  assert_refused('ddff12/scene_disjoint', packed, tmp_path / 'data', message)


def write_scenes(folder: Path, scenes: tuple[str, ...], split: str, counts: dict[str, int]) -> None:
  """Light fields of a scene each (two where `counts` says so), and depth unless it is the test."""
  rng = np.random.default_rng(1)
  for scene in scenes:
    for number in range(1, counts.get(scene, 1) + 1):
      path = folder / 'LightField' / split / scene / f'LF_{number:04d}.npy'
      path.parent.mkdir(parents=True, exist_ok=True)
      np.save(path, rng.integers(0, 256, (9, 9, HEIGHT, WIDTH, 3), np.uint8))
      if split == 'train':
        depth = rng.integers(300, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
        depth[0, :3] = [0, 1, 65535]
        path = folder / 'DepthRegistered' / split / scene / f'DEPTH_{number:04d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(depth).save(path)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
  """A folder with small light fields of every train and val scene, two of the seminar room."""
  folder = tmp_path / 'raw'
  write_scenes(folder, TRAIN + VAL, 'train', {'seminaroom': 2})
  return folder


def recipe(light_field: np.ndarray) -> np.ndarray:
  """[10, H, W, 3] grey levels, far to near, by the published recipe."""
  frames = []
  for d in ddff_focus_disparities()[::-1]:
    mean = np.zeros(light_field.shape[2:])
    for u in range(9):
      for v in range(9):
        rows, columns = np.fft.fftfreq(HEIGHT)[:, None, None], np.fft.fftfreq(WIDTH)[:, None]
        phase = np.exp(2j * np.pi * ((4 - u) * d * rows + (4 - v) * d * columns))
        spectrum = np.fft.fft2(light_field[u, v] / 255, axes=(0, 1))
        mean += np.clip(np.abs(np.fft.ifft2(spectrum * phase, axes=(0, 1))), 0, 1) / 81
    frames.append((mean * 255).astype(np.uint8))
  return np.stack(frames)


def assert_refocused(folder: Path, data_dir: Path, split: str, names: list[str]) -> None:
  source = load('ddff12/raw', split, data_dir)
  assert [example['name'].decode() for example in source] == names
  for example in source:
    scene, number = example['name'].decode().split('_')
    subfolder = 'test' if split == 'test' else 'train'
    light_field = np.load(folder / 'LightField' / subfolder / scene / f'LF_{number}.npy')
    assert np.abs(example['images'].astype(int) - recipe(light_field)).max() <= 1
    np.testing.assert_array_equal(example['all_in_focus'], light_field[4, 4])
    np.testing.assert_array_equal(example['focus'], FOCUS)
    assert not example['motion'].any()
    if split == 'test':
      assert not example['target'].any()
      assert not example['valid'].any()
      continue
    depth = np.array(Image.open(folder / 'DepthRegistered' / 'train' / scene / f'DEPTH_{number}.png'))
    for row in range(HEIGHT):
      for column in range(WIDTH):
        metres = int(depth[row, column]) / 1000
        assert example['valid'][row, column] == (metres > 0)
        expected = 0.14123756581733507 / metres if metres else 0
        assert example['target'][row, column] == pytest.approx(expected, rel=1e-6)


def test_light_fields_are_refocused(raw: Path, tmp_path: Path, capsys):
  assert build('ddff12/raw', raw, tmp_path / 'data') == {'train': 5, 'val': 2}
  printed = capsys.readouterr().out
  assert f"{raw / 'LightField' / 'test' / 'lockeroom'}: missing, so the build has no split 'test'" in printed
  assert "'train'" not in printed
  names = ['kitchen_0001', 'seminaroom_0001', 'seminaroom_0002', 'socialcorner_0001', 'studentlab_0001']
  assert_refocused(raw, tmp_path / 'data', 'train', names)
  assert_refocused(raw, tmp_path / 'data', 'val', ['glassroom_0001', 'office41_0001'])


def test_light_fields_of_the_test_have_no_depth_and_may_be_all_there_are(tmp_path: Path, capsys):
  write_scenes(tmp_path / 'raw', TEST, 'test', {})
  assert build('ddff12/raw', tmp_path / 'raw', tmp_path / 'data') == {'test': 6}
  assert "no split 'train'" in capsys.readouterr().out
  assert_refocused(tmp_path / 'raw', tmp_path / 'data', 'test', [f'{scene}_0001' for scene in TEST])


def light_field(folder: Path, scene: str = 'kitchen', number: int = 1) -> Path:
  return folder / 'LightField' / 'train' / scene / f'LF_{number:04d}.npy'


def depth(folder: Path, scene: str = 'kitchen', number: int = 1) -> Path:
  return folder / 'DepthRegistered' / 'train' / scene / f'DEPTH_{number:04d}.png'


def cut(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-100])


RAW_ERRORS = {
  'nothing': (
    lambda folder: shutil.rmtree(folder / 'LightField'),
    r'raw/LightField: found no scenes, expected those of train, val, test from https',
  ),
  'a scene is missing': (
    lambda folder: shutil.rmtree(light_field(folder, 'studentlab').parent),
    r'train/studentlab: found no such folder, expected every scene of train from',
  ),
  'a scene is unknown': (
    lambda folder: (folder / 'LightField' / 'train' / 'attic').mkdir(),
    r'train/attic: is an unknown scene, expected only glassroom, kitchen, office41,',
  ),
  'a scene of another split': (
    lambda folder: (folder / 'LightField' / 'test' / 'kitchen').mkdir(parents=True),
    r'test/kitchen: is an unknown scene, expected only cafeteria',
  ),
  'an empty scene': (
    lambda folder: light_field(folder, 'office41').unlink(),
    r'office41/LF_0001.npy: found no such file',
  ),
  'a gap': (
    lambda folder: light_field(folder, 'seminaroom', 2).rename(light_field(folder, 'seminaroom', 3)),
    r'seminaroom/LF_0002\.npy: found no such file',
  ),
  'depth without a light field': (
    lambda folder: light_field(folder, 'seminaroom', 2).unlink(),
    r'seminaroom/LF_0002\.npy: found no such file',
  ),
  'a light field without depth': (
    lambda folder: depth(folder, 'seminaroom', 2).unlink(),
    r'seminaroom/DEPTH_0002\.png: found no such file',
  ),
  'truncated': (
    lambda folder: cut(light_field(folder)),
    r'kitchen/LF_0001\.npy: found a file that cannot be read \(.*\)',
  ),
  'no light field': (
    lambda folder: light_field(folder).write_text('html'),
    r'kitchen/LF_0001\.npy: found a file that cannot be read \(.*\), expected a whole \.npy file',
  ),
  'empty': (
    lambda folder: light_field(folder).write_bytes(b''),
    r'kitchen/LF_0001\.npy: found a file that cannot be read',
  ),
  'views': (
    lambda folder: np.save(light_field(folder), np.zeros((7, 7, HEIGHT, WIDTH, 3), np.uint8)),
    r'kitchen/LF_0001\.npy: is \(7, 7, 11, 14, 3\) uint8, expected \(9, 9, h, w, 3\) uint8',
  ),
  'dtype': (
    lambda folder: np.save(light_field(folder), np.zeros((9, 9, HEIGHT, WIDTH, 3), np.uint16)),
    r'kitchen/LF_0001\.npy: is \(9, 9, 11, 14, 3\) uint16, expected \(9, 9, h, w, 3\) uint8',
  ),
  'size': (
    lambda folder: np.save(light_field(folder, 'studentlab'), np.zeros((9, 9, HEIGHT, 15, 3), np.uint8)),
    r'studentlab/LF_0001\.npy: is 11 x 15 pixels, expected 11 x 14 as .*kitchen/LF_0001\.npy',
  ),
  'size of the depth': (
    lambda folder: Image.fromarray(np.zeros((12, WIDTH), np.uint16)).save(depth(folder)),
    r'kitchen/DEPTH_0001\.png: is 12 x 14 pixels, expected 11 x 14 as .*LF_0001\.npy',
  ),
  'depth of 8 bits': (
    lambda folder: Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(depth(folder)),
    r'kitchen/DEPTH_0001\.png: found pixels of format L, expected I;16 or I',
  ),
  'no depth map': (
    lambda folder: depth(folder).write_text('html'),
    r'kitchen/DEPTH_0001\.png: found a file that cannot be read',
  ),
}


@pytest.mark.parametrize(('spoil', 'message'), RAW_ERRORS.values(), ids=RAW_ERRORS)
def test_bad_light_fields_are_named_before_anything_is_written(spoil, message: str, raw: Path, tmp_path: Path):
  spoil(raw)
  assert_refused('ddff12/raw', raw, tmp_path / 'data', message)


def test_depth_that_shows_its_damage_when_it_is_read_leaves_nothing(raw: Path, tmp_path: Path):
  cut(depth(raw))
  assert_refused('ddff12/raw', raw, tmp_path / 'data', r'kitchen/DEPTH_0001\.png: found a damaged image')
