"""RGB-D photographs, from folders in each layout and from a built data set; and errors for anything else."""

import h5py
import numpy as np
import pytest
from PIL import Image

from focal_jax.data.rgbd import open_rgbd
from focal_jax.errors import InputError
from tfds_ddff.build import build

HEIGHT, WIDTH = 4, 6
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
DEPTH_MM = np.arange(1000, 1000 + HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
DEPTH_MM[0, :2] = 0, 65535
DEPTH_M = np.where(DEPTH_MM == 65535, 0, DEPTH_MM).astype(np.float32) / 1000


def write(folder, *names):
  """Colour or depth, by the name."""
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    values = DEPTH_MM if 'depth' in name else RGB
    if path.suffix == '.npy':
      np.save(path, values)
    else:
      Image.fromarray(values).save(path)


def read(folder):
  return open_rgbd(f'folder:{folder}', '')


def check(example, name, lossless=True):
  assert example.keys() == {'rgb', 'depth_m', 'name'}
  assert example['name'] == name
  assert (example['rgb'].dtype, example['depth_m'].dtype) == (np.uint8, np.float32)
  if lossless:
    np.testing.assert_array_equal(example['rgb'], RGB)
  assert example['rgb'].shape == RGB.shape
  np.testing.assert_array_equal(example['depth_m'], DEPTH_M)


def test_pairs_by_name(tmp_path):
  write(tmp_path, 'b.1.color.jpg', 'b.1.depth.png', 'a.color.png', 'a.depth.png', 'c.Color.JPEG', 'c.depth.PNG')
  (tmp_path / 'camera-intrinsics.txt').write_text('585 0 320')
  (tmp_path / '._a.color.png').write_bytes(b'resource fork')
  source = read(tmp_path)
  assert len(source) == 3
  check(source[0], 'a')
  check(source[1], 'b.1', lossless=False)
  before = sorted(tmp_path.iterdir())
  assert [example['rgb'].shape for example in source] == [RGB.shape] * 3
  assert sorted(tmp_path.iterdir()) == before  # nothing is written


def test_one_pair_of_images(tmp_path):
  write(tmp_path / 'room', 'rgb.png', 'depth.png')
  source = read(tmp_path / 'room')
  assert len(source) == 1
  check(source[0], 'room')


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_one_pair_of_arrays(tmp_path, dtype):
  (tmp_path / 'room').mkdir()
  depth = (DEPTH_MM / 1000).astype(dtype)
  depth[0, :2] = np.nan, -1
  np.save(tmp_path / 'room' / 'depth.npy', depth)
  for rgb in (RGB, (RGB / 255).astype(dtype)):
    np.save(tmp_path / 'room' / 'rgb.npy', rgb)
    (example,) = read(tmp_path / 'room')
    check(example, 'room')


@pytest.mark.parametrize(
  ('colours', 'depths', 'names'),
  [
    (['rgb_00050', 'rgb_00100'], ['sync_depth_00050', 'sync_depth_00100'], ['rgb_00050', 'rgb_00100']),
    (['10', '9'], ['depth10', 'depth09'], ['9', '10']),  # by number, not by text
    (['b', 'a'], ['y1', 'x2'], ['a', 'b']),
  ],
)
def test_pairs_in_two_folders(tmp_path, colours, depths, names):
  write(tmp_path, *(f'rgb/{name}.png' for name in colours), *(f'depth/{name}.png' for name in depths))
  source = read(tmp_path)
  assert [example['name'] for example in source] == names
  check(source[0], names[0])


def test_numbers_decide_which_depth_belongs_to_which(tmp_path):
  write(tmp_path, 'rgb/1.png', 'rgb/2.png', 'depth/a2.png', 'depth/b1.png')
  Image.fromarray(np.full_like(DEPTH_MM, 7000)).save(tmp_path / 'depth' / 'a2.png')
  source = read(tmp_path)
  check(source[0], '1')
  np.testing.assert_array_equal(source[1]['depth_m'], 7)


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], 'found no such files, expected one of: .*rgb.png and depth.png'),
    (['picture.png'], 'found no such files'),
    (['a.color.jpg', 'a.depth.png', 'rgb.png', 'depth.png'], r'found a\.color\.jpg and rgb\.png, expected one of'),
    (['a.color.jpg', 'b.depth.png'], r'a\.color\.jpg: found no depth image to match it, expected pairs'),
    (['a.depth.png'], r'a\.depth\.png: found no colour image .*0 colour and 1 depth'),
    (['a.color.jpg', 'a.color.png', 'a.depth.png'], r'a\.color\.png: found the same name or number as a\.color\.jpg'),
    (['rgb.png'], r'rgb\.png: found no depth image'),
    (['depth.npy'], r'depth\.npy: found no colour image'),
    (['rgb/1.png', 'rgb/2.png', 'depth/2.png'], r'1\.png: found no depth image .*2 colour and 1 depth'),
    (['rgb/a.png', 'rgb/b.png', 'depth/a.png'], r'b\.png: found no depth image'),
    (['rgb/1.png', 'rgb/01.png', 'depth/1.png'], r'1\.png: found the same name or number as 01\.png'),
  ],
)
def test_bad_folders(tmp_path, names, message):
  write(tmp_path, *names)
  with pytest.raises(InputError, match=message) as caught:
    read(tmp_path)
  assert '\n' not in str(caught.value)


def test_no_folder(tmp_path):
  with pytest.raises(InputError, match='nowhere: found no such folder, expected one with'):
    read(tmp_path / 'nowhere')


@pytest.mark.parametrize(
  ('name', 'values', 'message'),
  [
    ('depth.png', DEPTH_MM[1:], r'depth\.png: is \(3, 6\) \(height, width\), expected \(4, 6\) as rgb\.png'),
    ('depth.png', DEPTH_MM.astype(np.uint8), r'depth\.png: has pixels of kind L, expected depth in mm of 16 bits'),
    ('depth.png', RGB, r'depth\.png: has pixels of kind RGB, expected depth'),
    ('rgb.png', DEPTH_MM, r'rgb\.png: has pixels of kind I;16, expected colour of 8 bits'),
    ('depth.npy', DEPTH_MM, r'depth\.npy: is \(4, 6\) uint16, expected \(H, W\) floating-point, in metres'),
    ('depth.npy', DEPTH_M[None], r'depth\.npy: is \(1, 4, 6\) float32, expected \(H, W\)'),
    ('depth.npy', DEPTH_M.T, r'depth\.npy: is \(6, 4\) \(height, width\), expected \(4, 6\) as rgb\.npy'),
    ('rgb.npy', RGB.astype(np.float32), r'rgb\.npy: is \(4, 6, 3\) float32 from 1\.0 to 248\.0, expected .* 0 \.\. 1'),
    ('rgb.npy', RGB[..., 0], r'rgb\.npy: is \(4, 6\) uint8 .*expected \(H, W, 3\) uint8'),
    ('rgb.npy', np.array(['a']), r'rgb\.npy: is \(1,\) <U1, expected'),
  ],
)
def test_bad_files(tmp_path, name, values, message):
  suffix = name[-4:]
  write(tmp_path, f'rgb{suffix}', f'depth{suffix}')
  if suffix == '.npy':
    np.save(tmp_path / 'depth.npy', DEPTH_M)
    np.save(tmp_path / name, values)
  else:
    Image.fromarray(values).save(tmp_path / name)
  source = read(tmp_path)
  with pytest.raises(InputError, match=message) as caught:
    source[0]
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['rgb.png', 'depth.png', 'rgb.npy', 'depth.npy'])
def test_damaged_files(tmp_path, name):
  write(tmp_path, f'rgb{name[-4:]}', f'depth{name[-4:]}')
  (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
  with pytest.raises(InputError, match=rf'{name}: cannot be read'):
    read(tmp_path)[0]


def test_a_built_data_set(tmp_path):
  rng = np.random.default_rng(1)
  depth = rng.uniform(0.7, 10, (2, WIDTH, HEIGHT)).astype(np.float32)
  depth[0, 0, 0] = np.nan
  images = rng.integers(0, 256, (2, 3, WIDTH, HEIGHT), np.uint8)
  with h5py.File(tmp_path / 'nyu_depth_v2_labeled.mat', 'w') as file:
    file['images'], file['depths'] = images, depth
  build('nyu_depth', tmp_path, tmp_path / 'data')
  source = open_rgbd('nyu_depth', str(tmp_path / 'data'))
  assert len(source) == 2
  assert source[0].keys() == {'rgb', 'depth_m', 'name'}
  assert source[0]['name'] == 'train_00000'
  np.testing.assert_array_equal(source[1]['rgb'], images[1].T)
  np.testing.assert_array_equal(source[0]['depth_m'], np.nan_to_num(depth[0].T))
  assert source[0]['depth_m'].dtype == np.float32
  assert len(open_rgbd('nyu_depth/labelled', str(tmp_path / 'data'), 'train[:1]')) == 1
  with pytest.raises(InputError, match='found no data set, expected ddff12'):
    open_rgbd('ddff12', str(tmp_path / 'data'))


@pytest.mark.parametrize(
  ('name', 'count', 'shape', 'last', 'farthest_m', 'known'),
  [
    ('7scenes', 50, (480, 640), 'frame-000588', 3.493, 0.892),
    ('nyu', 3, (480, 640), 'rgb_00100', 6.625, 0.733),
    ('motorcycle', 1, (500, 741), 'motorcycle', 5.021, 0.972),
    ('fastdepth_nyu', 1, (224, 224), 'fastdepth_nyu', 5.875, 1.0),
  ],
)
def test_real_files(shared, name, count, shape, last, farthest_m, known):
  folder = shared / 'data' / 'rgbd' / name
  if not folder.is_dir():
    pytest.skip(f'{folder.name}/ is not among the real data')
  source = read(folder)
  assert len(source) == count
  assert source[count - 1]['name'] == last
  example = source[0]
  assert example['rgb'].shape == (*shape, 3)
  assert 60 < example['rgb'].mean() < 190
  assert example['depth_m'].shape == shape
  np.testing.assert_allclose(example['depth_m'].max(), farthest_m, atol=1e-3)
  np.testing.assert_allclose(np.mean(example['depth_m'] > 0), known, atol=1e-3)
