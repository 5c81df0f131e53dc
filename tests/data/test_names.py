"""Names of files: their order, which of them are frames, and how paths are given."""

import dataclasses
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.capture_order import by_time
from focal_jax.data.exif import FrameExif
from focal_jax.data.folder import read_stack_folder
from focal_jax.data.header import FrameFile, FrameHeader
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.data.names import comparable, natural_order, printable
from focal_jax.data.paths import stack_source
from focal_jax.data.series import without_duplicate_formats, without_other_series, without_outlier_frames
from focal_jax.errors import InputError
from focal_jax.prediction.results import aligned_files


def write_images(folder: Path, *names: str) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for n, name in enumerate(names):
    Image.new('RGB', (6, 4), (40 + 5 * n,) * 3).save(folder / name)


@pytest.mark.parametrize(
  'names',
  [
    ['z_-10.png', 'z_-1.5.png', 'z_0.png', 'z_0.10.png', 'z_0.5.png', 'z_10.25.png'],
    ['z-10.png', 'z-5.png', 'z0.png', 'z5.png'],  # a sign, as others have none
    ['IMG-9.png', 'IMG-10.png', 'IMG-11.png'],  # a hyphen, as all have one
    ['2024-05-09.png', '2024-05-10.png', '2024-06-01.png'],
    ['t 12.30.07.png', 't 12.30.59.png', 't 12.31.00.png'],
    ['z_0,5.png', 'z_2.png', 'z_10,25.png'],
    ['\u22121.5um.png', '-1um.png', '0um.png', '+1um.png'],
    ['focus 0.5m.jpg', 'focus 10m.jpg', 'focus infm.jpg'],
    ['1.png', '10.png', 'Infinity.png'],
    ['f_0,3.png', 'f_2.png', 'f_∞.png'],
    ['info 2.png', 'info 10.png'],
    ['image_1_0.5.jpg', 'image_2_0.65.jpg', 'image_10_0.80.jpg'],
    [f'-{n}.jpg' for n in range(1, 13)],  # a counter: all have the hyphen, and it begins at 1
    ['IMG_-001.jpg', 'IMG_-002.jpg', 'IMG_-004.jpg', 'IMG_-005.jpg'],
    ['z_-10.jpg', 'z_-8.jpg', 'z_-6.jpg', 'z_-4.jpg'],
    ['z_-3um.jpg', 'z_-2um.jpg', 'z_-1um.jpg'],
    ['08.jpg', '09.jpg', '0a.jpg', '0b.jpg', '0f.jpg', '10.jpg'],
    ['frame_0x08.png', 'frame_0x0A.png', 'frame_0x0F.png', 'frame_0x10.png'],
    [f'img{n:x}.png' for n in range(8, 18)],
    ['cap_009f_l.png', 'cap_00a0_l.png', 'cap_00a1_l.png'],
    ['1a.jpg', '1b.jpg', '2a.jpg', '2b.jpg', '10a.jpg'],
    ['a9.jpg', 'a10.jpg', 'b1.jpg'],
    [f'{n}{end}.jpg' for n, end in ((1, 'st'), (2, 'nd'), (3, 'rd'), (4, 'th'), (11, 'th'))],
    ['at 11.59.59 AM.png', 'at 12.00.00 PM.png', 'at 12.00.01\u202fPM.png', 'at 1.00.00 PM.png'],
    ['Photo 5-1-24, 12 00 00 AM.jpg', 'Photo 5-1-24, 1 00 00 AM.jpg', 'Photo 5-1-24, 12 00 00 PM.jpg'],
  ],
)
def test_numbers_sort_as_numbers(names):
  assert [path.name for path in natural_order(Path(name) for name in reversed(names))] == names


@pytest.mark.parametrize(
  ('names', 'note'),
  [
    (['-1.png', '-2.png', '-10.png'], None),  # positions, perhaps
    (['-1.png', '-2.png', '-3.png'], 'The hyphens before the numbers in the file names were taken as separators'),
    (['09.png', '0a.png', '0b.png'], 'The numbers in the file names were read as hexadecimal.'),
    (['1.png', '2.png', '3.png'], None),
  ],
)
def test_how_names_count_is_noted(tmp_path, names, note):
  write_images(tmp_path, *names, 'depth.png')
  stack = read_stack_folder(tmp_path)
  order = names[::-1] if '-10.png' in names else names
  assert stack.names == order
  said = [remark for remark in stack.notes if 'numbers in the file names' in remark]
  assert len(said) == bool(note)
  assert not note or said[0].startswith(note)


def test_names_are_shown_and_compared():
  assert printable(os.fsdecode(b'K\xe4fer.jpg')) == 'Käfer.jpg'
  assert printable('Käfer.jpg') == 'Käfer.jpg'
  assert printable('a\nb\x1b[31m.jpg') == 'a\ufffdb\ufffd[31m.jpg'
  assert comparable(unicodedata.normalize('NFD', 'KÄFER.JPG')) == comparable('Käfer.jpg')


@pytest.mark.parametrize(
  ('names', 'focus', 'unit'),
  [
    (['focus_0.5m.jpg', 'focus_2m.jpg', 'focus_inf.jpg'], [0, 0.5, 2], DIOPTRE_UNIT),
    (['focus 50 cm.jpg', 'focus 200 cm.jpg'], [0.5, 2], DIOPTRE_UNIT),
    (['1_dist0,25m.png', '2_dist0,5m.png'], [2, 4], DIOPTRE_UNIT),
    (['f1_0dpt.png', 'f2_2.5dpt.png'], [0, 2.5], DIOPTRE_UNIT),
    (['z=-1.5mm.png', 'z=-1mm.png', 'z=0mm.png'], [-1.5, -1, 0], 'mm'),
    (['ant_-05um_10nm.tif', 'ant_+00um_10nm.tif', 'ant_+05um_10nm.tif'], [-5, 0, 5], 'um'),
    (['z-20um.png', 'z-10um.png', 'z0um.png', 'z5um.png'], [-20, -10, 0, 5], 'um'),
    (['z-5um.png', 'z+0um.png', 'z+5um.png'], [-5, 0, 5], 'um'),
    (['z-5um.png', 'z-6um.png'], [5, 6], 'um'),  # a separator
    (['focus_inf.jpg', 'focus_2m.jpg', 'focus_80cm.jpg', 'focus_200mm.jpg'], [0, 0.5, 1.25, 5], DIOPTRE_UNIT),
    (['z_500nm.png', 'z_1um.png', 'z_0.002mm.png'], [2, 1, 0.5], 'um'),
    (['focus_inf.jpg', 'focus_10ft.jpg', 'focus_12in.jpg'], [0, 1 / 3.048, 1 / 0.3048], DIOPTRE_UNIT),
    (['focus_0D.jpg', 'focus_0.5D.jpg', 'focus_2D.jpg'], [0, 0.5, 2], DIOPTRE_UNIT),
    (['0 diopters.jpg', '1 dioptre.jpg', '2 dioptres.jpg'], [0, 1, 2], DIOPTRE_UNIT),
    (['z-5microns.png', 'z0microns.png', 'z5microns.png'], [-5, 0, 5], 'um'),
    (['scan 1D.jpg', 'scan 2D.jpg', 'scan 3D.jpg'], [0, 1, 2], FRAME_INDEX_UNIT),
    (['focus_50cm.jpg', 'focus_500mm.jpg'], [0, 1], FRAME_INDEX_UNIT),  # the same
    (['50mm_1.jpg', '50mm_2.jpg'], [0, 1], FRAME_INDEX_UNIT),
    (['t1m.jpg', 't2m.jpg'], [0, 1], FRAME_INDEX_UNIT),  # minutes, perhaps
    (['z1um_x1um.png', 'z2um_x2um.png'], [0, 1], FRAME_INDEX_UNIT),
    (['focus_0m.jpg', 'focus_1m.jpg'], [0, 1], FRAME_INDEX_UNIT),
    (['step1_mm.jpg', 'step2_mm.jpg'], [0, 1], FRAME_INDEX_UNIT),
  ],
)
def test_focus_in_names(tmp_path, names, focus, unit):
  write_images(tmp_path, *names)
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.focus, focus)
  assert (stack.focus_unit, stack.order_known) == (unit, unit == DIOPTRE_UNIT)
  assert any('from the series of file names' in note for note in stack.notes) == (unit != FRAME_INDEX_UNIT)


@pytest.mark.parametrize(
  ('names', 'ends'),
  [
    (['image_1_0.5.jpg', 'image_2_0.65.jpg', 'image_3_1.30.jpg'], '0.5 to 1.30'),
    (['0,35.jpg', '0,5.jpg'], '0,35 to 0,5'),
    (['20cm.jpg', '30cm.jpg', '120cm.jpg'], '20cm to 120cm'),
    (['focus_0.2.jpg', 'focus_1.0.jpg', 'focus_inf.jpg'], '0.2 to inf'),
    (['v1.2_001.jpg', 'v1.2_002.jpg'], None),
    (['10.30.58.jpg', '10.30.59.jpg'], None),
    (['1.jpg', '2.jpg'], None),
    (['z0.5um.jpg', 'z1.5um.jpg'], None),
  ],
)
def test_numbers_that_are_not_used_are_noted(tmp_path, names, ends):
  write_images(tmp_path, *names)
  notes = [note for note in read_stack_folder(tmp_path).notes if 'were not used' in note]
  assert len(notes) == (ends is not None)
  assert not ends or f'Numbers in the file names, {ends}, were not used' in notes[0]


SERIES = [f'IMG_{n:04}.jpg' for n in range(1, 7)]


@pytest.mark.parametrize(
  ('names', 'strangers'),
  [
    (SERIES, ['IMG_depthmap.png']),
    (SERIES, ['stacked.jpg']),
    (SERIES, ['2024-05-01 12.00.00 (A,R8,S4).jpg']),
    (SERIES, ['ZS PMax.tif', 'ZS DMap.tif']),
    (SERIES, ['IMG_0001-IMG_0006.jpg']),
    (SERIES, ['IMG_0002 edited.jpg', 'IMG_0005-Edit.jpg']),
    (SERIES, ['IMG_E0003.jpg']),
    (SERIES, ['IMG_0002-2.jpg', 'IMG_0004~2.jpg']),
    (SERIES, ['IMG_0005 2.jpg']),
    (SERIES, ['IMG_0004_HDR.jpg']),
    ([f'PXL_20240501_12000{n}123.jpg' for n in range(5)], ['PXL_20240501_120003123~2.jpg']),
    (
      [f'Image_Z00{n}_CH{c}.tif' for n in range(1, 5) for c in (1, 2)],
      [f'Image_Z00{n}_Overlay.tif' for n in range(1, 5)],
    ),
    ([f'img{n:x}.png' for n in range(8, 18)], []),
    (SERIES, [f'IMG_{n:04}_aligned.tif' for n in range(1, 7)]),
    (SERIES, [f'IMG_{n:04}-Enhanced-NR.jpg' for n in range(1, 7)]),
    ([f'{n}{end}.jpg' for n, end in ((1, 'st'), (2, 'nd'), (3, 'rd'), (4, 'th'), (5, 'th'))], []),
    ([f'IMG_{n}_aligned.tif' for n in range(1, 7)], []),
    ([f'frame{n}{letter}.jpg' for n in (1, 2, 3) for letter in ('', 'b')], []),
    (['far.jpg', 'middle.jpg', 'near.jpg'], ['stacked.jpg']),
    (['focus far.jpg', 'focus near.jpg', 'middle.jpg'], []),
    ([f'focus_{at}m.jpg' for at in ('0.2', '0.5', '1', 'inf')], []),
    ([f'{at}.png' for at in (1, 2, 5, '∞')], []),
    ([f'img_{n}.{suffix}' for n, suffix in enumerate(['jpg', 'JPG', 'jpeg', 'jpg', 'jpe'])], []),
    (['20240501_102030.jpg', '20240501_102031.jpg', '20240501_102031(1).jpg', '20240501_102032.jpg'], []),
    (SERIES, [f'IMG_{n:04}_depth.png' for n in range(1, 7)]),
    (SERIES, [f'confidence_{n:04}.png' for n in range(1, 7)]),
    (SERIES, [f'IMG_{n:04}_small.jpg' for n in range(1, 7)]),
    ([f'small_{n}.jpg' for n in range(4)], []),
    (SERIES, ['IMG_0007.png']),  # the only one of its kind
    (SERIES, ['IMG.jpg']),
    (SERIES, ['IMG_0003 copy.jpg', 'IMG_0004 - Kopie.jpg', 'Screenshot 2024-05-01 120000.png']),
    (['1_infinity.jpg', '2_10m.jpg', '3_3m.jpg', '4_1m.jpg'], []),
    (['1.jpg', '2.jpg'], ['result.jpg']),
    (['照片1.jpg', '照片2.jpg', '照片3.jpg'], ['结果.jpg']),
    # Frames, all of them:
    ([*SERIES, 'DSC_0007.jpg', 'DSC_0008.jpg'], []),
    (['image.jpg', 'image (1).jpg', 'image (2).jpg', 'image (3).jpg'], []),
    (['near.jpg', 'middle.jpg', 'far.jpg'], []),
    (['a.png', 'b.png', 'c.png', 'd.png', 'e.bmp', 'f.png'], []),
    (['1_near.jpg', '2_middle.jpg', '3_far.jpg'], []),
    (['PXL_20240501_120000123.jpg', 'PXL_20240501_120001.MP.jpg', 'PXL_20240501_120002.jpg', 'PXL_1.jpg'], []),
    (['IMG_1_BURST001_COVER.jpg', 'IMG_1_BURST002.jpg', 'IMG_1_BURST003.jpg', 'IMG_1_BURST004.jpg'], []),
    (['frame1a.png', 'frame1b.png', 'frame2.png', 'frame3.png'], []),
    (['focus_stack_1.png', 'focus_stack_2.png', 'focus_stack_3.png'], []),
    (['IMG_20240501_120000.jpg', 'IMG_20240501_120000_1.jpg', 'IMG_20240501_120001(0).jpg'], []),
    (['1.jpg', '2.png', '3.tif', '4.bmp'], []),
    (['z_-1.5um.png', 'z_0.png', 'z_0.5um.png', 'z_1um.png', 'z_10.25um.png'], []),
  ],
)
def test_files_that_do_not_fit_the_series(names, strangers):
  paths = natural_order(Path(name) for name in names + strangers)
  kept, notes = without_other_series(paths, set())
  assert sorted(path.name for path in kept) == sorted(names)
  assert len(notes) == bool(strangers)
  if 0 < len(strangers) <= 4:
    assert all(name in notes[0] for name in strangers)
  assert without_other_series(paths, set(names + strangers))[0] == paths


def test_time_does_not_grow_with_the_square_of_the_number_of_files():
  frames = [Path(f'img{n:04x}.jpg') for n in range(8000)]
  results = [Path(f'img_depth{n:04x}.jpg') for n in range(4000)]
  start = time.process_time()
  kept, _ = without_other_series([*frames, *results], set())
  headers = [FrameHeader(FrameFile(path, path.name), (60, 40), False, False, FrameExif(), 1) for path in kept]
  headers += [dataclasses.replace(headers[0], file=FrameFile(path, path.name), stored_size=(4, 4)) for path in results]
  headers, _ = without_outlier_frames(headers, set())
  assert time.process_time() - start < 4  # the square takes a minute and more
  assert [header.file.path for header in headers] == kept == frames


def test_a_frame_of_another_kind_may_fill_a_gap():
  names = [f'IMG_{n:04}.jpg' for n in (1, 2, 3, 5, 6)]
  kept, notes = without_other_series([Path(name) for name in sorted([*names, 'IMG_0004.tif'])], set())
  assert (len(kept), notes) == (6, [])
  kept, _ = without_other_series([Path(name) for name in [*names, 'IMG_0007.tif']], set())
  assert [path.name for path in kept] == names


def test_two_series_are_noted():
  paths = [Path(f'{name}_{n}.jpg') for name in ('left', 'right') for n in range(4)]
  kept, notes = without_other_series(paths, set())
  assert kept == paths
  assert 'more than one series (left_0.jpg ..., right_0.jpg ...)' in notes[0]


def test_one_photograph_in_two_kinds():
  paths = [Path(f'D{n}{suffix}') for n in range(3) for suffix in ('.JPG', '.tif')]
  kept, notes = without_duplicate_formats(paths, set())
  assert [path.name for path in kept] == ['D0.tif', 'D1.tif', 'D2.tif']
  assert 'D0.JPG, D1.JPG, D2.JPG' in notes[0]
  # A single one was converted.
  kept, _ = without_duplicate_formats([Path('D0.JPG'), Path('D1.JPG'), Path('D1.tif')], set())
  assert [path.name for path in kept] == ['D0.JPG', 'D1.JPG']


@pytest.mark.parametrize('suffix', ['.jpeg', '.JPG', '.jfif'])
def test_one_photograph_in_two_files_of_a_kind(suffix):
  paths = [Path(f'D{n}{end}') for n in range(3) for end in (suffix, '.jpg')] + [Path('D3.jpg')]
  kept, notes = without_duplicate_formats(paths, set())
  assert [path.name for path in kept] == ['D0.jpg', 'D1.jpg', 'D2.jpg', 'D3.jpg']
  assert f'Left out: D0{suffix}, D1{suffix}, D2{suffix}, because' in notes[0]
  assert without_duplicate_formats(paths, {path.name for path in paths}) == (paths, [])


def test_of_as_many_files_of_a_kind_the_larger_ones_are_read(tmp_path):
  for n in range(3):
    (tmp_path / f'D{n}.jpeg').write_bytes(b'reduced')
    (tmp_path / f'D{n}.jpg').write_bytes(b'the original')
  kept, _ = without_duplicate_formats(natural_order(tmp_path.iterdir()), set())
  assert [path.name for path in kept] == ['D0.jpg', 'D1.jpg', 'D2.jpg']


@pytest.mark.parametrize(
  ('names', 'times', 'order', 'note'),
  [
    (['D0001', 'D0002', 'D9998', 'D9999'], [3, 4, 1, 2], [2, 3, 0, 1], 'D9998 is first and D0002 is last'),
    (['D00001', 'D00003', 'D09999'], [2, 2.5, 1], [2, 0, 1], 'wraps around'),
    (['D01', 'D02', 'D98', 'D99'], [5, 5, 4, 4], [2, 3, 0, 1], 'wraps around'),
    (['z0', 'z1', 'z2', 'z3'], [3, 4, 1, 2], None, 'contradicts'),  # begun in the middle
    (['z1', 'z2', 'z3'], [3, 2, 1], None, 'opposite to the order of the names'),
    (['z1', 'z2', 'z3'], [2, 3, 1], None, 'contradicts'),
    (['near', 'middle', 'far'], [2, 3, 1], [2, 0, 1], 'The names have no order'),
    (['a', 'b', 'c'], [2, 3, 1], None, 'contradicts'),
    (['D0001', 'D9999'], [1, 1], None, None),
    (['D0001', 'D9999'], [2, None], None, None),
    (['D0001', 'D9999'], [1, 2], None, None),
    (['D00001', 'D00003', 'D09998', 'D09999'], [None] * 4, [2, 3, 0, 1], 'D09998 was taken as the first frame'),
    (['D0001', 'D0002', 'D9999'], [7, 7, 7], [2, 0, 1], 'and D0002 as the last'),
    (['D0001', 'D0002', 'D9999'], [1, 2, 3], None, None),
    (['D0001', 'D0090', 'D9999'], [None] * 3, None, None),  # no series of photographs
    (['D01', 'D02', 'D99'], [None] * 3, None, None),
    (['P000', 'P002', 'P998', 'P999'], [None] * 4, [2, 3, 0, 1], 'P998 was taken as the first frame'),
    (['P000', 'P002', 'P997', 'P998'], [None] * 4, None, None),
  ],
)
def test_capture_time(names, times, order, note):
  found, notes = by_time([f'{name}.jpg' for name in names], [None if time is None else float(time) for time in times])
  assert found == order
  assert len(notes) == (note is not None)
  assert note is None or note in notes[0].replace('.jpg', '')


class TestPaths:
  def test_commas_are_part_of_a_path_that_exists(self, tmp_path):
    folder = tmp_path / 'Ant, 2024-05 , x'
    write_images(folder, 'a,1.png', 'a,2.png', 'b.png')
    as_absl_cuts = [part.strip() for part in str(folder).split(',')]
    assert stack_source(as_absl_cuts) == str(folder)
    files = [str(folder / name) for name in ('a,1.png', 'b.png', 'a,2.png')]
    assert stack_source([part.strip() for part in ','.join(files).split(',')]) == files
    assert stack_source(['nowhere']) == 'nowhere'
    assert stack_source(['nowhere', 'else']) == ['nowhere', 'else']
    assert stack_source([folder.as_uri().replace(',', '%2C')]) == str(folder)

  def test_patterns(self, tmp_path, monkeypatch):
    write_images(tmp_path, 'f1.png', 'f10.png', 'f2.png', 'f_depth.png', 'other.png')
    (tmp_path / 'f3.txt').write_text('')
    pattern = str(tmp_path / 'f*')
    assert stack_source([pattern]) == pattern
    assert read_stack_folder(pattern).names == ['f1.png', 'f2.png', 'f10.png']
    assert stack_source([str(tmp_path / 'f?.png'), str(tmp_path / 'other.png')]) == [
      str(tmp_path / name) for name in ('f1.png', 'f2.png', 'other.png')
    ]
    with pytest.raises(InputError, match='matches 0 images among 0 files, expected at least two'):
      read_stack_folder(tmp_path / '*.tif')
    write_images(tmp_path / 'with [brackets]', '1.png', '2.png')
    assert len(read_stack_folder(tmp_path / 'with [brackets]').names) == 2
    assert len(read_stack_folder(tmp_path / 'with [brackets]' / '*.png').names) == 2
    assert len(read_stack_folder(tmp_path / '*[[]*' / '*.png').names) == 2
    monkeypatch.setenv('HOME', str(tmp_path))
    assert len(read_stack_folder('~/with [brackets]/*.png').names) == 2

  def test_letters_may_be_composed_in_another_way(self, tmp_path):
    write_images(tmp_path / unicodedata.normalize('NFD', 'Käfer'), '1.png', '2.png')
    assert read_stack_folder(tmp_path / unicodedata.normalize('NFC', 'Käfer')).names == ['1.png', '2.png']

  def test_bytes_that_are_no_utf_8(self, tmp_path):
    for n in (1, 2):
      with open(os.path.join(os.fsencode(tmp_path), b'K\xe4fer%d.png' % n), 'wb') as file:
        Image.new('RGB', (6, 4), (40 * n,) * 3).save(file, 'PNG')
    (tmp_path / 'metadata.csv').write_text('file,focus_dpt\nKäfer1.png,1\nKäfer2.png,2\n')
    stack = read_stack_folder(tmp_path)
    assert stack.names == ['Käfer1.png', 'Käfer2.png']
    np.testing.assert_array_equal(stack.focus, [1, 2])
    assert all(path.exists() for path in stack.paths)

  def test_folder_of_stacks(self, tmp_path):
    for name in ('pos_2', 'pos_10', 'day/pos_1'):
      write_images(tmp_path / name, '1.png', '2.png')
    write_images(tmp_path / 'single', '1.png')
    with pytest.raises(
      InputError, match=r'no images, .*folders with images: pos_2 \(2\), pos_10 \(2\), day/pos_1 \(2\)'
    ):
      read_stack_folder(tmp_path)
    # With an overview or two beside them.
    write_images(tmp_path, 'a.png', 'b.png')
    assert not any('folders' in note for note in read_stack_folder(tmp_path).notes)
    write_images(tmp_path / 'pos_2', '3.png')
    for other in ('@eaDir', 'out/aligned'):
      write_images(tmp_path / other, *(f'{n}.png' for n in range(9)))
    (tmp_path / 'out' / 'summary.json').write_text('{}')
    (note,) = (note for note in read_stack_folder(tmp_path).notes if 'folders' in note)
    assert note.startswith('Not read: the folders with images in it, pos_2 (3), pos_10 (2), day/pos_1 (2); choose')

  @pytest.mark.parametrize('places', ['z{}', 'day/z{}'])
  def test_folders_of_one_frame_each(self, tmp_path, places):
    for n in (2, 10, 1):
      write_images(tmp_path / places.format(n), 'img.png')
    pattern = f'{tmp_path}/{"*/" * (1 + places.count("/"))}*.png'
    with pytest.raises(InputError) as caught:
      read_stack_folder(tmp_path)
    assert f'3 of its folders have one image each: give them as {pattern}' in str(caught.value)
    stack = read_stack_folder(pattern)
    assert stack.names == ['z1/img.png', 'z2/img.png', 'z10/img.png']
    assert len({path.name for path in aligned_files(tmp_path, stack.names)}) == 3
    with pytest.raises(InputError, match='has the same name as'):
      read_stack_folder([*stack.paths, stack.paths[0]])

  def test_a_counter_that_goes_on_in_the_next_folder(self, tmp_path):
    write_images(tmp_path / '100CANON', 'IMG_9998.png', 'IMG_9999.png')
    write_images(tmp_path / '101CANON', 'IMG_0001.png', 'IMG_0002.png')
    names = ['IMG_9998.png', 'IMG_9999.png', 'IMG_0001.png', 'IMG_0002.png']
    assert read_stack_folder(tmp_path / '*' / '*.png').names == names

  def test_folders_and_pipes_named_like_images(self, tmp_path):
    write_images(tmp_path, '1.png', '2.png')
    write_images(tmp_path / '3.png', '3.png')
    os.mkfifo(tmp_path / '4.png')
    stack = read_stack_folder(tmp_path)
    assert stack.names == ['1.png', '2.png']
    assert 'Not read: 3.png, 4.png, which are not files.' in stack.notes


def test_files_that_are_not_read_are_noted(tmp_path):
  for name in ('1.NEF', '2.NEF', '3.nef', 'film.mp4', 'stack.czi'):
    (tmp_path / name).write_bytes(b'x')
  with pytest.raises(InputError, match=r'no images, .*; 3 files of type \.NEF were not read: develop raw files'):
    read_stack_folder(tmp_path)
  write_images(tmp_path, '1.png', '2.png')
  notes = [note for note in read_stack_folder(tmp_path).notes if 'not read' in note]
  assert [note[: note.index(' not')] for note in notes] == [
    '3 files of type .NEF were',
    '1 file of type .czi was',
    '1 file of type .mp4 was',
  ]


def test_files_that_are_on_their_way_are_noted(tmp_path):
  write_images(tmp_path, '1.png', '2.png')
  (tmp_path / '3.png.crdownload').write_bytes(b'')
  (tmp_path / '4.png.part').write_bytes(b'')
  (tmp_path / 'game.zip.part').write_bytes(b'')
  notes = read_stack_folder(tmp_path).notes
  assert 'Not read: 3.png.crdownload, 4.png.part, not downloaded completely.' in notes


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (['1.jpg_large', '2.jpg!d'], r'1\.jpg_large, 2\.jpg!d: images by their content, but with an unknown suffix'),
    (['frame1', 'frame2'], r'frame1, frame2: images by their content, but without a suffix; add one, such as \.jpg'),
    (['._1.jpg', '._2.jpg'], r'\._1\.jpg, \._2\.jpg: files that macOS writes beside the images themselves'),
    (['RAW/1.nef', 'RAW/2.nef'], r'in its folders, 2 files of type \.nef were not read: develop raw files'),
    (['scan.pdf'], r'1 file of type \.pdf was not read: extract its images first'),
  ],
)
def test_images_that_are_there_but_not_found(tmp_path, names, message):
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new('RGB', (6, 4)).save(tmp_path / name, 'PNG')
  with pytest.raises(InputError, match=f'no images, expected at least two .*; {message}'):
    read_stack_folder(tmp_path)


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    (bytes(900), 'it begins with zeros: it was probably not copied or downloaded completely'),
    (b'\0\5\x16\7' + b'x' * 90, 'it is an AppleDouble file, which macOS writes beside the image itself'),
    (b'%PDF-1.4' + b'x' * 90, 'it is a PDF: extract its images first'),
    (b'\0\0\0\x18ftypmp42' + bytes(40), 'it is a video: extract the frames'),
    (b'\0\0\0\x18ftypcrx ' + bytes(40), 'it is a raw file: develop raw files'),
    (b'\xff\xd8\xff\xe0\0\4xx' + b'x' * 90, 'it begins like a JPEG, but is damaged or of a rare kind'),
    (b'nothing known' + b'x' * 90, 'its content is not an image'),
  ],
)
def test_what_a_file_is_instead(tmp_path, data, reason):
  write_images(tmp_path, '1.jpg', '2.jpg', '3.jpg')
  (tmp_path / '4.jpg').write_bytes(data)
  (note,) = (note for note in read_stack_folder(tmp_path).notes if 'Left out' in note)
  assert note.startswith(f'Left out: 4.jpg, which cannot be read as an image ({reason}')


def test_files_of_unknown_types_are_counted(tmp_path):
  for name in ('1.nii', '2.NII', '3.nii', 'notes.txt', '.hidden.nii', 'README'):
    (tmp_path / name).write_bytes(b'x')
  with pytest.raises(InputError, match=r'no images, .*; found files of type \.nii \(3\), \.txt \(1\)$'):
    read_stack_folder(tmp_path)


def test_letters_that_the_locale_lacks(tmp_path):
  write_images(tmp_path / 'Käfer 甲虫', 'Flügel1.png', 'Flügel2.png')
  (tmp_path / 'Käfer 甲虫' / 'metadata.csv').write_text('file,focus_dpt\nflügel1.PNG,1\nFlügel2.png,2\n', 'utf-8')
  program = """
import sys
from pathlib import Path
from focal_jax.command_line import run_program
from focal_jax.data.folder import read_stack_folder
from focal_jax.errors import InputError
from focal_jax.prediction.results import aligned_files

def main(argv):
  for file in aligned_files(Path(argv[2]), read_stack_folder(argv[1]).names):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  print('\\u7532')
  raise InputError(f'{argv[1]}: enough')

run_program(main, 'name')
"""
  done = subprocess.run(
    [sys.executable, '-c', program, tmp_path / 'Käfer 甲虫', tmp_path / '出 ö'],
    env={**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stderr == f'name: error: {tmp_path}/K\\xe4fer \\u7532\\u866b: enough\n'
  assert (done.returncode, done.stdout) == (2, '\\u7532\n')
  assert sorted(path.name for path in (tmp_path / '出 ö' / 'aligned').iterdir()) == ['Flügel1.png', 'Flügel2.png']


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(InputError, match=r'x\.jpg: found no such file'):
    read_stack_folder([tmp_path / 'nowhere' / 'x.jpg', tmp_path / 'nowhere' / 'y.jpg'])


def test_content_that_the_name_hides(tmp_path):
  write_images(tmp_path, '1.jpg')
  (tmp_path / '2.jpg').write_bytes(b'\0\0\0\x1cftypheic' + bytes(40))
  with pytest.raises(InputError, match=r'2\.jpg: cannot be read as an image \(it holds HEIC by its content: install'):
    read_stack_folder(tmp_path)


def test_odd_size_and_odd_kind_are_left_out(tmp_path):
  write_images(tmp_path, *(f'{n}.png' for n in range(4)))
  Image.new('RGB', (12, 8), (90,) * 3).save(tmp_path / '4.png')
  Image.new('L', (6, 4), 90).save(tmp_path / '5.png')
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['0.png', '1.png', '2.png', '3.png']
  assert 'Left out: 4.png, which is 12 x 8 pixels; the others are 6 x 4 pixels.' in stack.notes
  assert 'Left out: 5.png, which is grey; the others are in colour.' in stack.notes
  # Files listed in a sidecar are always used.
  (tmp_path / 'metadata.csv').write_text('file,focus_dpt\n' + ''.join(f'{n}.png,{n}\n' for n in range(6)))
  with pytest.raises(InputError, match=r'4\.png: 12 x 8 pixels, expected 6 x 4'):
    read_stack_folder(tmp_path)


@pytest.mark.parametrize('name', ['tn_{}.png', '{}-300x200.png', '{}_s.png', 'web {}.png'])
def test_reduced_copies_are_left_out(tmp_path, name):
  frames = [f'IMG_{n}.png' for n in range(1, 5)]
  write_images(tmp_path, *frames)
  for n in range(1, 5):
    Image.new('RGB', (3, 2), (90,) * 3).save(tmp_path / name.format(f'IMG_{n}'))
  stack = read_stack_folder(tmp_path)
  assert stack.names == frames
  assert any('which by name and size are reduced copies' in note for note in stack.notes)
  # Larger ones are no copies, nor are those of other names.
  for n in range(1, 5):
    (tmp_path / name.format(f'IMG_{n}')).rename(tmp_path / f'b{n}.png')
  with pytest.raises(InputError, match=r'3 x 2 pixels, expected 6 x 4|6 x 4 pixels, expected 3 x 2'):
    read_stack_folder(tmp_path)


def test_distances_of_the_frames_alone(tmp_path):
  write_images(tmp_path, '1.png', '2.png', '3.png', 'depth.png')
  (tmp_path / 'focus_distance.txt').write_text('3 2 1')
  assert read_stack_folder(tmp_path).names == ['1.png', '2.png', '3.png']
  (tmp_path / 'focus_distance.txt').write_text('4 3 2 1')
  assert read_stack_folder(tmp_path).names == ['1.png', '2.png', '3.png', 'depth.png']
