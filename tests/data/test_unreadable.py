"""Stacks with unreadable files are read as if those files did not exist."""

import io

import numpy as np
import pytest
from PIL import Image
from tiff_files import write_tiff

from focal_jax import InputError
from focal_jax.data import frames
from focal_jax.data.folder import read_stack_folder
from focal_jax.data.formats import readable_suffixes
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.data.scales import scales_of

NAMES = [f'IMG_{n}.png' for n in range(1, 6)]


def write(folder, names=NAMES):
  rng = np.random.default_rng(0)
  for name in names:
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / name)


def cut(path, share=0.5):
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def left_out(stack):
  return [note for note in stack.notes if 'which cannot be read' in note]


@pytest.mark.parametrize('share', [0, 0.01, 0.5])  # no header at all, none that is whole, and pixels that are not
@pytest.mark.parametrize('reverse', [False, True])
def test_the_rest_is_read_as_if_the_file_were_not_there(tmp_path, share, reverse):
  write(tmp_path)
  whole = read_stack_folder(tmp_path, reverse=reverse)
  cut(tmp_path / NAMES[2], share)
  stack = read_stack_folder(tmp_path, reverse=reverse)
  order = [n for n in (range(4, -1, -1) if reverse else range(5)) if n != 2]
  assert stack.names == [NAMES[n] for n in order]
  np.testing.assert_array_equal(stack.images, np.delete(whole.images, 2, axis=0))
  assert stack.focus.tolist() == ([3, 2, 1, 0] if reverse else [0, 1, 2, 3])
  assert [path.name for path in stack.paths] == stack.names
  np.testing.assert_array_equal(stack.frame(1, max_side=20), whole.frame(1, max_side=20))
  (note,) = left_out(stack)
  assert note.startswith('Left out: IMG_3.png, which cannot be read as an image (')
  assert share or 'the file is empty' in note


@pytest.mark.parametrize('share', [0, 0.5])
def test_distances_stay_with_their_frames(tmp_path, share):
  write(tmp_path)
  cut(tmp_path / NAMES[1], share)
  rest = [1 / 8, 1 / 2, 1, 2]  # 1/m, without that of the second
  (tmp_path / 'metadata.csv').write_text(
    'file,focus_distance_m\n' + ''.join(f'{name},{d}\n' for name, d in zip(NAMES, (8, 4, 2, 1, 0.5), strict=True))
  )
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.focus, rest)
  assert (stack.focus_unit, len(left_out(stack))) == (DIOPTRE_UNIT, 1)
  # Rows of the frames that can be read are enough.
  lines = (tmp_path / 'metadata.csv').read_text().splitlines(keepends=True)
  (tmp_path / 'metadata.csv').write_text(''.join(line for line in lines if NAMES[1] not in line))
  np.testing.assert_allclose(read_stack_folder(tmp_path).focus, rest)
  (tmp_path / 'metadata.csv').unlink()
  (tmp_path / 'focus_distance.txt').write_text('8 4 2 1 0.5')
  np.testing.assert_allclose(read_stack_folder(tmp_path).focus, rest)
  np.testing.assert_allclose(read_stack_folder([tmp_path / name for name in NAMES]).focus, rest)
  # Of a list one short nobody knows which is missing.
  (tmp_path / 'focus_distance.txt').write_text('8 2 1 0.5')
  with pytest.raises(InputError, match=r'focus_distance\.txt: 4 numbers, expected 5'):
    read_stack_folder(tmp_path)


def test_files_given_one_by_one(tmp_path):
  write(tmp_path)
  cut(tmp_path / NAMES[4])
  stack = read_stack_folder([tmp_path / name for name in NAMES])
  assert (stack.names, len(left_out(stack))) == (NAMES[:4], 1)
  with pytest.raises(InputError, match=r'IMG_9\.png'):  # misspelt, not damaged
    read_stack_folder([tmp_path / name for name in [*NAMES[:4], 'IMG_9.png']])


@pytest.mark.parametrize(('count', 'damaged', 'left'), [(3, 1, 2), (2, 1, 1), (7, 4, 3), (4, 4, 0)])
def test_too_few_are_left(tmp_path, count, damaged, left):
  names = [f'{n}.png' for n in range(count)]
  write(tmp_path, names)
  for n, name in enumerate(names[:damaged]):
    cut(tmp_path / name, 0.5 * (n % 2))
  with pytest.raises(InputError) as caught:
    read_stack_folder(tmp_path)
  message = str(caught.value)
  assert '\n' not in message
  assert '0.png: cannot be read as an image (the file is empty)' in message
  assert all(name in message for name in names[:damaged][:4]) or 'others' in message
  assert f'{left} of {count} frames can be read' in message


def test_every_frame_may_be_wanted(tmp_path):
  write(tmp_path)
  cut(tmp_path / NAMES[0])
  with pytest.raises(InputError, match=r'IMG_1\.png: cannot be read as an image'):
    read_stack_folder(tmp_path, leave_out_unreadable=False)


def test_the_others_are_decoded_once(tmp_path, monkeypatch):
  names = [f'{n}.jpg' for n in range(5)]  # unlike a PNG, it has a header that can be read
  write(tmp_path, names)
  cut(tmp_path / names[2])
  decode, decoded = frames.decode, []

  def counted(header, orientation):
    decoded.append(header.file.name)
    return decode(header, orientation)

  monkeypatch.setattr(frames, 'decode', counted)
  assert len(read_stack_folder(tmp_path).names) == 4
  assert decoded == names


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'restart_marker_rows': 1}, {'subsampling': '4:2:0'}])
@pytest.mark.parametrize('zeros', [0, 500])  # as of a copy that was not finished
def test_a_jpeg_without_its_end_is_whole(tmp_path, options, zeros):
  rng = np.random.default_rng(0)
  names = [f'{n}.jpg' for n in range(4)]
  for name in names:
    Image.fromarray(rng.integers(0, 256, (33, 50, 3), dtype=np.uint8)).save(tmp_path / name, **options)
  whole = read_stack_folder(tmp_path)
  assert not any('end' in note for note in whole.notes)
  data = (tmp_path / names[1]).read_bytes()
  (tmp_path / names[1]).write_bytes(data[:-2] + bytes(zeros))
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.images, whole.images)
  notes = [note for note in stack.notes if 'end of its file' in note]
  assert notes == ['1.jpg lacks the end of its file, but no part of the image.'] or (not zeros and not notes)
  # Without its last pixels, it is not.
  for kept in (len(data) - 30, len(data) // 2):
    (tmp_path / names[1]).write_bytes(data[:kept] + bytes(zeros))
    stack = read_stack_folder(tmp_path)
    assert stack.names == ['0.jpg', '2.jpg', '3.jpg']
    assert 'truncated' in left_out(stack)[0]


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'optimize': True}, {'subsampling': '4:2:0'}])
@pytest.mark.parametrize('length', [100, 1500])
@pytest.mark.parametrize('place', [0.3, 0.6])
def test_a_jpeg_with_a_hole_is_left_out(tmp_path, options, length, place):
  rng = np.random.default_rng(0)
  for n in range(4):
    noise = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f'{n}.jpg', quality=90, **options)
  data = (tmp_path / '1.jpg').read_bytes()
  start = round(place * len(data))
  (tmp_path / '1.jpg').write_bytes(data[:start] + bytes(length) + data[start + length :])
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['0.jpg', '2.jpg', '3.jpg']
  assert left_out(stack) == [
    'Left out: 1.jpg, which cannot be read as an image (it is damaged: zeros replace a part of it).'
  ]


def test_even_areas_of_a_jpeg_are_no_hole(tmp_path):
  rng = np.random.default_rng(0)
  for n in range(3):
    picture = np.full((600, 800, 3), 128, np.uint8)
    picture[:50] = rng.integers(0, 256, (50, 800, 3))
    picture[-60 * n :, :9] = 0
    Image.fromarray(picture).save(tmp_path / f'{n}.jpg', optimize=True, progressive=True)
  assert bytes(64) in (tmp_path / '0.jpg').read_bytes()
  stack = read_stack_folder(tmp_path)
  assert len(stack.names) == 3
  assert not left_out(stack)


def test_what_follows_the_end_of_a_jpeg_does_not_matter(tmp_path):
  preview = io.BytesIO()
  Image.new('RGB', (16, 16)).save(preview, 'JPEG')
  rng = np.random.default_rng(0)
  for n, more in enumerate((b'', bytes(900), preview.getvalue(), b'\0\0\0\x18ftypmp42' + bytes(99))):
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(tmp_path / f'{n}.jpg')
    with (tmp_path / f'{n}.jpg').open('ab') as file:
      file.write(more)
  stack = read_stack_folder(tmp_path)
  assert len(stack.names) == 4
  assert not any('end' in note or 'Left out' in note for note in stack.notes)


@pytest.mark.parametrize(
  ('suffix', 'options'),
  [('.png', {}), ('.webp', {'lossless': True}), ('.webp', {'quality': 90}), ('.avif', {}), ('.bmp', {}), ('.jp2', {})],
)
def test_other_formats_that_are_not_whole(tmp_path, suffix, options):
  if suffix not in readable_suffixes():
    pytest.skip(f'Pillow was built without {suffix}')
  rng = np.random.default_rng(0)
  names = [f'{n}{suffix}' for n in range(4)]
  for name in names:
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / name, **options)
  data = (tmp_path / names[1]).read_bytes()
  end = len(data) * 8 // 10
  damaged = {data[:end]: '' if suffix == '.jp2' else 'truncated', data[:40]: ''}
  if suffix not in ('.bmp', '.jp2'):  # BMP may be black there
    damaged[data[:end] + bytes(len(data) - end)] = 'truncated: its end consists of zeros'
  if suffix == '.png':
    damaged[data[:2000] + b'wrong' + data[2005:]] = 'a checksum does not agree'
  for content, reason in damaged.items():
    (tmp_path / names[1]).write_bytes(content)
    stack = read_stack_folder(tmp_path)
    assert stack.names == [names[0], *names[2:]]
    (note,) = left_out(stack)
    assert reason in note
  for more in (b'', bytes(900), bytes(range(256)) * 9):  # after the end
    (tmp_path / names[1]).write_bytes(data + more)
    assert not left_out(read_stack_folder(tmp_path))


def test_a_black_frame_is_not_damaged(tmp_path):
  """Lossy WebP of plain areas ends with zeros."""
  for n in range(4):
    image = np.random.default_rng(n).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    image[20 * n :] = 0
    Image.fromarray(image).save(tmp_path / f'{n}.webp', quality=80)
  assert len((tmp_path / '0.webp').read_bytes().rstrip(b'\0')) < (tmp_path / '0.webp').stat().st_size - 9
  assert len(read_stack_folder(tmp_path).names) == 4


def test_a_wrong_checksum_alone_does_not_matter(tmp_path):
  write(tmp_path)
  data = (tmp_path / NAMES[1]).read_bytes()
  (tmp_path / NAMES[1]).write_bytes(data[:-16] + b'none' + data[-12:])  # that of the pixels, before the last chunk
  assert len(read_stack_folder(tmp_path).names) == 5


def test_orientation_is_not_that_of_a_file_that_cannot_be_read(tmp_path):
  write(tmp_path, names=[])
  rng = np.random.default_rng(0)
  for n in range(4):
    exif = Image.Exif()
    exif[0x0112] = 3 if n == 0 else 1
    noise = Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    noise.save(tmp_path / f'{n}.jpg', exif=exif)
  cut(tmp_path / '0.jpg')
  stack = read_stack_folder(tmp_path)
  assert not any('orientation' in note for note in stack.notes)
  with Image.open(tmp_path / '1.jpg') as image:
    np.testing.assert_array_equal(stack.images[0], np.asarray(image))


def test_pages_keep_their_positions(tmp_path):
  pages = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 60), dtype=np.uint8)) for n in range(5)]
  description = 'ImageJ=1.53\nimages=5\nslices=5\nspacing=2.5\nunit=um\n'
  pages[0].save(tmp_path / 'z.tif', save_all=True, append_images=pages[1:], description=description)
  whole = read_stack_folder(tmp_path / 'z.tif')
  np.testing.assert_allclose(whole.focus, [0, 2.5, 5, 7.5, 10])
  data = (tmp_path / 'z.tif').read_bytes()
  (offset,) = [n for n in range(len(data)) if data[n : n + 60] == pages[2].tobytes()[:60]]
  # Its pixels are where the file has ended.
  table = data.replace(offset.to_bytes(4, 'little'), (len(data) - 9).to_bytes(4, 'little'))
  (tmp_path / 'z.tif').write_bytes(table)
  stack = read_stack_folder(tmp_path / 'z.tif')
  np.testing.assert_allclose(stack.focus, [0, 2.5, 7.5, 10])
  assert stack.names == [f'z_{n:03}.tif' for n in (0, 1, 3, 4)]
  assert 'z_002.tif' in left_out(stack)[0]


def test_a_tiff_without_any_number_among_others(tmp_path):
  for n in range(4):
    values = np.random.default_rng(n).random((9, 12, 1)).astype(np.float32)
    write_tiff(tmp_path / f'{n}.tif', np.full_like(values, np.nan) if n == 1 else values)
  stack = read_stack_folder(tmp_path)
  assert (stack.names, stack.focus_unit) == (['0.tif', '2.tif', '3.tif'], FRAME_INDEX_UNIT)
  assert 'NaN' in left_out(stack)[0]


def scene(seed, low=20, high=230):
  """Of about the same brightness for any seed, 0 .. 255."""
  return np.random.default_rng(seed).integers(low, high, (32, 48), dtype=np.uint8)


@pytest.mark.parametrize(
  ('scales', 'told'),
  [
    ([257, 257, 16, 257, 257], 'white is 65535 in 0.tif, 1.tif, 3.tif, 4.tif and 4095 in 2.tif'),
    ([16, 16, 257, 16, 16], 'white is 4095 in 0.tif, 1.tif, 3.tif, 4.tif and 65535 in 2.tif'),
    ([1, 257, 16, 1], '255 in 0.tif, 3.tif'),
    ([0, 0, 16, 0], None),  # 0: of 8 bits
    ([0, 0, 257, 0], None),
    ([0, 1, 0, 16, 0], '255 in 1.tif'),
  ],
)
def test_frames_on_different_scales_are_equally_bright(tmp_path, scales, told):
  for n, scale in enumerate(scales):
    values = scene(n)
    Image.fromarray(values.astype(np.uint16) * scale if scale else values).save(tmp_path / f'{n}.tif')
  stack = read_stack_folder(tmp_path)
  for n, image in enumerate(stack.images):
    np.testing.assert_allclose(image[..., 0], scene(n), atol=1)
  notes = [note for note in stack.notes if 'on different scales' in note]
  assert bool(notes) == bool(told)
  assert not told or told in notes[0]
  # Read again, each keeps its own; also in another order.
  turned = stack.reversed('')
  np.testing.assert_array_equal(turned.reader.read(0), stack.images[-1])


def test_dim_frames_of_16_bits_are_as_bright_as_others_of_8(tmp_path):
  for n in range(4):
    values = scene(n, 5, 50)
    Image.fromarray(values.astype(np.uint16) * 257 if n == 2 else values).save(tmp_path / f'{n}.tif')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images[2, ..., 0], scene(2, 5, 50), atol=1)


def test_exposures_that_differ_are_no_scales(tmp_path):
  """As of a flash that did not go off: what is darker stays darker."""
  for n in range(5):
    values = scene(n).astype(np.uint16) * 257
    Image.fromarray(values // 6 if n == 3 else values).save(tmp_path / f'{n}.tif')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.images[3, ..., 0], scene(3) / 6, atol=1)
  for n in range(3):
    Image.fromarray(np.full((32, 48), 40 * n, np.uint16)).save(tmp_path / f'{n + 5}.tif')  # and nearly black ones
  assert read_stack_folder(tmp_path).images[5:].max() == 0


def test_floating_point_values_on_different_scales(tmp_path):
  for n in range(5):
    write_tiff(tmp_path / f'{n}.tif', scene(n)[..., None].astype(np.float32) / (255 if n != 1 else 1))
  stack = read_stack_folder(tmp_path)
  for n, image in enumerate(stack.images):
    np.testing.assert_allclose(image[..., 0], scene(n), atol=1)
  assert any('white is 1 in 0.tif, 2.tif, 3.tif, 4.tif and 255 in 1.tif' in note for note in stack.notes)


def test_each_frame_is_on_one_scale():
  # Two dark ones, which are on none of their own, beside five.
  (scale,) = scales_of([2.0, 100.0, 102.0, 1.0, 98.0, 101.0, 99.0], [255.0] * 7, [255.0, 1023.0])
  assert scale == ([0, 1, 2, 3, 4, 5, 6], None)
