"""Mobile Depth from the unpacked archives to what a reader gets: bit by bit, and nothing left where it goes wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.folder import read_stack_folder
from focal_jax.errors import InputError
from tfds_ddff import load
from tfds_ddff.build import build, draw_contact_sheet

CALIBRATION = 'calibrated.txt'

# Scene: its folders, height and width, and the number and focus distance of each frame, far to near.
SCENES = {
  'balls': ('Figure5/balls', 'balls', (6, 8), {'00': np.inf, '01': 50.0, '02': 10.0}),
  'keyboard': ('Figure1/keyboard', 'keyboard', (8, 6), {'01': 50.0, '00': 20.0, '02': 20.0, '03': 10.0}),
  'metals': ('Figure7/metals', 'metal', (6, 8), {'00': 30.0, '01': 20.0, '02': 4.5}),
  'plants': ('Figure7/plants', 'plants', (6, 8), {'8': 9e6, '9': 90.0, '10': 9.0, '11': 8.0}),
  'smallmotion': ('Figure6/smallmotion', 'GTSmall', (6, 8), {'02': 60.0, '01': 50.0, '00': 40.0}),
}
FOCAL_LENGTH = 0.4


@pytest.fixture
def official(tmp_path: Path) -> Path:
  """Both archives unpacked in one folder: five calibrated scenes, one without calibration, and files of no interest."""
  rng = np.random.default_rng(0)
  folder = tmp_path / 'official'
  root = folder / 'depth_from_focus_data2'

  def write_frame(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)

  for scene, (place, calibration, size, frames) in SCENES.items():
    for number in frames:
      write_frame(root / place / f'{number}.jpg', size)
      write_frame(folder / 'Aligned' / place / f'a{number}.jpg', size)
      write_frame(folder / 'Aligned' / place / f'{number}.jpg', (2, 2))
    write_frame(root / place / 'result.jpg', (2, 2))
    rows = [f'{frames[number]} 0.2' for number in sorted(frames, key=int)]
    if scene == 'metals':
      rows.reverse()
    (root / 'calibration' / calibration).mkdir(parents=True)
    (root / 'calibration' / calibration / CALIBRATION).write_text('\n'.join([*rows, f'{FOCAL_LENGTH}', '']))
  for parent in (root, folder / 'Aligned'):
    write_frame(parent / 'Figure3' / 'kitchen' / '00.jpg', (6, 8))
    write_frame(parent / 'Figure1' / 'figure.jpg', (6, 8))
  return folder


@pytest.mark.parametrize('config', ['unaligned', 'aligned'])
def test_examples_are_the_files_bit_by_bit(config: str, official: Path, tmp_path: Path):
  before = {path: path.read_bytes() for path in official.rglob('*') if path.is_file()}
  assert build(f'mobile_depth/{config}', official, tmp_path / 'data') == {'test': len(SCENES)}
  assert {path: path.read_bytes() for path in official.rglob('*') if path.is_file()} == before
  source = load(f'mobile_depth/{config}', 'test', tmp_path / 'data')
  assert [example['name'].decode() for example in source] == list(SCENES)
  for example, (place, _, size, frames) in zip(source, SCENES.values(), strict=True):
    assert (example['images'].dtype, example['images'].shape) == (np.uint8, (len(frames), *size, 3))
    for n, (number, distance) in enumerate(frames.items()):
      path = {
        'unaligned': official / 'depth_from_focus_data2' / place / f'{number}.jpg',
        'aligned': official / 'Aligned' / place / f'a{number}.jpg',
      }[config]
      with Image.open(path) as image:
        np.testing.assert_array_equal(example['images'][n], np.asarray(image))
      assert example['focus'][n] == np.float32(1 / distance)
    for key in ('focus', 'fov', 'motion', 'target', 'valid'):
      assert example[key].dtype == np.float32
    if config == 'aligned':
      np.testing.assert_array_equal(example['fov'], np.ones(len(frames)))
      np.testing.assert_array_equal(example['motion'], np.zeros((len(frames), 3)))
    else:
      # Proportional to 1 / image distance, so largest for the farthest frame.
      inverse_v = [1 / FOCAL_LENGTH - 1 / distance for distance in frames.values()]
      np.testing.assert_allclose(example['fov'], np.array(inverse_v) / min(inverse_v), rtol=1e-6)
      assert example['fov'].min() == example['fov'][-1] == 1
      assert np.isnan(example['motion']).all()
      assert example['motion'].shape == (len(frames), 3)
    for key in ('target', 'valid'):
      np.testing.assert_array_equal(example[key], np.zeros(size))
    assert example['all_in_focus'].shape == (1, 1, 3)
  assert draw_contact_sheet(f'mobile_depth/{config}', tmp_path / 'data').read_bytes().startswith(b'\x89PNG')


def test_without_the_folder_of_the_archive(official: Path, tmp_path: Path):
  build('mobile_depth', official, tmp_path / 'with')
  for path in (official / 'depth_from_focus_data2').iterdir():
    path.rename(official / path.name)
  build('mobile_depth', official, tmp_path / 'without')
  for a, b in zip(*(load('mobile_depth', 'test', tmp_path / name) for name in ('with', 'without')), strict=True):
    np.testing.assert_equal(a, b)


def test_exif_rotation_is_not_applied(official: Path, tmp_path: Path):
  exif = Image.Exif()
  exif[0x0112] = 6  # orientation: to be turned by a quarter
  for number in SCENES['balls'][3]:
    path = official / 'depth_from_focus_data2' / 'Figure5' / 'balls' / f'{number}.jpg'
    Image.new('RGB', (8, 6)).save(path, exif=exif)
  build('mobile_depth', official, tmp_path / 'data')
  assert load('mobile_depth', 'test', tmp_path / 'data')[0]['images'].shape == (3, 6, 8, 3)


def in_photos(path: str, action):
  return lambda folder: action(folder / 'depth_from_focus_data2' / path)


def calibrate(text: str, calibration: str = 'balls'):
  return in_photos(f'calibration/{calibration}/{CALIBRATION}', lambda path: path.write_text(text))


def write_image(mode: str, size: tuple[int, int]):
  return lambda path: Image.new(mode, size).save(path)


def copy_scene(path: str):
  return in_photos('Figure5/balls', lambda scene: shutil.copytree(scene, scene.parents[1] / path))


def delete_frames(scene: Path) -> None:
  for path in scene.glob('0[12].jpg'):
    path.unlink()


BAD_INPUTS = {
  'no calibration': (
    in_photos('calibration', shutil.rmtree),
    r'official: found no folder calibration, expected it there or in depth_from_focus_data2; from https://www.supasorn',
  ),
  'no scenes': (
    lambda folder: [shutil.rmtree(path) for path in folder.glob('*/Figure*')],
    r'depth_from_focus_data2: found no scenes, expected Figure<k>/<scene> from https://www.supasorn',
  ),
  'unknown scene': (
    copy_scene('Figure5/marbles'),
    r'Figure5/marbles: found an unknown scene, expected one of: balls, .*, zeromotion, bucket, kitchen',
  ),
  'scene twice': (
    copy_scene('Figure6/balls'),
    r'Figure6/balls: found a scene that is also .*Figure5/balls, expected it once',
  ),
  'one frame': (
    in_photos('Figure5/balls', delete_frames),
    r'Figure5/balls: found fewer than two frames, expected 00\.jpg, 01\.jpg and so on',
  ),
  'size': (
    in_photos('Figure5/balls/01.jpg', write_image('RGB', (7, 6))),
    r'balls/01\.jpg: is 6 x 7 pixels, expected 6 x 8 as .*balls/00\.jpg',
  ),
  'grey': (
    in_photos('Figure5/balls/01.jpg', write_image('L', (8, 6))),
    r'balls/01\.jpg: found pixels of format L, expected RGB',
  ),
  'no image': (
    in_photos('Figure5/balls/01.jpg', lambda path: path.write_text('html')),
    r'balls/01\.jpg: found a file that cannot be read \(.*\), expected an image',
  ),
  'damaged image': (
    in_photos('Figure5/balls/01.jpg', lambda path: path.write_bytes(path.read_bytes()[:-50])),
    r'balls/01\.jpg: found a damaged image \(.*\), expected an intact one',
  ),
  'scene not calibrated': (
    in_photos('calibration/metal', shutil.rmtree),
    r'metal/calibrated\.txt: found no such file, expected the one from https://www.supasorn',
  ),
  'rows missing': (
    calibrate('9 1\n8 1\n0.4\n'),
    r'balls/calibrated\.txt: found 3 rows, expected 4: 3 frames in .*Figure5/balls and the focal length',
  ),
  'frame missing': (
    in_photos('Figure5/balls/01.jpg', Path.unlink),
    r'balls/calibrated\.txt: found 4 rows, expected 3: 2 frames in .*Figure5/balls and the focal length',
  ),
  'numbers in a row': (
    calibrate('9 1\n8\n7 1\n0.4\n'),
    r'balls/calibrated\.txt: row 2 is \[8\.0\], expected focus distance and aperture',
  ),
  'no focal length': (
    calibrate('9 1\n8 1\n7 1\n6 1\n'),
    r'balls/calibrated\.txt: row 4 is \[6\.0, 1\.0\], expected the focal length alone',
  ),
  'words': (
    calibrate('9 1\n8 f/2\n7 1\n0.4\n'),
    r"balls/calibrated\.txt: found something that is not a number \(.*'f/2'\), expected only numbers",
  ),
  'empty': (calibrate(''), r'balls/calibrated\.txt: found 0 rows, expected 4'),
  'negative distance': (
    calibrate('9 1\n-8 1\n7 1\n0.4\n'),
    r'balls/calibrated\.txt: focus distance of frame 1 is -8\.0, expected a number above 0',
  ),
  'inside the focal length': (
    calibrate('9 1\n8 1\n0.3 1\n0.4\n'),
    r'balls/calibrated\.txt: focus distance of frame 2 is 0\.3, inside the focal length 0\.4; expected a larger one',
  ),
  'at the focal length': (
    calibrate('9 1\n8 1\n0.40000000001 1\n0.4\n'),
    r'balls/calibrated\.txt: focus distance 0\.40000000001 is close to the focal length 0\.4, expected',
  ),
  'no focal length at all': (
    calibrate('9 1\n8 1\n7 1\nnan\n'),
    r'balls/calibrated\.txt: focal length is nan, expected a finite number above 0',
  ),
}


@pytest.mark.parametrize(('spoil', 'message'), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_named_and_nothing_is_left(spoil, message: str, official: Path, tmp_path: Path):
  spoil(official)
  with pytest.raises(InputError, match=message) as raised:
    build('mobile_depth', official, tmp_path / 'new' / 'data')
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
  ('gone', 'message'),
  [
    ('Aligned', 'official: found no folder Aligned, expected it there or in depth_from_focus_data2'),
    ('Aligned/Figure5/balls/a01.jpg', r'calibrated\.txt: found 4 rows, expected 3: 2 frames in .*Aligned/Figure5'),
  ],
)
def test_bad_input_of_the_aligned_frames(gone: str, message: str, official: Path, tmp_path: Path):
  path = official / gone
  path.unlink() if path.is_file() else shutil.rmtree(path)
  with pytest.raises(InputError, match=message):
    build('mobile_depth/aligned', official, tmp_path / 'data')
  assert not (tmp_path / 'data').exists()


def test_a_real_sweep_is_as_the_folder_reader_has_it(shared: Path, tmp_path: Path):
  stacks = shared / 'data' / 'stacks'
  if not (stacks / 'balls').is_dir():
    pytest.skip('the sweep balls is absent')
  photos, aligned = tmp_path / 'in' / 'Figure5' / 'balls', tmp_path / 'in' / 'Aligned' / 'Figure5' / 'balls'
  calibration = tmp_path / 'in' / 'calibration' / 'balls'
  for folder in (photos, aligned, calibration):
    folder.mkdir(parents=True)
  for path in (stacks / 'balls').glob('*.jpg'):
    (photos / path.name).symlink_to(path)
    (aligned / f'a{path.name}').symlink_to(stacks / 'balls_aligned' / path.name)
  distances = (stacks / 'balls' / 'focus_distance.txt').read_text().split()
  rows = [f'{distance} 0.1' for distance in distances]
  (calibration / CALIBRATION).write_text('\n'.join([*rows, (stacks / 'balls' / 'focal_length.txt').read_text()]))

  for config in ('unaligned', 'aligned'):
    assert build(f'mobile_depth/{config}', tmp_path / 'in', tmp_path / 'data') == {'test': 1}
    assert draw_contact_sheet(f'mobile_depth/{config}', tmp_path / 'data').is_file()
  (unaligned,) = load('mobile_depth', 'test', tmp_path / 'data')
  expected = read_stack_folder(stacks / 'balls')
  np.testing.assert_array_equal(unaligned['images'], expected.images)
  np.testing.assert_array_equal(unaligned['focus'], expected.focus.astype(np.float32))
  np.testing.assert_array_equal(unaligned['fov'], expected.fov.astype(np.float32))
  assert 1.01 < unaligned['fov'][0] < 1.1  # a phone's field of view breathes by some per cent
  (other,) = load('mobile_depth/aligned', 'test', tmp_path / 'data')
  np.testing.assert_array_equal(other['images'], read_stack_folder(stacks / 'balls_aligned').images)
  np.testing.assert_array_equal(other['focus'], unaligned['focus'])
