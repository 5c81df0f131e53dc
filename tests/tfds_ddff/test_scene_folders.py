"""Data sets that come as folders of pictures: from small files in the official layouts to what a reader gets."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from layouts import (
  FLYING_PLANES,
  MIDDLEBURY_PLANES,
  PHONE_CONFIDENCE,
  PHONE_DEPTH,
  PHONE_FRAME,
  PHONE_TEN,
  write_exr,
  write_flyingthings_fs,
  write_fod500,
  write_image,
  write_middlebury_fs,
  write_smartphone,
)
from PIL import Image

from focal_jax.errors import InputError
from tfds_ddff import find, load
from tfds_ddff.build import build, draw_contact_sheet

# Of learntoautofocus-google.github.io, farthest first.
PHONE_MM = (
  3910.92, 2289.27, 1508.71, 1185.83, 935.91, 801.09, 700.37, 605.39, 546.23, 486.87, 447.99, 407.40, 379.91, 350.41,
  329.95, 307.54, 291.72, 274.13, 261.53, 247.35, 237.08, 225.41, 216.88, 207.10, 198.18, 191.60, 183.96, 178.29,
  171.69, 165.57, 160.99, 155.61, 150.59, 146.81, 142.35, 138.98, 134.99, 131.23, 127.69, 124.99, 121.77, 118.73,
  116.40, 113.63, 110.99, 108.47, 106.54, 104.23, 102.01,
)  # fmt: skip


def read(path: Path) -> np.ndarray:
  with Image.open(path) as image:
    return np.array(image)


WRITERS: dict[str, Callable[[Path], None]] = {
  'fod500': write_fod500,
  'flyingthings_fs': write_flyingthings_fs,
  'middlebury_fs': write_middlebury_fs,
  'smartphone': write_smartphone,
}


def assert_example(
  example: dict,
  name: str,
  frames: list[np.ndarray],
  target: np.ndarray,
  valid: np.ndarray,
  all_in_focus: np.ndarray,
  motion: float = 0.0,
) -> None:
  """Everything but `focus` and `fov`; `target` counts where `valid` is not 0."""
  assert set(example) == {'images', 'focus', 'fov', 'motion', 'target', 'valid', 'all_in_focus', 'name'}
  assert example['name'] == name.encode()
  assert (example['images'].dtype, example['images'].shape) == (np.uint8, (len(frames), *frames[0].shape))
  for n, frame in enumerate(frames):
    np.testing.assert_array_equal(example['images'][n], frame)
  assert example['all_in_focus'].dtype == np.uint8
  np.testing.assert_array_equal(example['all_in_focus'], all_in_focus)
  for key in ('focus', 'fov', 'motion', 'target', 'valid'):
    assert example[key].dtype == np.float32
  np.testing.assert_array_equal(example['motion'], np.full((len(frames), 3), motion))
  np.testing.assert_array_equal(example['valid'], np.asarray(valid, np.float32))
  np.testing.assert_array_equal(example['target'], np.where(np.asarray(valid) > 0, target, 0).astype(np.float32))


def each_pixel(function: Callable[..., float], *maps: np.ndarray) -> np.ndarray:
  """[H, W] of a function of Python's numbers."""
  height, width = maps[0].shape
  return np.array([[function(*(float(m[y, x]) for m in maps)) for x in range(width)] for y in range(height)])


def read_channel(path: Path, channel: str) -> np.ndarray:
  return OpenEXR.File(str(path), separate_channels=True).channels()[channel].pixels


NO_PICTURE = np.zeros((1, 1, 3), np.uint8)


def test_fod500(tmp_path: Path):
  write_fod500(tmp_path)
  assert build('fod500', tmp_path, tmp_path / 'data') == {'train': 4, 'test': 2}
  for split, scenes, is_valid in (
    ('train', [0, 1, 2, 3], lambda depth: 0 < depth <= 2.0),
    ('test', [4, 5], lambda depth: 0.1 <= depth <= 1.5),
  ):
    source = load('fod500', split, tmp_path / 'data')
    assert len(source) == len(scenes)
    for index, scene in enumerate(scenes):
      depth = read_channel(tmp_path / f'fs_6/{scene:06d}Dpt.exr', 'R')
      assert depth.dtype == np.float16
      example = source[index]
      frames = [read(tmp_path / f'fs_6/{scene:06d}_0{frame}All.tif') for frame in (4, 3, 2, 1, 0)]
      assert_example(example, f'{scene:06d}', frames, depth, each_pixel(is_valid, depth), NO_PICTURE)
      np.testing.assert_array_equal(example['focus'], np.array([1.5, 0.7, 0.3, 0.15, 0.1], np.float32))
      np.testing.assert_array_equal(example['fov'], np.ones(5))
      known = [[0, 0, 0, 1], [1, 1, 1, 0]] if split == 'train' else [[0, 0, 0, 0], [1, 1, 0, 0]]
      np.testing.assert_array_equal(example['valid'][:2, :4], known)


def assert_disparity_scene(example: dict, name: str, folder: Path, planes: list[float], is_valid: Callable) -> None:
  files = sorted((float(path.stem), path) for path in folder.glob('[0-9]*.png'))
  disparity = read_channel(folder / 'disp.exr', 'Y')
  valid = each_pixel(is_valid, disparity)
  assert_example(example, name, [read(path) for _, path in files], disparity, valid, read(folder / 'AiF.png'))
  np.testing.assert_array_equal(example['focus'], np.linspace(planes[0], planes[-1], 15).astype(np.float32))
  np.testing.assert_array_equal(example['fov'], np.ones(15))
  assert (np.diff(example['images'].mean(axis=(1, 2, 3))) > 0).all()


def test_flyingthings_fs(tmp_path: Path):
  write_flyingthings_fs(tmp_path)
  assert build('flyingthings_fs', tmp_path, tmp_path / 'data') == {'train': 2, 'val': 1}
  for split, scenes in (('train', ['0003', '0007']), ('val', ['0001'])):
    source = load('flyingthings_fs', split, tmp_path / 'data')
    assert len(source) == len(scenes)
    for index, scene in enumerate(scenes):
      folder = tmp_path / 'FlyingThings3D_FS' / split / scene
      example = source[index]
      assert_disparity_scene(example, f'{split}/{scene}', folder, FLYING_PLANES, lambda d: math.isfinite(d) and d > 0)
      np.testing.assert_array_equal(example['valid'][:2, :5], [[0, 0, 0, 0, 1], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize('place', ['', 'focal_stack'], ids=['itself', 'in focal_stack'])
def test_middlebury_fs(place: str, tmp_path: Path):
  write_middlebury_fs(tmp_path)
  if place:
    (tmp_path / 'Middlebury_FS').rename(tmp_path / place)
    (tmp_path / 'Middlebury_FS').mkdir()
    (tmp_path / place).rename(tmp_path / 'Middlebury_FS' / place)
  assert build('middlebury_fs', tmp_path, tmp_path / 'data') == {'test': 3}
  source = load('middlebury_fs', 'test', tmp_path / 'data')
  for index, scene in enumerate(['ArtL', 'Jadeplant', 'Piano']):
    folder = tmp_path / 'Middlebury_FS' / place / scene
    assert_disparity_scene(source[index], scene, folder, MIDDLEBURY_PLANES, lambda d: 10 <= d <= 60)
    np.testing.assert_array_equal(source[index]['valid'][:2, :5], [[0, 0, 0, 0, 0], [1, 0, 1, 0, 0]])


@pytest.mark.parametrize(('config', 'indices'), [('ten_frames', PHONE_TEN), ('all_frames', range(49))])
def test_smartphone(config: str, indices: tuple[int, ...] | range, tmp_path: Path):
  write_smartphone(tmp_path, indices)
  name = f'smartphone/{config}'
  assert build(name, tmp_path, tmp_path / 'data') == {'train': 3, 'test': 1}
  places = {'train': [('train1', 'a'), ('train1', 'b'), ('train3', 'c')], 'test': [('test', 'd')]}
  for split, scenes in places.items():
    source = load(name, split, tmp_path / 'data')
    assert source.focus_unit == '1/m'
    assert len(source) == len(scenes)
    for index, (place, scene) in enumerate(scenes):
      example, folder = source[index], tmp_path / place
      grey = read(folder / PHONE_DEPTH.format(scene=scene))
      grey = grey[..., 2] if grey.ndim == 3 else grey
      confidence = read_channel(folder / PHONE_CONFIDENCE.format(scene=scene), 'V' if scene == 'c' else 'R')
      inverse = each_pixel(lambda g: 1 / (20 / (100 - 99.8 * g / 255)), grey)
      weight = each_pixel(
        lambda z, c: 0 if math.isnan(c) or not 1 / 3.91092 <= z <= 1 / 0.10201 else min(max(c, 0), 1),
        inverse,
        confidence,
      )
      np.testing.assert_allclose(example['target'], np.where(weight > 0, inverse, 0), rtol=1e-6)
      frames = [read(folder / PHONE_FRAME.format(scene=scene, index=n)) for n in indices]
      assert_example(example, f'{place}/{scene}', frames, example['target'], weight, NO_PICTURE, motion=np.nan)
      np.testing.assert_array_equal(example['valid'][0, 2:4], [0, 0])
      np.testing.assert_array_equal(example['valid'][0, :2], [0.5, 0.5])
      focus = [1000 / PHONE_MM[n] for n in indices]
      np.testing.assert_array_equal(example['focus'], np.array(focus, np.float32))
      narrowest = 1 / 0.00444 - 1 / 0.10201
      np.testing.assert_allclose(example['fov'], [(1 / 0.00444 - inverse) / narrowest for inverse in focus], rtol=1e-6)
      assert (np.diff(example['fov']) < 0).all()
      assert example['fov'][-1] == 1


def test_smartphone_without_a_test_folder_and_with_its_first_config_by_default(tmp_path: Path, capsys):
  write_smartphone(tmp_path)
  (tmp_path / 'test').rename(tmp_path / 'later')
  assert build('smartphone', tmp_path, tmp_path / 'data') == {'train': 3}
  assert "test: missing, so the build has no split 'test'" in capsys.readouterr().out
  assert load('smartphone', 'train', tmp_path / 'data')[0]['images'].shape == (10, 7, 5, 3)


@pytest.mark.parametrize('name', WRITERS)
def test_a_contact_sheet_is_drawn_in_the_unit_of_focus(name: str, tmp_path: Path):
  WRITERS[name](tmp_path)
  build(name, tmp_path, tmp_path / 'data')
  assert draw_contact_sheet(name, tmp_path / 'data', examples_per_split=1).read_bytes().startswith(b'\x89PNG')
  assert find(name)[1].focus_unit == {'fod500': 'm', 'smartphone': '1/m'}.get(name, 'px')


def truncate(path: Path) -> None:
  """Only slightly, so that the header stays."""
  path.write_bytes(path.read_bytes()[:-30])


WRONG_SIZE, GREY = np.zeros((6, 9, 3), np.uint8), np.zeros((6, 8), np.uint8)
FS_6, FLYING, MIDDLEBURY = 'fs_6', 'FlyingThings3D_FS', 'Middlebury_FS/ArtL'
CONFIDENCE, DEPTH = f'train1/{PHONE_CONFIDENCE.format(scene="b")}', f'train1/{PHONE_DEPTH.format(scene="b")}'
FRAME = f'train1/{PHONE_FRAME.format(scene="b", index=48)}'

BAD_INPUTS = {
  'fod500': {
    'a missing frame': (lambda f: (f / FS_6 / '000002_03All.tif').unlink(), '000002_03All.tif: found no such file'),
    'a missing depth': (lambda f: (f / FS_6 / '000005Dpt.exr').unlink(), '000005Dpt.exr: found no such file'),
    'a gap': (
      lambda f: [path.unlink() for path in (f / FS_6).glob('000001*')],
      r'000001_04All.tif: found no such file, expected the one from https://github.com/dvl-tum/defocus-net',
    ),
    'a frame after the last scene': (
      lambda f: write_image(f / FS_6 / '000006_04All.tif', WRONG_SIZE),
      '000006_03All.tif: found no such file',
    ),
    'a sixth frame': (
      lambda f: write_image(f / FS_6 / '000001_05All.tif', WRONG_SIZE),
      '000001_05All.tif: found a stray file, expected frames 00 to 04 of a scene',
    ),
    'one scene': (
      lambda f: [path.unlink() for path in (f / FS_6).glob('00000[1-5]*')],
      'fs_6: found one scene, expected at least',
    ),
    'size': (
      lambda f: write_image(f / FS_6 / '000003_00All.tif', WRONG_SIZE),
      '000003_00All.tif: is 6 x 9 pixels, expected 6 x 8 as .*000003_04All.tif',
    ),
    'size of the depth': (
      lambda f: write_exr(f / FS_6 / '000003Dpt.exr', R=np.ones((5, 8), np.float16)),
      '000003Dpt.exr: is 5 x 8 pixels, expected 6 x 8 as',
    ),
    'mode': (
      lambda f: write_image(f / FS_6 / '000003_00All.tif', GREY),
      '000003_00All.tif: found pixels of format L, expected RGB',
    ),
    'channels': (
      lambda f: write_exr(f / FS_6 / '000000Dpt.exr', G=np.ones((6, 8), np.float16), B=np.ones((6, 8), np.float16)),
      '000000Dpt.exr: found channels B, G, expected R',
    ),
    'a truncated frame': (lambda f: truncate(f / FS_6 / '000004_01All.tif'), '000004_01All.tif: found a damaged image'),
    'a truncated depth': (
      lambda f: truncate(f / FS_6 / '000004Dpt.exr'),
      '000004Dpt.exr: found a damaged OpenEXR file',
    ),
    'no folder': (lambda f: (f / FS_6).rename(f / 'fs_7'), 'fs_6/000000_04All.tif: found no such file'),
  },
  'flyingthings_fs': {
    'a missing frame': (
      lambda f: (f / FLYING / 'val/0001/16.4.png').unlink(),
      'val/0001/16.4.png: found no such file, expected',
    ),
    'no depth': (lambda f: (f / FLYING / 'val/0001/disp.exr').unlink(), 'val/0001/disp.exr: found no such file'),
    'no sharp picture': (lambda f: (f / FLYING / 'val/0001/AiF.png').unlink(), '0001/AiF.png: found no such file'),
    'a frame of another plane': (
      lambda f: (f / FLYING / 'val/0001/16.4.png').rename(f / FLYING / 'val/0001/16.5.png'),
      '16.5.png: found a frame at 16.5 px, expected 16.43 px',
    ),
    'no plane at all': (
      lambda f: (f / FLYING / 'val/0001/16.4.png').rename(f / FLYING / 'val/0001/nan.png'),
      'nan.png: found a frame at nan px, expected',
    ),
    'a plane twice': (
      lambda f: write_image(f / FLYING / 'val/0001/16.43.png', WRONG_SIZE),
      '16.43.png: found a second frame at 16.43 px, expected only .*/16.4.png',
    ),
    'a stray picture': (
      lambda f: write_image(f / FLYING / 'train/0003/depth.png', GREY),
      '0003/depth.png: found a stray file, expected AiF',
    ),
    'a stray folder': (
      lambda f: (f / FLYING / 'train/extra').mkdir(),
      'train/extra/10.0.png: found no such file, expected the one from',
    ),
    'size': (
      lambda f: write_image(f / FLYING / 'train/0007/AiF.png', WRONG_SIZE),
      'AiF.png: is 6 x 9 pixels, expected 6 x 8 as',
    ),
    'channels': (
      lambda f: write_exr(f / FLYING / 'train/0007/disp.exr', X=np.ones((6, 8), 'f4'), Y=np.ones((6, 8), 'f4')),
      'disp.exr: found channels X, Y, expected one',
    ),
    'no folder': (lambda f: (f / FLYING / 'val').rename(f / 'val'), 'FlyingThings3D_FS/val: found no such folder'),
    'a truncated depth': (lambda f: truncate(f / FLYING / 'val/0001/disp.exr'), 'disp.exr: found a damaged OpenEXR'),
    'a truncated frame': (lambda f: truncate(f / FLYING / 'val/0001/10.0.png'), '10.0.png: found a damaged image'),
  },
  'middlebury_fs': {
    'mode': (
      lambda f: write_image(f / MIDDLEBURY / 'AiF.png', GREY),
      'AiF.png: found pixels of format L, expected RGB',
    ),
    'size of the depth': (
      lambda f: write_exr(f / MIDDLEBURY / 'disp.exr', Y=np.ones((5, 8), np.float32)),
      'disp.exr: is 5 x 8 pixels',
    ),
    'no folder': (
      lambda f: (f / 'Middlebury_FS').rename(f / 'M'),
      'Middlebury_FS: found no such folder, expected the one from',
    ),
    'no scenes': (
      lambda f: [path.rename(f / path.name) for path in (f / 'Middlebury_FS').iterdir()],
      'Middlebury_FS: found no folders, expected one for each scene',
    ),
  },
  'smartphone': {
    'a missing frame': (lambda f: (f / FRAME).unlink(), '48/result_scaled_image_center.jpg: found no such file'),
    'no depth': (lambda f: (f / DEPTH).unlink(), 'b/result_merged_depth_center.png: found no such file'),
    'no confidence': (lambda f: (f / CONFIDENCE).unlink(), 'b/result_merged_conf_center.exr: found no such file'),
    'depth without images': (
      lambda f: (f / 'test/merged_depth/x').mkdir(),
      'test/merged_depth/x: found a scene without images, expected .*test/scaled_images/x',
    ),
    'confidence without images': (
      lambda f: (f / 'train3/merged_conf/x').mkdir(),
      'train3/merged_conf/x: found a scene without images, expected',
    ),
    'size': (
      lambda f: write_image(f / FRAME, WRONG_SIZE),
      'center.jpg: is 6 x 9 pixels, expected 6 x 8 as .*b/0/result',
    ),
    'size of the depth': (lambda f: write_image(f / DEPTH, WRONG_SIZE), 'depth_center.png: is 6 x 9 pixels, expected'),
    'size of the confidence': (
      lambda f: write_exr(f / CONFIDENCE, R=np.ones((6, 7), np.float32)),
      'conf_center.exr: is 6 x 7 pixels, expected',
    ),
    'mode': (lambda f: write_image(f / FRAME, GREY), 'center.jpg: found pixels of format L, expected RGB'),
    'mode of the depth': (
      lambda f: write_image(f / DEPTH, GREY.astype(np.uint16)),
      'png: found pixels of format I;16, expected L or RGB',
    ),
    'depth in colour': (
      lambda f: write_image(f / DEPTH, np.arange(144, dtype=np.uint8).reshape(6, 8, 3)),
      'b/result_merged_depth_center.png: found different channels, expected grey',
    ),
    'a truncated frame': (
      lambda f: truncate(f / FRAME),
      '48/result_scaled_image_center.jpg: found a damaged image',
    ),
    'a truncated confidence': (lambda f: truncate(f / CONFIDENCE), 'conf_center.exr: found a damaged OpenEXR file'),
    'no folder for training': (
      lambda f: [(f / name).rename(f / f'no_{name}') for name in ('train1', 'train3')],
      'train1: found no such folder, nor any up to train7, expected at least one from https://learntoautofocus',
    ),
    'no folder of depth': (
      lambda f: (f / 'train3/merged_depth').rename(f / 'x'),
      'train3/merged_depth: found no such folder',
    ),
  },
}


@pytest.mark.parametrize(
  ('name', 'case'), [(name, case) for name, cases in BAD_INPUTS.items() for case in cases], ids='{0}'.format
)
def test_bad_input_is_named_and_nothing_is_left(name: str, case: str, tmp_path: Path):
  spoil, message = BAD_INPUTS[name][case]
  files = tmp_path / 'files'
  WRITERS[name](files)
  spoil(files)
  with pytest.raises(InputError, match=message) as raised:
    build(name, files, tmp_path / 'new' / 'data')
  assert str(raised.value).startswith(str(files))
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'new').exists()
