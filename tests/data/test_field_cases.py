"""Real folders of users' stacks, if available beside this repository, each with the expected result."""

import numpy as np
import pytest

from focal_jax.data.folder import read_stack_folder
from focal_jax.data.formats import readable_suffixes
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT, POSITION_UNIT
from focal_jax.data.paths import stack_source
from focal_jax.errors import InputError


@pytest.fixture(scope='module')
def cases(shared):
  folder = shared / 'data' / 'field_cases'
  if not folder.is_dir():
    pytest.skip('the field cases are not beside the project')
  return folder


def case(folder, name):
  if not (folder / name).exists():
    pytest.skip(f'{name} is not among the field cases')
  return folder / name


@pytest.mark.parametrize(
  ('name', 'first', 'last', 'note'),
  [
    ('counter_wraps/frames', 'DSC09997.JPG', 'DSC00003.JPG', 'wraps around'),
    ('pcb_depthmap_beside/frames', 'pcb_001.jpg', 'pcb_007.jpg', 'Left out: pcb_depthmap.png'),
    ('stacked_result_in_folder/frames', 'P0000001.JPG', 'P0000006.JPG', 'Left out: stacked.jpg'),
    ('jpeg_beside_tiff/frames', 'DSC00.tif', 'DSC05.tif', 'Left out: DSC00.JPG'),
    ('orientation_flips_180/frames', 'IMG_0001.jpg', 'IMG_0006.jpg', 'EXIF orientation of IMG_0004.jpg'),
    ('multipage_tiff/frames', 'zstack_000.tif', 'zstack_005.tif', 'white was taken as 4095'),
    ('multipage_tiff/frames/zstack.tif', 'zstack_000.tif', 'zstack_005.tif', 'white was taken as 4095'),
    ('multipage_tiff/two_channels', 'c0_000.tif', 'c0_005.tif', 'depth is from c0.tif; not read: c1.tif'),
    ('display_p3/frames', 'IMG_0001.jpg', 'IMG_0006.jpg', 'Colours were converted'),
    ('tiff_rgb_12_in_16/frames', 'z0.tif', 'z5.tif', 'white was taken as 4095'),
    ('tiff_rgb_8_in_16/frames', 'image1.tif', 'image6.tif', 'white was taken as 255'),
    ('all_black/frames', 'IMG_0001.jpg', 'IMG_0004.jpg', 'The frames are dark: their brightest value is 0'),
    ('cjk_names/昆虫标本', '照片1.jpg', '照片6.jpg', None),
    ('dollar_names/cost $5_{ and $x', 'im$_{1$.jpg', 'im$_{6$.jpg', None),
  ],
)
def test_frames(cases, name, first, last, note):
  stack = read_stack_folder(case(cases, name))
  assert (stack.names[0], stack.names[-1], stack.focus_unit) == (first, last, FRAME_INDEX_UNIT)
  assert len(stack.names) == {'pcb_depthmap_beside': 7, 'all_black': 4}.get(name.partition('/')[0], 6)
  assert note is None or any(note in remark for remark in stack.notes)
  assert not stack.order_known


@pytest.mark.parametrize(
  ('name', 'focus', 'unit'),
  [
    ('rpicam_infinity/frames', [0, 1, 2, 4, 6, 8], DIOPTRE_UNIT),
    ('csv_semicolons/frames', [1 / 5, 1 / 2, 1, 2, 1 / 0.3, 5], DIOPTRE_UNIT),
    ('csv_utf16/frames', [1 / 5, 1 / 2, 1, 2, 1 / 0.3, 5], DIOPTRE_UNIT),
    ('nfd_names/frames', [0, 1 / 2, 1, 2, 1 / 0.3, 5], DIOPTRE_UNIT),
    ('z_positions_um/frames', [0, 5, 10, 15, 20, 25], POSITION_UNIT),
  ],
)
def test_focus(cases, name, focus, unit):
  stack = read_stack_folder(case(cases, name))
  np.testing.assert_allclose(stack.focus, focus)
  assert stack.focus_unit == unit
  assert stack.order_known == (unit == DIOPTRE_UNIT)


@pytest.mark.parametrize(
  ('name', 'suffix', 'message'),
  [
    ('heic_only/frames', '.heic', r'6 files of type \.HEIC were not read: install pillow-heif'),
    ('jxl/frames', '.jxl', r'4 files of type \.jxl were not read: install pillow-jxl-plugin'),
    ('raw_arw/frames', '.arw', r'6 files of type \.ARW were not read: develop raw files'),
    ('subfolders/scan', None, r'choose one of the folders with images: pos_001 \(5\), pos_002 \(5\)'),
  ],
)
def test_files_that_are_not_read(cases, name, suffix, message):
  if suffix in readable_suffixes():
    pytest.skip(f'{suffix} is read here')
  with pytest.raises(InputError, match=f'no images, expected at least two .*; {message}'):
    read_stack_folder(case(cases, name))


def test_heic_beside_what_is_read(cases):
  if '.heic' in readable_suffixes():
    pytest.skip('.heic is read here')
  notes = read_stack_folder(case(cases, 'heic_only/mixed')).notes
  assert any('6 files of type .HEIC were not read' in note for note in notes)


def test_avif(cases):
  if '.avif' not in readable_suffixes():
    pytest.skip('Pillow was built without AVIF')
  assert len(read_stack_folder(case(cases, 'avif/frames')).names) == 6


def test_comma(cases):
  folder = str(case(cases, 'comma_in_path') / 'Ant, 2024-05')
  assert stack_source([part.strip() for part in folder.split(',')]) == folder
  assert len(read_stack_folder(folder).names) == 6


def test_white_is_not_black(cases):
  """The stacks of tiff_miniswhite and multipage_tiff show one scene, with other values."""
  upright = read_stack_folder(case(cases, 'multipage_tiff/frames')).images
  inverted = read_stack_folder(case(cases, 'tiff_miniswhite/frames')).images
  np.testing.assert_allclose(upright.astype(int), inverted, atol=3)


def test_real_stacks_are_read_whole(shared):
  for folder in sorted((shared / 'data' / 'stacks').iterdir()):
    files = sorted(path.name for path in folder.glob('*.jpg'))
    if files:
      stack = read_stack_folder(folder, max_side=64)
      assert sorted(stack.names) == files
      assert not any('Left out' in note for note in stack.notes)
