"""Small generated folders, and real stacks if available beside this repository."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.folder import read_stack_folder
from focal_jax.data.metadata import FRAME_INDEX_UNIT, INVERSE_DISTANCE_UNIT
from focal_jax.errors import InputError

STACKS = Path(__file__).parents[2].parent / 'shared' / 'data' / 'stacks'
real = pytest.mark.skipif(not STACKS.exists(), reason='the real stacks are not beside this repository')


def write_images(folder: Path, *names: str, size: tuple[int, int] = (6, 4)) -> list[int]:
  """One flat grey image for each name; returns their grey values, by which the frames can be told apart."""
  values = [20 * (n + 1) for n in range(len(names))]
  for name, value in zip(names, values, strict=True):
    Image.new('RGB', size, (value, value, value)).save(folder / name)
  return values


def greys(stack) -> list[int]:
  return stack.images[:, 0, 0, 0].tolist()


def write_metadata(folder: Path, distances: str | None, length: str | None = None) -> None:
  if distances is not None:
    (folder / 'focus_distance.txt').write_text(distances)
  if length is not None:
    (folder / 'focal_length.txt').write_text(length)


def test_without_metadata(tmp_path):
  values = write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  stack = read_stack_folder(tmp_path)
  assert (stack.images.shape, stack.images.dtype) == ((3, 4, 6, 3), np.uint8)
  assert greys(stack) == values
  for field, expected in [(stack.focus, [0, 1, 2]), (stack.fov, [1, 1, 1])]:
    assert field.dtype == np.float64
    np.testing.assert_array_equal(field, expected)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert stack.names == ['a.png', 'b.png', 'c.png']
  (note,) = stack.notes
  assert 'name order was taken as far to near' in note
  with pytest.raises(dataclasses.FrozenInstanceError):
    stack.focus = None


def test_reverse_keeps_the_index_of_the_file(tmp_path):
  values = write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  stack = read_stack_folder(str(tmp_path), reverse=True)
  assert greys(stack) == values[::-1]
  assert stack.names == ['c.png', 'b.png', 'a.png']
  np.testing.assert_array_equal(stack.focus, [2, 1, 0])
  assert 'reversed here' in stack.notes[0]


def test_metadata(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  write_metadata(tmp_path, 'inf\r\n  2.0 0.5\n\n', '\ufeff0.1')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0, 0.5, 2])
  np.testing.assert_allclose(stack.fov, [10 / 8, 9.5 / 8, 1], rtol=1e-6)
  assert stack.fov.dtype == np.float64
  assert stack.focus_unit == INVERSE_DISTANCE_UNIT
  assert stack.notes == ['Focus distances are from focus_distance.txt, the focal length from focal_length.txt.']


@pytest.mark.parametrize(
  ('distances', 'order', 'note'),
  [
    ('4 2 1', [0, 1, 2], None),
    ('1 2 4', [2, 1, 0], 'near to far: the frames were reversed'),
    ('1 2 inf', [2, 1, 0], 'near to far: the frames were reversed'),
    ('2 1 4', [2, 0, 1], 'not in order: the frames were sorted far to near'),
    ('4 2 2', [0, 1, 2], 'b.png and c.png have the same focus distance, 2.'),
    ('1 inf inf', [2, 1, 0], 'c.png and b.png have the same focus distance, inf.'),
    ('1 2 1', [1, 0, 2], 'a.png and c.png have the same focus distance, 1.'),
  ],
)
def test_order(tmp_path, distances, order, note):
  values = write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  write_metadata(tmp_path, distances, '0.05')
  stack = read_stack_folder(tmp_path)
  assert greys(stack) == [values[n] for n in order]
  assert stack.names == [f'{"abc"[n]}.png' for n in order]
  assert np.all(np.diff(stack.focus) >= 0)
  assert np.all(np.diff(stack.fov) <= 0)
  assert stack.notes[0].startswith('Focus distances are from focus_distance.txt')
  assert len(stack.notes) == 1 if note is None else any(note in remark for remark in stack.notes)


def test_reverse_yields_to_distances(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, '2 1', '0.05')
  stack = read_stack_folder(tmp_path, reverse=True)
  assert stack.names == ['a.png', 'b.png']
  assert stack.notes[1] == 'reverse was ignored: focus_distance.txt gives the order.'


def test_distances_only(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, '2 1e-3')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0.5, 1000])
  np.testing.assert_array_equal(stack.fov, [1, 1])
  assert stack.focus_unit == INVERSE_DISTANCE_UNIT
  assert 'No focal length: the field of view was assumed to be constant' in stack.notes[0]


def test_focal_length_only(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, None, '0.05')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0, 1])
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert 'focal_length.txt was ignored' in stack.notes[0]


@pytest.mark.parametrize('unit', [1e-40, 1e-3, 1.0, 1e30])
def test_fov_does_not_depend_on_the_unit(tmp_path, unit):
  write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  write_metadata(tmp_path, f'{1e300} {2 * unit} {0.5 * unit}', f'{0.1 * unit}')
  np.testing.assert_allclose(read_stack_folder(tmp_path).fov, [10 / 8, 9.5 / 8, 1], rtol=1e-6)


@pytest.mark.parametrize(
  ('distances', 'length', 'message'),
  [
    ('2', '0.1', r'focus_distance\.txt: 1 numbers, expected 2'),
    ('4 2 1', '0.1', r'focus_distance\.txt: 3 numbers, expected 2'),
    ('', '0.1', r'focus_distance\.txt: 0 numbers, expected 2'),
    ('2 one', '0.1', r"focus_distance\.txt: number 2 is 'one'"),
    ('2,5,1 1,5', '0.1', r"number 1 is '2,5,1'"),
    ('2 nan', '0.1', r'focus_distance\.txt: .*frame 1 is nan, expected a number above 0'),
    ('2 0', '0.1', r'frame 1 is 0\.0, expected a number above 0'),
    ('-2 1', '0.1', r'frame 0 is -2\.0, expected a number above 0'),
    ('2 -inf', None, r'focus_distance\.txt: .*frame 1 is -inf, expected a number above 0'),
    ('0 inf', None, r'frame 0 is 0\.0, expected a number above 0'),
    ('0 0', None, r': focus_distance\.txt: the position is 0 in every frame, expected a sweep'),
    ('2um 1mm', None, r'focus_distance\.txt: units mm, um, expected one'),
    ('# focus_unit: um\n2 inf', None, r'numbers in um from 2 to inf, expected finite ones'),
    ('# focus_unit: dpt\n2 -1', None, r'numbers in dpt from -1 to 2, expected finite ones of at least 0'),
    ('2 2', None, r': focus_distance\.txt: the focus distance is 2 in every frame, expected a sweep'),
    ('2 0.1', '0.1', r'frame 1 is 0\.1, inside the focal length 0\.1'),
    ('2 0.10000000001', '0.1', r'0\.10000000001 is close to the focal length 0\.1'),
    ('2 1', '', r'focal_length\.txt: 0 numbers, expected 1'),
    ('2 1', '0.1 0.1', r'focal_length\.txt: 2 numbers, expected 1'),
    ('2 1', 'f', r"focal_length\.txt: number 1 is 'f'"),
    ('2 1', '0', r'focal length is 0\.0, expected a finite number above 0'),
    ('2 1', 'inf', r'focal length is inf, expected a finite number above 0'),
    ('2 1', 'nan', r'focal length is nan, expected a finite number above 0'),
  ],
)
def test_bad_metadata(tmp_path, distances, length, message):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, distances, length)
  with pytest.raises(InputError, match=message) as caught:
    read_stack_folder(tmp_path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['focus_distance.txt', 'focal_length.txt'])
def test_metadata_that_is_no_text(tmp_path, name):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, '2 1', '0.1')
  (tmp_path / name).write_bytes(b'2 1\0')
  with pytest.raises(InputError, match=f'{name}: cannot be read as text'):
    read_stack_folder(tmp_path)
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()
  with pytest.raises(InputError, match=f'{name}: cannot be read as text'):
    read_stack_folder(tmp_path)


def test_natural_order(tmp_path):
  names = ['Frame.png', 'frame1.png', 'Frame1b.png', 'frame2.png', 'FRAME010.png', 'frame10b3.png', 'frame10b20.png']
  write_images(tmp_path, *names)
  assert read_stack_folder(tmp_path).names == names


def test_which_files_are_frames(tmp_path):
  names = ['0.jpg', '1.JPEG', '2.png', '3.TIF', '4.tiff', '5.bmp', '6.webp']
  write_images(tmp_path, *names)
  write_images(tmp_path, '.hidden.png', 'ignored.gif')
  (tmp_path / '._0.jpg').write_bytes(b'resource fork')
  (tmp_path / 'readme.txt').write_text('hello')
  (tmp_path / 'folder.jpg').mkdir()
  write_images(tmp_path / 'folder.jpg', 'inside.png')
  os.mkfifo(tmp_path / '7.jpg')  # opening it would block
  assert read_stack_folder(tmp_path).names == names


@pytest.mark.parametrize(
  ('size', 'max_side', 'expected'),
  [
    ((60, 40), None, (60, 40)),
    ((60, 40), 60, (60, 40)),
    ((60, 40), 1000, (60, 40)),
    ((60, 40), 30, (30, 20)),
    ((40, 60), 31, (21, 31)),
    ((60, 2), 10, (10, 1)),
  ],
)
def test_max_side(tmp_path, size, max_side, expected):
  values = write_images(tmp_path, 'a.png', 'b.png', size=size)
  stack = read_stack_folder(tmp_path, max_side=max_side)
  assert stack.images.shape == (2, expected[1], expected[0], 3)
  assert greys(stack) == values


def test_max_side_averages(tmp_path):
  # A chequerboard of single pixels: subsampling would leave only black or white.
  board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
  for name in 'ab':
    Image.fromarray(board).save(tmp_path / f'{name}.png')
  images = read_stack_folder(tmp_path, max_side=8).images.astype(int)
  assert np.all(abs(images - 127) <= 2)


@pytest.mark.parametrize('max_side', [0, -5])
def test_bad_max_side(tmp_path, max_side):
  with pytest.raises(InputError, match=f'max_side is {max_side}, expected at least 1'):
    read_stack_folder(tmp_path, max_side=max_side)


def test_bad_folder(tmp_path):
  with pytest.raises(InputError, match='nowhere: No such file or directory, expected a folder of images'):
    read_stack_folder(tmp_path / 'nowhere')
  with pytest.raises(InputError, match='no images, expected at least two'):
    read_stack_folder(tmp_path)
  write_images(tmp_path, 'only.png')
  with pytest.raises(InputError, match=r'one image \(only\.png\), expected at least two'):
    read_stack_folder(tmp_path)
  with pytest.raises(InputError, match=r'only\.png: Not a directory, expected a folder of images'):
    read_stack_folder(tmp_path / 'only.png')


def test_different_sizes(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png', 'd.png')
  write_images(tmp_path, 'c.png', size=(4, 6))
  with pytest.raises(InputError, match=r'c\.png: 4 x 6 pixels, expected 6 x 4 as a\.png'):
    read_stack_folder([tmp_path / f'{name}.png' for name in 'abcd'], reverse=True)


@pytest.mark.parametrize('numbers', ['4 1 8 2 16', '16 8 4 2 1', '1 2 4 8 16', '2 16 1 8 4', '8 16 1 2 4'])
def test_frames_follow_their_distances(tmp_path, numbers):
  values = write_images(tmp_path, *(f'{n}.png' for n in range(5)))
  write_metadata(tmp_path, numbers)
  stack = read_stack_folder(tmp_path)
  by_distance = sorted(zip(map(float, numbers.split()), values, range(5), strict=True), reverse=True)
  assert greys(stack) == [value for _, value, _ in by_distance]
  assert stack.names == [f'{n}.png' for _, _, n in by_distance]
  np.testing.assert_array_equal(stack.focus, [1 / distance for distance, _, _ in by_distance])


def test_duplicates_are_named(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  (tmp_path / 'd.png').write_bytes((tmp_path / 'b.png').read_bytes())
  Image.open(tmp_path / 'b.png').save(tmp_path / 'e.bmp')
  (tmp_path / 'f.png').write_bytes((tmp_path / 'a.png').read_bytes())
  assert [note for note in read_stack_folder(tmp_path).notes if 'same pixels' in note] == [
    'b.png and d.png have the same pixels.',
    'b.png and e.bmp have the same pixels.',
    'a.png and f.png have the same pixels.',
  ]


def test_many_duplicates_are_one_remark(tmp_path):
  write_images(tmp_path, *(f'{n}.png' for n in range(5)))
  for n in range(5, 10):
    (tmp_path / f'{n}.png').write_bytes((tmp_path / f'{n - 5}.png').read_bytes())
  notes = read_stack_folder(tmp_path).notes
  assert '5 frames are duplicates, for example: 0.png and 5.png have the same pixels.' in notes
  for n in range(1, 10):
    (tmp_path / f'{n}.png').write_bytes((tmp_path / '0.png').read_bytes())
  assert read_stack_folder(tmp_path).notes[-1] == 'All frames have the same pixels: there is no depth information.'


class TestList:
  def test_is_taken_in_its_order(self, tmp_path):
    values = write_images(tmp_path, 'a1.png', 'a2.png', 'a10.png', 'unused.png')
    paths = [tmp_path / 'a10.png', str(tmp_path / 'a1.png'), tmp_path / 'a2.png']
    stack = read_stack_folder(paths)
    assert greys(stack) == [values[2], values[0], values[1]]
    assert 'the order given was taken as far to near' in stack.notes[0]
    assert stack.notes[1] == 'The order given is not that of the names.'
    stack = read_stack_folder(paths, reverse=True)
    assert greys(stack) == [values[1], values[0], values[2]]
    np.testing.assert_array_equal(stack.focus, [2, 1, 0])
    in_order = read_stack_folder([tmp_path / 'a2.png', tmp_path / 'a10.png'])
    assert len(in_order.notes) == 1

  @pytest.mark.parametrize(
    ('names', 'order'),
    [
      (['a1.png', 'a10.png', 'a11.png', 'a2.png'], [0, 3, 1, 2]),
      (['A1.png', 'a10.png', 'A11.png', 'a2.png'], [0, 3, 1, 2]),  # of a shell that ignores case
      (['a10.png', 'a9.png'], [0, 1]),  # near to far, perhaps
    ],
  )
  def test_as_shells_list_them(self, tmp_path, names, order):
    write_images(tmp_path, *names)
    stack = read_stack_folder([tmp_path / name for name in names])
    assert stack.names == [names[n] for n in order]
    assert any('in alphabetical order, as shells list them' in note for note in stack.notes) == (len(names) > 2)

  def test_in_a_folder_that_cannot_be_listed(self, tmp_path, monkeypatch):
    write_images(tmp_path, 'a.png', 'b.png')
    (tmp_path / 'metadata.csv').write_text('file,focus_dpt\na.png,1\nb.png,2\n')

    def refused(folder):
      raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'iterdir', refused)
    assert read_stack_folder([tmp_path / 'a.png', tmp_path / 'b.png']).focus.tolist() == [1, 2]
    (tmp_path / 'metadata.csv').unlink()
    assert read_stack_folder([tmp_path / 'a.png', tmp_path / 'b.png']).focus_unit == FRAME_INDEX_UNIT
    with pytest.raises(InputError, match='Permission denied, expected a folder of images'):
      read_stack_folder(tmp_path)

  def test_everything_in_a_folder(self, tmp_path):
    write_images(tmp_path, 'a1.png', 'a2.png', 'a3.png', 'a2_depth.png')
    write_metadata(tmp_path, '4 3 2 1')
    stack = read_stack_folder(sorted(tmp_path.iterdir()))
    assert stack.names == ['a1.png', 'a2.png', 'a2_depth.png', 'a3.png']
    np.testing.assert_allclose(stack.focus, [1 / 4, 1 / 3, 1 / 2, 1])
    assert 'a2_depth.png does not fit the series by name, but every file given is used.' in stack.notes
    (tmp_path / 'out').mkdir()
    with pytest.raises(InputError, match=r'out: is a folder among several paths, expected one folder, or images only'):
      read_stack_folder(sorted(tmp_path.iterdir()))

  def test_picks_from_the_distances_of_its_folder(self, tmp_path):
    values = write_images(tmp_path, 'a.png', 'b.png', 'c.png', 'd.png')
    write_metadata(tmp_path, '8 4 2 1', '0.1')
    stack = read_stack_folder([tmp_path / 'd.png', tmp_path / 'b.png'])
    assert greys(stack) == [values[1], values[3]]
    np.testing.assert_array_equal(stack.focus, [0.25, 1])
    np.testing.assert_allclose(stack.fov, [9.75 / 9, 1], rtol=1e-6)

  def test_of_several_folders_has_no_files_beside_it(self, tmp_path):
    for name in 'ab':
      (tmp_path / name).mkdir()
      write_images(tmp_path / name, f'{name}.png', 'other.png')
      write_metadata(tmp_path / name, '2 1', '0.1')
    stack = read_stack_folder([tmp_path / 'b' / 'b.png', tmp_path / 'a' / 'other.png'])
    assert (stack.names, stack.focus_unit) == (['b.png', 'other.png'], FRAME_INDEX_UNIT)

  def test_of_what_is_no_stack(self, tmp_path):
    write_images(tmp_path, 'a.png', 'b.png')
    (tmp_path / 'table.csv').write_text('file')
    for names, message in [
      ([], 'no images given, expected at least two'),
      (['a.png'], r'one image \(.*a\.png\) given, expected at least two'),
      (['a.png', 'table.csv'], r'table\.csv: not an image by its suffix, expected one of \.jpg'),
      (
        ['a.png', 'b.png', 'a.png'],
        r'a\.png: has the same name as .*a\.png, expected different names, and each image once',
      ),
      (['a.png', 'c.png'], r'c\.png: found no such file'),
    ]:
      with pytest.raises(InputError, match=message):
        read_stack_folder([tmp_path / name for name in names])


class TestRegion:
  def test_is_cut_out_of_upright_frames(self, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for name, frame in zip('ab', pixels, strict=True):
      Image.fromarray(frame).save(tmp_path / f'{name}.png', exif=exif)
    stack = read_stack_folder(tmp_path, region=(5, 7, 20, 33))
    np.testing.assert_array_equal(stack.images, np.rot90(pixels, -1, axes=(1, 2))[:, 7:40, 5:25])
    assert stack.principal_point_px == (14.5 - 5, 19.5 - 7)
    np.testing.assert_array_equal(
      read_stack_folder(tmp_path, region=(0, 0, 30, 40)).images, read_stack_folder(tmp_path).images
    )

  def test_of_16_bits(self, tmp_path):
    for n, name in enumerate('ab'):
      Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5957 + n).save(tmp_path / f'{name}.tif')
    images = read_stack_folder(tmp_path, region=(1, 1, 2, 2)).images
    np.testing.assert_array_equal(images[0, ..., 0], np.round(np.array([[5, 6], [9, 10]]) * 5957 / 257))

  def test_keeps_the_rays_of_its_pixels(self, tmp_path):
    # A bright dot in a dark frame: its ray, by focal length and principal point, is the same for every way of reading.
    frame = np.full((120, 160, 3), 40, np.uint8)
    frame[64:72, 112:120] = 250
    for n, name in enumerate('ab'):
      Image.fromarray(frame + np.uint8(n)).save(tmp_path / f'{name}.png')
    (tmp_path / 'metadata.json').write_text('{"focal_length_px": 200}')

    def ray(**options):
      stack = read_stack_folder(tmp_path, **options)
      weight = stack.images[0, ..., 0] - 40.0
      ys, xs = np.indices(weight.shape)
      dot = np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()
      return (dot - stack.principal_point_px) / stack.focal_length_px, stack

    expected = (np.array([115.5, 67.5]) - [79.5, 59.5]) / 200
    whole, stack = ray()
    np.testing.assert_allclose(whole, expected, atol=1e-12)
    assert (stack.focal_length_px, stack.principal_point_px) == (200, (79.5, 59.5))
    for options in [
      {'max_side': 40},
      {'region': (80, 40, 72, 48)},
      {'region': (80, 40, 72, 48), 'max_side': 18},
      {'region': (100, 60, 30, 20), 'max_side': 15},
    ]:
      np.testing.assert_allclose(ray(**options)[0], expected, atol=1e-3)
    assert ray(region=(80, 40, 72, 48), max_side=18)[1].focal_length_px == 50

  @pytest.mark.parametrize(
    'region', [(0, 0, 7, 4), (0, 1, 6, 4), (-1, 0, 3, 3), (0, -1, 3, 3), (0, 0, 0, 4), (2, 2, 2, -1)]
  )
  def test_beyond_the_frames(self, tmp_path, region):
    write_images(tmp_path, 'a.png', 'b.png')
    with pytest.raises(InputError, match=r'region is \(.*\), expected .* within the frames of 6 x 4 pixels'):
      read_stack_folder(tmp_path, region=region)


def test_changes_nothing(tmp_path):
  write_images(tmp_path, 'a.jpg', 'b.jpg')
  write_metadata(tmp_path, '1 2', '0.1')
  before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
  stack = read_stack_folder(tmp_path, max_side=3)
  stack.images[:] = 0
  assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_frame_that_is_sharp_everywhere(tmp_path):
  # Each frame shows one strip of the texture in focus.
  texture = np.random.default_rng(0).integers(60, 200, (192, 320, 3), dtype=np.uint8)
  blurred = np.asarray(Image.fromarray(texture).resize((40, 24)).resize((320, 192)))
  for n in range(5):
    frame = blurred.copy()
    frame[:, 64 * n : 64 * n + 64] = texture[:, 64 * n : 64 * n + 64]
    Image.fromarray(frame).save(tmp_path / f'IMG_{n + n // 3}.png')
  whole = read_stack_folder(tmp_path)
  assert len(whole.names) == 5
  Image.fromarray(texture).save(tmp_path / 'IMG_3.png')
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['IMG_0.png', 'IMG_1.png', 'IMG_2.png', 'IMG_4.png', 'IMG_5.png']
  np.testing.assert_array_equal(stack.images, whole.images)
  np.testing.assert_array_equal(stack.focus, [0, 1, 2, 3, 4])
  assert any('Left out: IMG_3.png, which is sharp everywhere' in note for note in stack.notes)
  assert read_stack_folder(tmp_path, reverse=True).focus.tolist() == [4, 3, 2, 1, 0]
  # Files that were listed stay, and so do those with a known distance.
  assert len(read_stack_folder(sorted(tmp_path.glob('*.png'))).names) == 6
  (tmp_path / 'focus_distance.txt').write_text('6 5 4 3 2 1')
  assert len(read_stack_folder(tmp_path).names) == 6


def test_frame_of_a_flat_scene_may_be_sharp_everywhere(tmp_path):
  texture = Image.fromarray(np.random.default_rng(0).integers(60, 200, (192, 320, 3), dtype=np.uint8))
  for n, shrunk in enumerate([12, 6, 2, 1, 2, 6, 12]):
    texture.resize((320 // shrunk, 192 // shrunk)).resize((320, 192)).save(tmp_path / f'{n}.png')
  assert len(read_stack_folder(tmp_path).names) == 7


@real
def test_balls():
  stack = read_stack_folder(STACKS / 'balls', max_side=320)
  assert stack.images.shape == (10, 180, 320, 3)
  assert stack.names == [f'{n:02}.jpg' for n in range(10)]
  assert len(stack.notes) == 1
  distance = np.loadtxt(STACKS / 'balls' / 'focus_distance.txt')
  np.testing.assert_allclose(stack.focus, 1 / distance, rtol=1e-12)
  assert stack.focus[[0, -1]].round(6).tolist() == [0, 0.1]
  # f = 0.2: (1 / 0.2 - 1 / 7223525.8) / (1 / 0.2 - 1 / 10) = 5 / 4.9 for the farthest.
  np.testing.assert_allclose(stack.fov, (5 - 1 / distance) / 4.9, rtol=1e-6)
  assert stack.fov[0] == pytest.approx(1.0204, abs=1e-4)


@real
@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('pcb', (7, 240, 320, 3)),
    ('ring', (6, 240, 320, 3)),
    ('handheld_dog', (12, 180, 320, 3)),
    ('tablet_exif', (11, 240, 320, 3)),
  ],
)
def test_real_stacks_without_metadata(name, shape):
  stack = read_stack_folder(STACKS / name, max_side=320)
  assert stack.images.shape == shape
  assert stack.names == sorted(stack.names)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert 20 < stack.images.mean() < 235


@pytest.mark.parametrize('suffix', ['jfif', 'jpe', 'mpo', 'gif', 'ppm', 'tga', 'JFIF'])
def test_less_usual_suffixes(tmp_path, suffix):
  picture = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
  )
  for name in 'ab':
    picture.save(tmp_path / f'{name}.{suffix}')
  difference = read_stack_folder(tmp_path).images[0].astype(int) - np.asarray(picture)
  assert np.abs(difference).mean() < 12


def test_16_bit_pgm(tmp_path):
  values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2730
  for name in 'ab':
    (tmp_path / f'{name}.pgm').write_bytes(b'P5\n6 4\n65535\n' + values.astype('>u2').tobytes())
  np.testing.assert_allclose(read_stack_folder(tmp_path).images[0, ..., 1], values / 257, atol=0.51)


@pytest.mark.parametrize(
  ('name', 'advice'),
  [
    ('film.mp4', 'extract the frames as images first'),
    ('z.czi', 'export them as OME-TIFF'),
    ('z.zip', 'unpack it first'),
    ('a.txt', ''),
  ],
)
def test_a_file_that_is_no_stack(tmp_path, name, advice):
  (tmp_path / name).write_bytes(b'0' * 100)
  with pytest.raises(InputError, match=rf'{name}: .*expected a folder of images, or a multi-page TIFF.*{advice}'):
    read_stack_folder(tmp_path / name)


@pytest.mark.parametrize(
  ('name', 'advice'),
  [
    ('f%03d.png', r'in patterns, \* stands for the numbers'),
    ('f{0..9}.png', r'in patterns, \* stands for the numbers'),
    ('frames"', 'leave out the quotation marks'),
  ],
)
def test_patterns_of_other_programs(tmp_path, name, advice):
  with pytest.raises(InputError, match=rf'No such file or directory, expected a folder .*; {advice}$'):
    read_stack_folder(str(tmp_path / name))


def test_results_of_a_prediction_are_no_frames(tmp_path):
  write_images(tmp_path, 'depth.png', 'confidence.png', 'all_in_focus.png')
  for name in ('summary.json', 'motion.json'):
    (tmp_path / name).write_text('{}')
  with pytest.raises(InputError, match='contains results of a prediction, expected frames'):
    read_stack_folder(tmp_path)
  write_images(tmp_path, 'IMG_1.png', 'IMG_2.png', 'IMG_3.png')
  assert read_stack_folder(tmp_path).names == ['IMG_1.png', 'IMG_2.png', 'IMG_3.png']


def test_channel_of_files_that_count_none(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  assert any('channel was ignored' in note for note in read_stack_folder(tmp_path, channel=1).notes)


def test_images_without_a_suffix_are_noted(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  for name in 'ab':
    (tmp_path / f'{name}.png').rename(tmp_path / name)
  (tmp_path / 'LICENSE').write_text('all rights')
  with pytest.raises(InputError, match=r'no images, .*; a, b: images by their content, but without a suffix'):
    read_stack_folder(tmp_path)


def test_what_is_no_image_by_its_content(tmp_path):
  for text, told in [
    ('nothing', 'its content is not an image'),
    ('\n<!DOCTYPE html><html><body>404 Not Found</body></html>', 'it is a web page'),
    ('<html>404 Not Found</html>', 'it is a web page'),
    ('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'it is a Git LFS pointer, not .*'),
  ]:
    for name in 'ab':
      (tmp_path / f'{name}.jpg').write_text(text)
    with pytest.raises(InputError, match=rf'a\.jpg: cannot be read as an image \({told}\), nor can b\.jpg'):
      read_stack_folder(tmp_path)


def test_many_equal_distances_are_one_remark(tmp_path):
  write_images(tmp_path, *(f'{n}.png' for n in range(6)))
  write_metadata(tmp_path, 'inf inf inf inf inf 1')
  notes = [note for note in read_stack_folder(tmp_path).notes if 'same focus distance' in note]
  assert notes == [
    '4 frames have the same focus distance as another: 0.png and 1.png have the same focus distance, inf.'
  ]


@pytest.mark.parametrize(
  ('text', 'focus'),
  [
    ('4,2,1', [0.25, 0.5, 1]),
    ('0.5,0.25,0.125', [2, 4, 8]),
    ('0,5;0,25;0,125', [2, 4, 8]),
    ('0,5,0,25,0,125', None),
    ('0,5\n0,25\n0,125\n', [2, 4, 8]),
    ('∞ 2 1', [0, 0.5, 1]),
    ('infinity 2 1', [0, 0.5, 1]),
    ('1 \u00b5m\n2 um\n3 \u03bcm\n', [1, 2, 3]),
  ],
)
def test_distances_as_people_write_them(tmp_path, text, focus):
  write_images(tmp_path, 'a.png', 'b.png', 'c.png')
  write_metadata(tmp_path, text)
  if focus is None:  # commas may be separators or decimal: ambiguous
    with pytest.raises(InputError, match=r'focus_distance\.txt: '):
      read_stack_folder(tmp_path)
  else:
    np.testing.assert_allclose(read_stack_folder(tmp_path).focus, focus)


def test_second_downloads_are_left_out(tmp_path):
  write_images(tmp_path, 'IMG_1.png', 'IMG_2.png', 'IMG_2 (1).png', 'IMG_3.png', 'IMG_3(2).png')
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['IMG_1.png', 'IMG_2.png', 'IMG_3.png']
  assert any('Left out: IMG_2 (1).png, IMG_3(2).png' in note for note in stack.notes)


def test_without_some_frames(tmp_path):
  values = write_images(tmp_path, 'a.png', 'b.png', 'c.png', 'd.png')
  stack = read_stack_folder(tmp_path, reverse=True).without([1, 3], 'why')
  assert (stack.names, greys(stack), stack.focus.tolist()) == (['d.png', 'b.png'], [values[3], values[1]], [1, 0])
  assert (stack.notes[-1], stack.paths) == ('why', (tmp_path / 'd.png', tmp_path / 'b.png'))
  np.testing.assert_array_equal(stack.frame(1, max_side=3), read_stack_folder(tmp_path, max_side=3).images[1])
  write_metadata(tmp_path, '8 4 2 1', '0.1')
  stack = read_stack_folder(tmp_path).without([3], 'why')
  np.testing.assert_array_equal(stack.focus, [0.125, 0.25, 0.5])
  np.testing.assert_allclose(stack.fov, [9.875 / 9.5, 9.75 / 9.5, 1], rtol=1e-6)


def test_copies_of_pictures_named_by_their_time(tmp_path):
  names = ['20240501_102030.png', '20240501_102031.png', '20240501_102031(1).png', '20240501_102032.png']
  write_images(tmp_path, *names)
  assert read_stack_folder(tmp_path).names == names  # two of one second
  (tmp_path / names[2]).write_bytes((tmp_path / names[1]).read_bytes())
  assert read_stack_folder(tmp_path).names == [names[0], names[1], names[3]]


def test_a_series_that_counts_in_brackets(tmp_path):
  names = ['image.png', 'image (1).png', 'image (2).png', 'image (3).png']
  write_images(tmp_path, *names)
  assert read_stack_folder(tmp_path).names == names


@pytest.mark.parametrize(
  'name', ['{z:03d}_ch{c}.png', 'img_channel{c:03d}_position000_z{z:03d}.png', 'scan_z{z}c{c}.png', 's1_w{c}_z{z}.png']
)
def test_channels_that_names_count(tmp_path, name):
  noise = np.random.default_rng(1)
  structure = noise.integers(20, 200, (8, 8)).repeat(4, 0).repeat(4, 1)
  for z in range(3):
    clear, dim = structure + z, 100 + noise.normal(0, 5, structure.shape)
    for c, picture in enumerate((dim, clear)):
      Image.fromarray(picture.astype(np.uint8)).save(tmp_path / name.format(z=z, c=c))
  for options, channel in (({}, 1), ({'channel': 0}, 0)):
    stack = read_stack_folder(tmp_path, **options)
    assert stack.names == [name.format(z=z, c=channel) for z in range(3)]
    assert any(f'Depth is from channel {channel}' in note for note in stack.notes)
    assert not any('more than one series' in note for note in stack.notes)
  with pytest.raises(InputError, match=r'channel is 2, expected 0 \.\. 1'):
    read_stack_folder(tmp_path, channel=2)


@pytest.mark.parametrize(
  ('pattern', 'channels'),
  [
    ('exp2_z{z}_{c}.png', ('Cy5', 'DAPI', 'FITC')),
    ('exp2_z{z}_{c}.png', ('AF488', 'AF568', 'DAPI')),
    ('exp2_z{z}_{c}.png', ('405nm', '488nm', '561nm')),
    ('z{z}_{c}.png', ('B', 'G', 'R')),
    ('exp_C{c}_z{z:03}.ome.png', ('Blue', 'Green', 'Red')),
    ('A - 1(fld 1 wv {c} - {c} z {z}).png', ('Cy5', 'DAPI', 'FITC')),
  ],
)
def test_channels_that_have_names(tmp_path, pattern, channels):
  structure = np.random.default_rng(1).integers(20, 200, (8, 8)).repeat(4, 0).repeat(4, 1)
  for z in range(3):
    for c, contrast in zip(channels, (0.1, 0.2, 1), strict=True):
      Image.fromarray((contrast * structure + z).astype(np.uint8)).save(tmp_path / pattern.format(z=z, c=c))
  for options, channel in (({}, 2), ({'channel': 0}, 0), ({'channel': 1}, 1)):
    names = read_stack_folder(tmp_path, **options).names
    assert names == [pattern.format(z=z, c=channels[channel]) for z in range(3)]


def test_images_of_several_channels_are_none(tmp_path):
  structure = np.random.default_rng(1).integers(20, 200, (8, 8)).repeat(4, 0).repeat(4, 1)
  for z in range(3):
    for c, contrast in (('1', 0.2), ('2', 0.5), ('1+2', 1)):
      Image.fromarray((contrast * structure + z).astype(np.uint8)).save(tmp_path / f'z{z}c{c}.png')
  assert read_stack_folder(tmp_path).names == [f'z{z}c2.png' for z in range(3)]


def test_pictures_that_were_not_downloaded(tmp_path):
  for n in range(3):
    (tmp_path / f'.IMG_{n}.HEIC.icloud').write_bytes(b'bplist')
  with pytest.raises(InputError, match=r'no images, .*; 3 files are only in iCloud: download them first'):
    read_stack_folder(tmp_path)


@pytest.mark.parametrize(
  ('names', 'told'),
  [
    ([f'cam{c}_{n:03d}.png' for c in (0, 1) for n in range(4)], 'cam0_000.png ..., cam1_000.png ...'),
    ([f'L{light}_{n}.jpg' for light in (1, 2) for n in range(5)], 'L1_0.jpg ..., L2_0.jpg ...'),
    ([f'{n:03d}_{20 + n}.png' for n in range(4)], None),
    ([f'day{d}_{n}.png' for d, n in ((1, 8), (1, 9), (2, 0), (2, 1))], None),
  ],
)
def test_series_that_a_number_tells_apart(tmp_path, names, told):
  write_images(tmp_path, *names)
  notes = [note for note in read_stack_folder(tmp_path).notes if 'more than one series' in note]
  assert notes == ([f'The names look like more than one series ({told}): all were read as one stack.'] if told else [])
