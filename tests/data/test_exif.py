"""EXIF blocks packed here by the standard, entry by entry, and a real tablet's."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from focal_jax.align.measured import residual_motion
from focal_jax.data.folder import read_stack_folder
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT, INVERSE_DISTANCE_UNIT
from focal_jax.errors import InputError

F_NUMBER, SUBJECT_DISTANCE, FOCAL_LENGTH, EQUIVALENT = 0x829D, 0x9206, 0x920A, 0xA405
WIDTH_TAKEN, HEIGHT_TAKEN, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0xA002, 0xA003, 0xA20E, 0xA20F, 0xA210
INFINITY = (0xFFFFFFFF, 1)
SHORT, LONG, RATIONAL = 3, 4, 5


def exif_block(tags: dict, orientation: int = 1) -> bytes:
  """Big-endian; integers become SHORT, pairs RATIONAL."""
  entries, values = b'', b''
  after = 38 + 2 + 12 * len(tags) + 4
  for tag, value in sorted(tags.items()):
    if isinstance(value, tuple):
      entries += struct.pack('>HHII', tag, RATIONAL, 1, after + len(values))
      values += struct.pack('>II', *value)
    else:
      entries += struct.pack('>HHIHH', tag, SHORT, 1, value, 0)
  main = struct.pack('>HHHIHHHHIII', 2, 0x0112, SHORT, 1, orientation, 0, 0x8769, LONG, 1, 38, 0)
  return b'Exif\0\0MM\0*' + struct.pack('>I', 8) + main + struct.pack('>H', len(tags)) + entries + bytes(4) + values


def write_frames(folder: Path, *frames: dict, size: tuple[int, int] = (60, 40), orientation: int = 1) -> None:
  """00.jpg, 01.jpg, ... with these tags."""
  for n, tags in enumerate(frames):
    Image.new('RGB', size, (40 * n + 40,) * 3).save(folder / f'{n:02}.jpg', exif=exif_block(tags, orientation))


def distances(*pairs: tuple[int, int] | None, **others) -> list[dict]:
  return [({} if pair is None else {SUBJECT_DISTANCE: pair}) | others.get('others', {}) for pair in pairs]


PHONE = {FOCAL_LENGTH: (430, 100), F_NUMBER: (18, 10)}


def test_numbers_that_are_no_fractions(tmp_path):
  for n, distance in enumerate((2.0, 1.0, 0.5)):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[SUBJECT_DISTANCE] = distance  # Pillow writes a double
    Image.new('RGB', (60, 40), (40 * n,) * 3).save(tmp_path / f'{n}.jpg', exif=exif)
  np.testing.assert_array_equal(read_stack_folder(tmp_path).focus, [0.5, 1, 2])


def test_metres(tmp_path):
  write_frames(tmp_path, *distances(INFINITY, (2, 1), (50, 100), others=PHONE))
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0, 0.5, 2])
  assert (stack.focus_unit, stack.f_number, stack.focal_length_px) == (DIOPTRE_UNIT, 1.8, None)
  inverse = 1 / 4.3e-3
  np.testing.assert_allclose(stack.fov, [inverse / (inverse - 2), (inverse - 0.5) / (inverse - 2), 1], rtol=1e-6)
  assert stack.notes == [
    'SubjectDistance in EXIF was read as metres, the standard unit; some devices write dioptres (exif_dioptres).',
    'Focus distances are from EXIF, the focal length from EXIF.',
  ]


@pytest.mark.parametrize(('values', 'told'), [([(4000, 1), (2000, 1), (500, 1)], True), ([(40, 1), (4, 1)], False)])
def test_distances_that_may_be_in_millimetres_are_noted(tmp_path, values, told):
  write_frames(tmp_path, *distances(*values))
  notes = read_stack_folder(tmp_path).notes
  assert any('is 500 m: SubjectDistance may be in another unit, such as mm' in note for note in notes) == told


def test_dioptres(tmp_path):
  write_frames(tmp_path, *distances((4, 1), (0, 1), (25, 10), others=PHONE))
  stack = read_stack_folder(tmp_path, exif_dioptres=True)
  assert stack.names == ['01.jpg', '02.jpg', '00.jpg']
  assert stack.focus_unit == DIOPTRE_UNIT
  np.testing.assert_array_equal(stack.focus, [0, 2.5, 4])
  inverse = 1 / 4.3e-3
  np.testing.assert_allclose(stack.fov, [inverse / (inverse - 4), (inverse - 2.5) / (inverse - 4), 1], rtol=1e-6)
  assert 'EXIF is not in order: the frames were sorted far to near.' in stack.notes


def test_near_to_far(tmp_path):
  write_frames(tmp_path, *distances((1, 5), (1, 2), (3, 1)))
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['02.jpg', '01.jpg', '00.jpg']
  np.testing.assert_allclose(stack.focus, [1 / 3, 2, 5])
  np.testing.assert_array_equal(stack.fov, [1, 1, 1])
  assert 'EXIF goes from near to far: the frames were reversed.' in stack.notes
  assert any('No focal length' in note for note in stack.notes)


@pytest.mark.parametrize(
  ('values', 'note'),
  [
    (
      [(0, 1), (1, 2), (3, 1)],
      '0 in 00.jpg is not a distance in metres, but may be in dioptres, which some devices write',
    ),
    ([(2, 1), (4, 1000), (3, 1)], '0.004 in 01.jpg is not a distance in metres, but may be in dioptres'),
    ([(0, 1), (300, 1), (3, 1)], '0 in 00.jpg is not a distance in metres.'),  # 1/300 m is inside the focal length.
    ([(0, 1), INFINITY, (3, 1)], '0 in 00.jpg is not a distance in metres.'),
    ([(1, 2), (1, 2), (2, 4)], 'it is 0.5 m in every frame'),
    ([None, (1, 2), None], '00.jpg, 02.jpg have none'),
    ([(1, 0), (1, 2), (0, 0)], '02.jpg has none'),
    ([(0, 1), (0, 1), (0, 1)], None),
    ([None, None, None], None),
  ],
)
def test_values_that_are_no_sweep_in_metres(tmp_path, values, note):
  write_frames(tmp_path, *distances(*values, others=PHONE))
  stack = read_stack_folder(tmp_path)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  np.testing.assert_array_equal(stack.focus, [0, 1, 2])
  np.testing.assert_array_equal(stack.fov, [1, 1, 1])
  ignored = [remark for remark in stack.notes if 'SubjectDistance in EXIF was ignored' in remark]
  assert ignored == [] if note is None else note in ignored[0]
  assert ('exif_dioptres' in ''.join(stack.notes)) == (note is not None and 'dioptres' in note)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ([None, (1, 2), (1, 0)], r'EXIF of 00\.jpg, 02\.jpg: no finite SubjectDistance, expected one in dioptres'),
    ([INFINITY, (1, 2), (1, 1)], r'EXIF of 00\.jpg: no finite SubjectDistance'),
    ([(0, 1), (300, 1), (3, 1)], r'frame 1 is 0\.0033.*, inside the focal length 0\.0043'),
    ([(3, 1), (3, 1), (3, 1)], r'the focus distance is 0\.333333 in every frame, expected a sweep'),
  ],
)
def test_values_that_are_no_sweep_in_dioptres(tmp_path, values, message):
  write_frames(tmp_path, *distances(*values, others=PHONE))
  with pytest.raises(InputError, match=message) as caught:
    read_stack_folder(tmp_path, exif_dioptres=True)
  assert '\n' not in str(caught.value)


# An image of 60 x 40 px corresponds to 36 mm in the 35 mm format: 36 mm are 60 px. A sensor with 50 px per cm is 12 mm
# wide; a 6 mm lens on it is equivalent to 18 mm: 30 px.
SENSOR = {FOCAL_LENGTH: (6, 1), X_RESOLUTION: (50, 1), Y_RESOLUTION: (100, 1), RESOLUTION_UNIT: 3}


@pytest.mark.parametrize(
  ('tags', 'orientation', 'focal_length_px'),
  [
    ({EQUIVALENT: 36}, 1, 60),
    ({EQUIVALENT: 36}, 6, 60),
    ({EQUIVALENT: 72} | SENSOR, 1, 120),
    ({EQUIVALENT: 0} | SENSOR, 1, 30),  # 0: the equivalent is not known.
    (SENSOR, 1, 30),
    (SENSOR, 8, 60),  # Across the upright image lies what is Y in the file.
    (SENSOR | {WIDTH_TAKEN: 120, HEIGHT_TAKEN: 80}, 1, 15),  # It was reduced since.
    (SENSOR | {X_RESOLUTION: (127, 1), RESOLUTION_UNIT: 2}, 1, 30),
    ({FOCAL_LENGTH: (6, 1), X_RESOLUTION: (127, 1)}, 1, 30),  # Inches unless it says otherwise.
    (SENSOR | {X_RESOLUTION: (5, 1), RESOLUTION_UNIT: 4}, 1, 30),
    (SENSOR | {X_RESOLUTION: (1, 0)}, 1, None),
    ({FOCAL_LENGTH: (6, 1)}, 1, None),
    ({X_RESOLUTION: (50, 1)}, 1, None),
  ],
)
def test_focal_length_in_pixels(tmp_path, tags, orientation, focal_length_px):
  write_frames(tmp_path, tags, tags, orientation=orientation)
  stack = read_stack_folder(tmp_path)
  reduced = read_stack_folder(tmp_path, max_side=30, region=(4, 4, 20, 20))
  half = read_stack_folder(tmp_path, max_side=30)
  assert ('approximate' in ''.join(stack.notes)) == (focal_length_px is not None)
  if focal_length_px is None:
    assert stack.focal_length_px is None
  else:
    assert stack.focal_length_px == pytest.approx(focal_length_px)
    assert reduced.focal_length_px == pytest.approx(focal_length_px)
    assert half.focal_length_px == pytest.approx(focal_length_px / 2)


def test_equivalents_go_by_the_diagonal(tmp_path):
  write_frames(tmp_path, {EQUIVALENT: 26}, {EQUIVALENT: 26}, size=(80, 60))
  # 4:3; the diagonal of a full frame is 43.27 mm, that of the image is 100 px.
  assert read_stack_folder(tmp_path).focal_length_px == pytest.approx(26 * 100 / math.sqrt(36**2 + 24**2))


def test_lens_that_changes_is_ignored(tmp_path):
  far, near = distances((3, 1), (1, 1))
  write_frames(tmp_path, far | {FOCAL_LENGTH: (24, 1)} | {F_NUMBER: (4, 1)}, near | {FOCAL_LENGTH: (70, 1)})
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.fov, [1, 1])
  assert 'focal_length_mm in EXIF was ignored: it ranges from 24 to 70.' in stack.notes
  assert stack.f_number == 4


def test_other_sources_come_first(tmp_path):
  write_frames(tmp_path, *distances((3, 1), (1, 1), others=PHONE | {EQUIVALENT: 36}))
  (tmp_path / 'metadata.csv').write_text('file,focus_distance_m,f_number\n00.jpg,8,2\n01.jpg,4,\n')
  stack = read_stack_folder(tmp_path, exif_dioptres=True)
  np.testing.assert_array_equal(stack.focus, [0.125, 0.25])
  assert (stack.focus_unit, stack.f_number) == (DIOPTRE_UNIT, 2)
  assert stack.focal_length_px == pytest.approx(60)
  inverse = 1 / 4.3e-3  # not in the sidecar
  np.testing.assert_allclose(stack.fov, [(inverse - 0.125) / (inverse - 0.25), 1], rtol=1e-6)
  assert 'Focus distances are from metadata.csv, the focal length from EXIF.' in stack.notes
  assert 'exif_dioptres was ignored: metadata.csv takes precedence.' in stack.notes

  (tmp_path / 'focus_distance.txt').write_text('20 10')
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0.05, 0.1])
  np.testing.assert_array_equal(stack.fov, [1, 1])  # The unit of EXIF's focal length need not be theirs.
  assert (stack.focus_unit, stack.f_number) == (INVERSE_DISTANCE_UNIT, 2)
  assert 'Focus in metadata.csv was ignored: focus_distance.txt takes precedence.' in stack.notes


@pytest.mark.parametrize('exif', [b'Exif\0\0MM\0*', b'Exif\0\0junk', exif_block(PHONE)[:60]])
def test_damaged_blocks_are_no_obstacle(tmp_path, exif):
  for n, name in enumerate('ab'):
    Image.new('RGB', (6, 4), (100 + n, 0, 0)).save(tmp_path / f'{name}.jpg', exif=exif)
  assert read_stack_folder(tmp_path).focus_unit == FRAME_INDEX_UNIT


@pytest.mark.parametrize('suffix', ['png', 'tif', 'webp'])
def test_other_formats(tmp_path, suffix):
  for n, value in enumerate([(3, 1), (1, 1)]):
    image = Image.new('RGB', (6, 4), (100 + 50 * n, 0, 0))
    image.save(tmp_path / f'{n}.{suffix}', exif=exif_block({SUBJECT_DISTANCE: value}))
  np.testing.assert_allclose(read_stack_folder(tmp_path).focus, [1 / 3, 1])


def test_infinity_may_be_a_number_over_0(tmp_path):
  # As Raspberry Pi cameras write lens positions from 0 dioptres.
  write_frames(tmp_path, *distances((1000, 0), (1000, 1000), (1000, 4000)))
  stack = read_stack_folder(tmp_path)
  np.testing.assert_array_equal(stack.focus, [0, 1, 4])
  assert (stack.focus_unit, stack.order_known) == (DIOPTRE_UNIT, True)


def xmp_packet(prop: str, value: object, element: bool = False) -> bytes:
  attribute = '' if element else f'{prop}="{value}"'
  content = f'<{prop}>{value}</{prop}>' if element else '<dc:format>image</dc:format>'
  return (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>'
    f'<rdf:Description aux:Lens="50" {attribute}>{content}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
  ).encode()


def write_xmp(
  path: Path, prop: str, value: object, element: bool = False, exif: bytes | None = None, deep=False
) -> None:
  """An image with an XMP packet that holds this property."""
  packet = xmp_packet(prop, value, element)
  image = Image.fromarray(np.full((4, 6), 9000, np.uint16)) if deep else Image.new('RGB', (6, 4), (100,) * 3)
  if path.suffix == '.png':
    options = {'pnginfo': PngInfo()}
    options['pnginfo'].add_itxt('XML:com.adobe.xmp', packet.decode())
  elif path.suffix == '.tif':
    options = {'tiffinfo': ImageFileDirectory_v2()}
    options['tiffinfo'][700] = packet
  else:
    options = {'xmp': packet}
  image.save(path, **options, **({'exif': exif} if exif else {}))


@pytest.mark.parametrize('element', [False, True])
@pytest.mark.parametrize(
  ('suffix', 'deep'),
  [('.jpg', False), ('.png', False), ('.png', True), ('.tif', False), ('.tif', True), ('.webp', False)],
)
def test_distances_in_xmp(tmp_path, suffix, deep, element):
  for n, distance in enumerate(('4294967295/1', '4/2', 0.5)):
    write_xmp(tmp_path / f'{n}{suffix}', 'aux:ApproximateFocusDistance', distance, element, deep=deep)
  stack = read_stack_folder(tmp_path)
  assert (stack.focus.tolist(), stack.focus_unit, stack.order_known) == ([0, 0.5, 2], DIOPTRE_UNIT, True)
  assert any('Focus distances are from XMP.' in note for note in stack.notes)


@pytest.mark.parametrize(
  ('values', 'focus', 'note'),
  [
    (('Infinity', '2,0', '500 mm'), [0, 0.5, 2], 'are from XMP'),
    ((1, 1, 1), None, 'The focus distance in XMP was ignored: it is 1 m in every frame.'),
    ((0, '0/1', '0/0'), None, 'No focus distances'),
    (('', 2, 1), None, 'The focus distance in XMP was ignored: 0.jpg has none.'),
    (('a/b/c', '&#49;', '1/2/3'), None, 'No focus distances'),
    ((1, 1, 1, 1, 2, 1), None, 'The focus distance in XMP was ignored: it has only 2 values in 6 frames.'),
  ],
)
def test_values_in_xmp(tmp_path, values, focus, note):
  for n, value in enumerate(values):
    write_xmp(tmp_path / f'{n}.jpg', 'exif:SubjectDistance', value)
  stack = read_stack_folder(tmp_path)
  assert stack.focus.tolist() == (focus or list(range(len(values))))
  assert any(note in remark for remark in stack.notes)


@pytest.mark.parametrize('names', ['{}.xmp', '{}.JPG.XMP', '{}.ARW.xmp'])
def test_distances_in_xmp_files(tmp_path, names):
  for n, distance in enumerate((4, 2, '1/2')):
    write_xmp(tmp_path / f'Ä{n}.jpg', 'dc:title', '')
    (tmp_path / names.format(f'Ä{n}')).write_bytes(xmp_packet('aux:ApproximateFocusDistance', distance))
  (tmp_path / 'Ä3.xmp').write_bytes(xmp_packet('aux:ApproximateFocusDistance', 9))
  stack = read_stack_folder(tmp_path)
  assert (stack.focus.tolist(), stack.focus_unit, stack.order_known) == ([0.25, 0.5, 2], DIOPTRE_UNIT, True)
  assert not any('read' in note for note in stack.notes)
  write_xmp(tmp_path / 'Ä1.jpg', 'aux:ApproximateFocusDistance', 1)  # its own comes first
  assert read_stack_folder(tmp_path).focus.tolist() == [0.25, 1, 2]
  (tmp_path / names.format('Ä2')).write_bytes(b'\xff\xfe')
  stack = read_stack_folder(tmp_path)
  assert any('The focus distance in XMP was ignored: Ä2.jpg has none.' in note for note in stack.notes)


@pytest.mark.parametrize(('last', 'different'), [(0.501, False), (0.6, True)])
def test_exif_comes_before_xmp(tmp_path, last, different):
  for n, (exif, xmp) in enumerate([((4, 1), 4), ((2, 1), 2), ((1, 2), last)]):
    write_xmp(tmp_path / f'{n}.jpg', 'aux:ApproximateFocusDistance', xmp, exif=exif_block({SUBJECT_DISTANCE: exif}))
  stack = read_stack_folder(tmp_path)
  assert stack.focus.tolist() == [0.25, 0.5, 2]
  note = 'The focus distance in XMP differs from that in EXIF, which is used, in 2.jpg.'
  assert (note in stack.notes) == different


def test_xmp_replaces_exif_that_is_no_sweep(tmp_path):
  for n in range(3):
    write_xmp(
      tmp_path / f'{n}.jpg', 'aux:ApproximateFocusDistance', 4 >> n, exif=exif_block({SUBJECT_DISTANCE: (1, 1)})
    )
  stack = read_stack_folder(tmp_path)
  assert stack.focus.tolist() == [0.25, 0.5, 1]
  assert 'SubjectDistance in EXIF was ignored: it is 1 m in every frame.' in stack.notes


def test_capture_time(tmp_path):
  def write(name, second, fraction):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: f'2024:05:01 12:00:{second:02}', 0x9291: fraction})
    Image.new('RGB', (6, 4), (60 + second,) * 3).save(tmp_path / name, exif=exif)

  for name, second, fraction in [('D9998', 1, '20'), ('D9999', 1, '9'), ('D0001', 2, '05'), ('D0002', 2, '5')]:
    write(f'{name}.jpg', second, fraction)
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['D9998.jpg', 'D9999.jpg', 'D0001.jpg', 'D0002.jpg']
  np.testing.assert_array_equal(stack.focus, [0, 1, 2, 3])
  assert not stack.order_known
  assert any('the order of capture was taken as far to near' in note for note in stack.notes)
  write('D0001.jpg', 2, '7')  # after D0002, so that the names are no wrapped counter
  stack = read_stack_folder(tmp_path)
  assert stack.names == ['D0001.jpg', 'D0002.jpg', 'D9998.jpg', 'D9999.jpg']
  assert any('contradicts the order of the names' in note for note in stack.notes)


def test_tablet(shared):
  folder = shared / 'data' / 'stacks' / 'tablet_exif'
  plain = read_stack_folder(folder, max_side=64)
  assert (plain.focus_unit, plain.f_number) == (FRAME_INDEX_UNIT, 1.475)
  assert any('0 in 00.jpg is not a distance in metres, but may be in dioptres' in note for note in plain.notes)

  files = [folder / f'{n:02}.jpg' for n in (0, 3, 7, 10)]
  stack = read_stack_folder(files, max_side=256, exif_dioptres=True)
  assert stack.focus_unit == DIOPTRE_UNIT
  assert stack.focus.tolist() == [0, 1.8553, 4.7484, 7.2327]
  # f = 2.95 mm: 1 / (1 - 0.00295 * 7.2327) for the farthest.
  assert stack.fov[0] == pytest.approx(1.0218, abs=1e-4)
  # The zoom measured in the images is linear in the values, as it should be in dioptres, and frames focused farther
  # show more (though by 1.8 times as much as for a thin lens).
  zoom = residual_motion(stack.images).zoom
  slope, offset = np.polyfit(stack.focus, zoom, 1)
  np.testing.assert_allclose(zoom, offset + slope * stack.focus, atol=3e-4)
  assert 0.004 < slope < 0.007
