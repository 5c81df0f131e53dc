"""Small folders made here, and real stacks where they are beside this repository."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.folder import FRAME_INDEX_UNIT, INVERSE_DISTANCE_UNIT, read_stack_folder
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
  assert stack.notes == []


@pytest.mark.parametrize(
  ('distances', 'order', 'note'),
  [
    ('4 2 1', [0, 1, 2], None),
    ('1 2 4', [2, 1, 0], 'near to far: the frames were reversed'),
    ('1 2 inf', [2, 1, 0], 'near to far: the frames were reversed'),
    ('2 1 4', [2, 0, 1], 'no order: the frames were sorted far to near'),
    ('4 2 2', [0, 1, 2], 'b.png and c.png have the same focus distance, 2.0'),
    ('1 inf inf', [2, 1, 0], 'c.png and b.png have the same focus distance, inf'),
    ('1 2 1', [1, 0, 2], 'a.png and c.png have the same focus distance, 1.0'),
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
  assert (note is None and not stack.notes) or any(note in remark for remark in stack.notes)


def test_reverse_yields_to_distances(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, '2 1', '0.05')
  stack = read_stack_folder(tmp_path, reverse=True)
  assert stack.names == ['a.png', 'b.png']
  assert 'reverse was ignored' in stack.notes[0]


def test_distances_only(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, '2 1e-3')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0.5, 1000])
  np.testing.assert_array_equal(stack.fov, [1, 1])
  assert stack.focus_unit == INVERSE_DISTANCE_UNIT
  assert 'No focal_length.txt' in stack.notes[0]


def test_focal_length_only(tmp_path):
  write_images(tmp_path, 'a.png', 'b.png')
  write_metadata(tmp_path, None, '0.05')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0, 1])
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert 'focal_length.txt was ignored' in stack.notes[1]


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
    ('2,5 1,5', '0.1', r"number 1 is '2,5'"),
    ('2 nan', '0.1', r'focus_distance\.txt .*frame 1 is nan, expected a number above 0'),
    ('2 0', '0.1', r'frame 1 is 0\.0, expected a number above 0'),
    ('-2 1', '0.1', r'frame 0 is -2\.0, expected a number above 0'),
    ('2 -inf', None, r'focus_distance\.txt: .*frame 1 is -inf, expected a number above 0'),
    ('2 0', None, r'frame 1 is 0\.0, expected a number above 0'),
    ('2 0.1', '0.1', r'frame 1 is 0\.1, inside the focal length 0\.1'),
    ('2 0.10000000001', '0.1', r'0\.10000000001 is all but the focal length 0\.1'),
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
  (tmp_path / name).write_bytes('2 1'.encode('utf-16'))
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
  assert read_stack_folder(tmp_path).names == names


PATTERN = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize(
  ('orientation', 'upright'),
  [
    (1, lambda pixels: pixels),
    (2, lambda pixels: pixels[:, ::-1]),
    (3, lambda pixels: pixels[::-1, ::-1]),
    (4, lambda pixels: pixels[::-1]),
    (5, lambda pixels: pixels.swapaxes(0, 1)),
    (6, lambda pixels: np.rot90(pixels, -1)),
    (7, lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1)),
    (8, np.rot90),
  ],
)
def test_exif_orientation(tmp_path, suffix, orientation, upright):
  exif = Image.Exif()
  exif[0x0112] = orientation
  for name in 'ab':
    Image.fromarray(PATTERN).save(tmp_path / f'{name}.{suffix}', exif=exif)
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images, np.stack([upright(PATTERN)] * 2))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA'])
def test_pixel_modes(tmp_path, mode):
  image = Image.fromarray(PATTERN).convert(mode)
  for name in 'ab':
    image.save(tmp_path / f'{name}.png')
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images[0], np.asarray(image.convert('RGB')))


@pytest.mark.filterwarnings('error')
def test_palette_with_transparency(tmp_path):
  image = Image.fromarray(PATTERN).quantize(8)
  for name in 'ab':
    image.save(tmp_path / f'{name}.png', transparency=bytes(range(8)))
  np.testing.assert_array_equal(read_stack_folder(tmp_path).images[0], np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
  grey = np.array([[0, 128, 129, 255, 257, 32768, 65406, 65535]], np.uint16)
  for name in 'ab':
    Image.fromarray(grey).save(tmp_path / f'{name}.{suffix}')
  images = read_stack_folder(tmp_path).images
  np.testing.assert_array_equal(images[0, 0, :, 0], np.round(grey[0] / 257))
  assert np.all(images == images[..., :1])


@pytest.mark.parametrize('pixels', [np.float32([[0.5]]), np.int32([[65536]]), np.int32([[-1]])])
def test_unscalable_pixels(tmp_path, pixels):
  for name in 'ab':
    Image.fromarray(pixels).save(tmp_path / f'{name}.tif')
  with pytest.raises(InputError, match=r'a\.tif: .*expected'):
    read_stack_folder(tmp_path)


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
  # A chequerboard of single pixels: plain picking would leave black or white.
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
    read_stack_folder(tmp_path, reverse=True)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'bmp', 'webp'])
@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.95])
def test_truncated_image(tmp_path, suffix, share):
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
  for name in 'ab':
    noise.save(tmp_path / f'{name}.{suffix}')
  path = tmp_path / f'b.{suffix}'
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  with pytest.raises(InputError, match=rf'b\.{suffix}: cannot be read as an image') as caught:
    read_stack_folder(tmp_path)
  assert '\n' not in str(caught.value)
  assert share or 'the file is empty' in str(caught.value)


def test_unreadable_images(tmp_path):
  write_images(tmp_path, 'a.png')
  (tmp_path / 'b.png').write_text('<!DOCTYPE html>')
  with pytest.raises(InputError, match=r'b\.png: cannot be read as an image'):
    read_stack_folder(tmp_path)
  (tmp_path / 'b.png').unlink()
  (tmp_path / 'b.png').symlink_to('nowhere.png')
  with pytest.raises(InputError, match=r'b\.png: cannot be read as an image'):
    read_stack_folder(tmp_path)


def test_large_images(tmp_path, monkeypatch):
  write_images(tmp_path, 'a.png', 'b.png')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)  # 24 are above it: Pillow warns.
  assert read_stack_folder(tmp_path).images.shape == (2, 4, 6, 3)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)  # More than twice as many: Pillow refuses.
  with pytest.raises(InputError, match=r'a\.png: .*DecompressionBomb'):
    read_stack_folder(tmp_path)


def test_changes_nothing(tmp_path):
  write_images(tmp_path, 'a.jpg', 'b.jpg')
  write_metadata(tmp_path, '1 2', '0.1')
  before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
  stack = read_stack_folder(tmp_path, max_side=3)
  stack.images[:] = 0
  assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


@real
def test_balls():
  stack = read_stack_folder(STACKS / 'balls', max_side=320)
  assert stack.images.shape == (10, 180, 320, 3)
  assert stack.names == [f'{n:02}.jpg' for n in range(10)]
  assert stack.notes == []
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
