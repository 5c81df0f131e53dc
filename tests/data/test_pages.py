"""Stacks in the pages of one TIFF, as written by microscope software."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from focal_jax.data import tiff
from focal_jax.data.folder import read_stack_folder
from focal_jax.data.formats import readable_suffixes
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.errors import InputError

BLOCKS = np.random.default_rng(0).integers(20, 120, (8, 8)).repeat(4, 0).repeat(4, 1)


def write_pages(path, pages, description='', **options):
  """Pages [H, W] of 8 or 16 bits; the description is that of the first."""
  first, *rest = (Image.fromarray(page) for page in pages)
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  if description:
    tags[270] = description
  first.save(path, save_all=True, append_images=rest, tiffinfo=tags, **options)


def brighter(count, dtype=np.uint8):
  """Pages that can be told apart: each is brighter by 1."""
  return [(BLOCKS + n).astype(dtype) for n in range(count)]


def page_numbers(stack):
  return (stack.images[:, 0, 0, 0].astype(int) - BLOCKS[0, 0]).tolist()


def ome(z, c=1, order='XYCZT', pixels='', inside=''):
  return (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    f'<Image ID="Image:0"><Pixels DimensionOrder="{order}" SizeX="32" SizeY="32" SizeZ="{z}" SizeC="{c}" SizeT="1" '
    f'{pixels}>{inside}</Pixels></Image></OME>'
  )


def test_pages_are_frames(tmp_path):
  write_pages(tmp_path / 'z.tif', brighter(4))
  for source in (tmp_path, tmp_path / 'z.tif', [tmp_path / 'z.tif']):
    stack = read_stack_folder(source)
    assert page_numbers(stack) == [0, 1, 2, 3]
    assert stack.names == ['z_000.tif', 'z_001.tif', 'z_002.tif', 'z_003.tif']
    assert (stack.focus_unit, stack.order_known) == (FRAME_INDEX_UNIT, False)
    assert stack.paths == (tmp_path / 'z.tif',) * 4
  assert page_numbers(read_stack_folder(tmp_path, reverse=True)) == [3, 2, 1, 0]
  (tmp_path / 'focus_distance.txt').write_text('1 2 4 8')
  np.testing.assert_array_equal(read_stack_folder(tmp_path).focus, [0.125, 0.25, 0.5, 1])
  (tmp_path / 'focus_distance.txt').unlink()
  (tmp_path / 'metadata.csv').write_text('file,focus_dpt\n' + ''.join(f'z_00{n}.tif,{n}\n' for n in range(4)))
  stack = read_stack_folder(tmp_path)
  assert (stack.focus.tolist(), stack.focus_unit, stack.order_known) == ([0, 1, 2, 3], DIOPTRE_UNIT, True)


def test_the_first_of_several_images(tmp_path):
  """As microscopes write several positions of the stage."""
  xml = ome(3, 2, 'XYCZT', 'PhysicalSizeZ="2"').replace('</OME>', '<Image ID="Image:1"><Pixels/></Image></OME>')
  write_pages(tmp_path / 'z.tif', brighter(12), xml)
  stack = read_stack_folder(tmp_path, channel=1)
  assert (page_numbers(stack), stack.focus.tolist(), stack.focus_unit) == ([1, 3, 5], [0, 2, 4], 'um')
  assert 'Only the first of the 2 images in z.tif was read.' in stack.notes
  # If each image has one position, they are the stack.
  write_pages(tmp_path / 'z.tif', brighter(3), ome(1).replace('</OME>', '<Image/><Image/></OME>'))
  assert page_numbers(read_stack_folder(tmp_path)) == [0, 1, 2]


def test_channels_that_are_a_stack(tmp_path):
  write_pages(tmp_path / 'z.tif', brighter(5), ome(1, 5))
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 2, 3, 4]
  assert any('several channels but one position: the channels were taken as the stack' in note for note in stack.notes)
  write_pages(tmp_path / 'z.tif', brighter(4), ome(1, 4))
  with pytest.raises(InputError, match=r'one image \(z\.tif\), expected at least two'):
    read_stack_folder(tmp_path)


def test_16_bit_pages_share_their_white(tmp_path):
  write_pages(tmp_path / 'z.tif', [(page * 16).astype(np.uint16) for page in brighter(3, np.uint16)])
  stack = read_stack_folder(tmp_path)
  expected = np.round(np.stack(brighter(3, np.uint16)) * 16 * (255 / 4095))
  np.testing.assert_allclose(stack.images[..., 0], expected, atol=0.51)


@pytest.mark.parametrize(
  ('description', 'focus', 'unit'),
  [
    (ome(4, pixels='PhysicalSizeZ="0.5"'), [0, 0.5, 1, 1.5], 'um'),
    (ome(4, pixels='PhysicalSizeZ="200" PhysicalSizeZUnit="nm"'), [0, 200, 400, 600], 'nm'),
    (ome(4, pixels='PhysicalSizeZ="2e-6" PhysicalSizeZUnit="m"'), [0, 2, 4, 6], 'um'),
    (ome(4), [0, 1, 2, 3], FRAME_INDEX_UNIT),
    (
      ome(
        4,
        pixels='PhysicalSizeZ="9"',
        inside=''.join(
          f'<Plane TheZ="{n}" TheC="0" TheT="0" PositionZ="{2 - 2 * n}" PositionZUnit="µm"/>' for n in range(4)
        ),
      ),
      [2, 0, -2, -4],
      'um',
    ),
    ('ImageJ=1.54f\nimages=4\nslices=4\nunit=\\u00B5m\nspacing=0.25\n', [0, 0.25, 0.5, 0.75], 'um'),
    ('ImageJ=1.54f\nimages=4\nslices=4\nunit=micron\nspacing=0.25\nloop=false\n', [0, 0.25, 0.5, 0.75], 'um'),
    ('ImageJ=1.54f\nimages=4\nslices=4\nunit=um\nspacing=-0.25\n', [0, -0.25, -0.5, -0.75], 'um'),
    ('ImageJ=1.54f\nimages=4\nslices=4\nunit=um\nspacing=0,25\n', [0, 0.25, 0.5, 0.75], 'um'),
    ('ImageJ=1.54f\nimages=4\nslices=4\nunit=um\nspacing=NaN\n', [0, 1, 2, 3], FRAME_INDEX_UNIT),
    (ome(4, pixels='PhysicalSizeZ="0.5" PhysicalSizeZUnit="?m"'), [0, 0.5, 1, 1.5], 'um'),
    (ome(4, pixels='PhysicalSizeZ="INF"'), [0, 1, 2, 3], FRAME_INDEX_UNIT),
    ('ImageJ=1.54f\nimages=4\nslices=4\nloop=false\n', [0, 1, 2, 3], FRAME_INDEX_UNIT),
    ('ImageJ=1.54f\nimages=4\nframes=4\n', [0, 1, 2, 3], FRAME_INDEX_UNIT),
    ('<OME damaged', [0, 1, 2, 3], FRAME_INDEX_UNIT),
    (ome(7), [0, 1, 2, 3], FRAME_INDEX_UNIT),  # not what is in the file
  ],
)
def test_positions(tmp_path, description, focus, unit):
  write_pages(tmp_path / 'z.ome.tif', brighter(4), description.encode())
  stack = read_stack_folder(tmp_path)
  np.testing.assert_allclose(stack.focus, focus)
  assert not np.signbit(stack.focus[stack.focus == 0]).any()
  assert page_numbers(stack) == [0, 1, 2, 3]
  assert (stack.focus_unit, stack.order_known) == (unit, False)
  np.testing.assert_array_equal(stack.fov, np.ones(4))


@pytest.mark.parametrize(
  ('description', 'pages'),
  [
    (ome(3, 2, 'XYCZT'), [[0, 2, 4], [1, 3, 5]]),
    (ome(3, 2, 'XYZCT'), [[0, 1, 2], [3, 4, 5]]),
    ('ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n', [[0, 2, 4], [1, 3, 5]]),
    (
      ome(
        3,
        2,
        inside=''.join(f'<TiffData IFD="{n}" FirstZ="{2 - n % 3}" FirstC="{n // 3}" FirstT="0"/>' for n in range(6)),
      ),
      [[2, 1, 0], [5, 4, 3]],
    ),
  ],
)
def test_channels(tmp_path, description, pages):
  write_pages(tmp_path / 'z.tif', brighter(6), description.encode())
  for channel in range(2):
    stack = read_stack_folder(tmp_path, channel=channel)
    assert page_numbers(stack) == pages[channel]
    assert f'Depth is from channel {channel} (counted from 0) of the 2 in z.tif.' in stack.notes
  with pytest.raises(InputError, match=r'channel is 2, expected 0 \.\. 1, the channels of .*z\.tif'):
    read_stack_folder(tmp_path, channel=2)


def test_channel_with_structure_is_chosen(tmp_path):
  noise = np.random.default_rng(1)
  dim = [(100 + noise.normal(0, 5, BLOCKS.shape)).astype(np.uint8) for _ in range(3)]
  pages = [page for pair in zip(dim, brighter(3), strict=True) for page in pair]
  write_pages(tmp_path / 'z.tif', pages, b'ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\n')
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 2]
  assert 'Depth is from channel 1 (counted from 0) of the 2 in z.tif.' in stack.notes


def test_files_of_one_channel_each(tmp_path):
  noise = np.random.default_rng(1)
  write_pages(tmp_path / 'c0.tif', [(100 + noise.normal(0, 5, BLOCKS.shape)).astype(np.uint8) for _ in range(3)])
  write_pages(tmp_path / 'c1.tif', brighter(3))
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 2]
  assert 'Every file is a stack: depth is from c1.tif; not read: c0.tif.' in stack.notes


def test_pages_of_other_sizes_are_noted(tmp_path):
  pages = brighter(5)
  pages[2] = pages[2][:30]  # by a scanner
  pages[4] = pages[4][::2, ::2]  # a preview
  write_pages(tmp_path / 'z.tif', pages)
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 3]
  assert '1 page of another size was not read in z.tif; the others are 32 x 32 pixels.' in stack.notes


def test_stack_beside_a_picture(tmp_path):
  write_pages(tmp_path / 'z.tif', brighter(4))
  Image.new('RGB', (200, 100)).save(tmp_path / 'overview.jpg')
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 2, 3]
  assert 'z.tif is a stack: depth is from z.tif; not read: overview.jpg.' in stack.notes
  assert page_numbers(read_stack_folder(tmp_path / '*.tif')) == [0, 1, 2, 3]


@pytest.mark.parametrize('suffix', ['gif', 'png', 'webp', 'avif'])
def test_animations(tmp_path, suffix):
  if f'.{suffix}' not in readable_suffixes():
    pytest.skip(f'Pillow was built without {suffix}')
  colours = np.random.default_rng(2).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
  first, *rest = (Image.fromarray(frame) for frame in colours)
  quality = (
    {'quality': 100, 'subsampling': '4:4:4'} if suffix == 'avif' else {'lossless': True} if suffix == 'webp' else {}
  )
  first.save(tmp_path / f'z.{suffix}', save_all=True, append_images=rest, **quality)
  for source in (tmp_path, tmp_path / f'z.{suffix}'):
    stack = read_stack_folder(source)
    assert stack.names == [f'z_00{n}.{suffix}' for n in range(4)]
    np.testing.assert_allclose(stack.images.astype(int), colours, atol=8 if suffix == 'avif' else 0)
    assert not any('Transparency' in note for note in stack.notes)
  np.testing.assert_array_equal(stack.frame(1, max_side=16), read_stack_folder(tmp_path, max_side=16).images[1])
  # Next to photographs it is a program's result, however many images it has.
  for n in range(2):
    first.save(tmp_path / f'IMG_{n}.jpg')
  assert read_stack_folder(tmp_path).names == ['IMG_0.jpg', 'IMG_1.jpg']


def test_previews_may_come_first(tmp_path):
  page = Image.fromarray(brighter(1)[0])
  for name in ('1.tif', '2.tif'):
    page.resize((8, 8)).save(tmp_path / name, save_all=True, append_images=[page])
  stack = read_stack_folder(tmp_path)
  assert stack.images.shape == (2, 32, 32, 3)
  assert not any('only the first' in note for note in stack.notes)
  first, *rest = (Image.fromarray(one) for one in brighter(4))
  first.resize((8, 8)).save(tmp_path / 'z.tif', save_all=True, append_images=[first, *rest])
  assert page_numbers(read_stack_folder(tmp_path / 'z.tif')) == [0, 1, 2, 3]


def test_a_truncated_stack(tmp_path):
  pages = [Image.fromarray(page) for page in brighter(4)]
  pages[0].save(tmp_path / 'z.tif', save_all=True, append_images=pages[1:])
  whole = (tmp_path / 'z.tif').read_bytes()
  starts = [page.offset for page in tiff.read_pages(tmp_path / 'z.tif')]
  (tmp_path / 'z.tif').write_bytes(whole[: starts[3]])
  stack = read_stack_folder(tmp_path)
  assert page_numbers(stack) == [0, 1, 2]
  assert 'z.tif is truncated: 3 of its pages were read.' in stack.notes
  (tmp_path / 'z.tif').write_bytes(whole[: starts[1]])
  for source in (tmp_path, tmp_path / 'z.tif'):
    with pytest.raises(InputError, match='it is truncated: pages are missing'):
      read_stack_folder(source)
  # For single images, data after the last page does not matter.
  (tmp_path / 'y.tif').write_bytes(whole[: starts[1]])
  assert read_stack_folder(tmp_path).names == ['y.tif', 'z.tif']


def plane_of(file, z, c=0, page=0):
  return (
    f'<TiffData FirstZ="{z}" FirstC="{c}" FirstT="0" IFD="{page}" PlaneCount="1"><UUID FileName="{file}"/></TiffData>'
  )


def test_ome_of_a_file_for_each_plane(tmp_path):
  """The XML, which is in the first file alone, has another order than the names."""
  spacing = 'PhysicalSizeZ="1.5"'
  xml = ome(3, pixels=spacing, inside=''.join(plane_of(f'p{n}.ome.tif', 2 - n) for n in range(3)))
  for n, page in enumerate(brighter(3)):
    write_pages(tmp_path / f'p{n}.ome.tif', [page], '' if n else xml.encode())
  stack = read_stack_folder(tmp_path)
  assert (page_numbers(stack), stack.focus.tolist(), stack.focus_unit) == ([2, 1, 0], [0, 1.5, 3], 'um')
  assert stack.names == ['p2.ome.tif', 'p1.ome.tif', 'p0.ome.tif']


def test_ome_of_a_file_for_each_channel(tmp_path):
  inside = ''.join(plane_of(f'c{c}.ome.tif', z, c, z) for c in range(2) for z in range(3))
  for c in range(2):
    xml = ome(3, 2, pixels='PhysicalSizeZ="2"', inside=inside)
    write_pages(tmp_path / f'c{c}.ome.tif', brighter(6)[3 * c : 3 * c + 3], xml.encode())
  for channel in range(2):
    stack = read_stack_folder(tmp_path, channel=channel)
    assert (page_numbers(stack), stack.focus.tolist()) == ([3 * channel + n for n in range(3)], [0, 2, 4])
    assert any(f'Depth is from channel {channel}' in note for note in stack.notes)
    single = read_stack_folder(tmp_path / f'c{channel}.ome.tif')  # the other file left at home
    assert (page_numbers(single), single.focus.tolist()) == (page_numbers(stack), [0, 2, 4])
  with pytest.raises(InputError, match=r'channel is 2, expected 0 \.\. 1'):
    read_stack_folder(tmp_path, channel=2)


def test_ome_whose_files_are_not_there(tmp_path):
  xml = ome(3, pixels='PhysicalSizeZ="1.5"', inside=''.join(plane_of(f'other{n}.tif', n) for n in range(3)))
  for n, page in enumerate(brighter(3)):
    write_pages(tmp_path / f'p{n}.ome.tif', [page], xml.encode())
  stack = read_stack_folder(tmp_path)
  assert (page_numbers(stack), stack.focus_unit) == ([0, 1, 2], FRAME_INDEX_UNIT)


def test_previews_make_no_stack(tmp_path):
  for name in ('1.tif', '2.tif'):
    page = Image.fromarray(brighter(1)[0])
    page.save(tmp_path / name, save_all=True, append_images=[page.resize((8, 8))])
  assert read_stack_folder(tmp_path).names == ['1.tif', '2.tif']
  with pytest.raises(InputError, match=r'1\.tif: Not a directory, expected a folder of images, or a multi-page TIFF'):
    read_stack_folder(tmp_path / '1.tif')
