"""metadata.csv and metadata.json beside small images."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.folder import read_stack_folder
from focal_jax.data.metadata import DIOPTRE_UNIT, FRAME_INDEX_UNIT
from focal_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
  """With a.png, b.png and c.png, 60 x 40 pixels."""
  for n, name in enumerate('abc'):
    Image.new('RGB', (60, 40), (50 + 50 * n,) * 3).save(tmp_path / f'{name}.png')
  return tmp_path


def write_json(folder: Path, document: object) -> None:
  (folder / 'metadata.json').write_text(json.dumps(document))


def frames(field: str, *values: object) -> list[dict]:
  return [{'file': f'{name}.png', field: value} for name, value in zip('abc', values, strict=False)]


CSV = '\ufefffile, focal_length_mm ,focus_distance_m\r\nc.png,50,0.5\r\n\r\n"a.png",,inf\r\nb.png,50, 2\r\n'
JSON = {'focal_length_m': 0.05, 'frames': frames('focus_dpt', 0, 0.5, 2.0)}


@pytest.mark.parametrize('kind', ['csv', 'json'])
def test_focus_and_focal_length(folder, kind):
  if kind == 'csv':
    (folder / 'metadata.csv').write_text(CSV)
  else:
    write_json(folder, JSON)
  stack = read_stack_folder(folder)
  np.testing.assert_array_equal(stack.focus, [0, 0.5, 2])
  assert stack.focus_unit == DIOPTRE_UNIT
  assert stack.names == ['a.png', 'b.png', 'c.png']
  # f = 0.05 m: 1 / f - 1 / d is 20, 19.5 and 18.
  np.testing.assert_allclose(stack.fov, [20 / 18, 19.5 / 18, 1], rtol=1e-6)
  assert (stack.focal_length_px, stack.f_number, stack.principal_point_px) == (None, None, (29.5, 19.5))
  assert stack.notes == [f'Focus distances are from metadata.{kind}, the focal length from metadata.{kind}.']


@pytest.mark.parametrize(
  'text',
  [
    'File,Focus Distance (m),Focal length [mm]\na.png,inf,50\nb.png,2,\nc.png,0.5,\n',
    '# of today\nfile,focus_dpt,focal_length_mm\na.png,0,50\n# moved, then\nb.png,0.5,\n\nc.png,2,\n# end\n',
  ],
)
def test_as_people_write_it(folder, text):
  (folder / 'metadata.csv').write_text(text)
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0, 0.5, 2])


def test_a_name_is_no_comment(folder):
  (folder / 'c.png').rename(folder / '#c.png')
  (folder / 'metadata.csv').write_text('file,focus_dpt\na.png,0\nb.png,0.5\n#c.png,2\n')
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0, 0.5, 2])


@pytest.mark.parametrize('name', ['metadata.csv', 'metadata.json', 'focus_distance.txt'])
def test_a_link_to_nothing_and_a_folder_are_errors(folder, name):
  (folder / name).symlink_to('nothing')
  with pytest.raises(InputError, match=rf'/{name}: cannot be read as text \(No such file or directory\)$'):
    read_stack_folder(folder)
  (folder / name).unlink()
  (folder / name).mkdir()
  with pytest.raises(InputError, match=rf'/{name}: cannot be read as text \(Is a directory\)$'):
    read_stack_folder(folder)


def test_the_file_of_both_lengths_is_named_once(folder):
  rows = ''.join(f'{name}.png,{distance},50\n' for name, distance in (('a', 2), ('b', 1), ('c', 0.5)))
  (folder / 'metadata.csv').write_text(f'file,focus_distance_m,focal_length_m\n{rows}')
  with pytest.raises(
    InputError, match=r': metadata\.csv: focus distance of frame 0 is 2\.0, inside the focal length 50'
  ):
    read_stack_folder(folder)


def test_order_is_that_of_the_distances(folder):
  write_json(folder, {'frames': frames('focus_distance_m', 1, 'inf', 0.5)})
  stack = read_stack_folder(folder, reverse=True)
  assert stack.names == ['b.png', 'a.png', 'c.png']
  assert stack.images[:, 0, 0, 0].tolist() == [100, 50, 150]
  np.testing.assert_array_equal(stack.focus, [0, 1, 2])
  assert stack.notes == [
    'Focus distances are from metadata.json. No focal length: the field of view was assumed to be constant.',
    'metadata.json is not in order: the frames were sorted far to near.',
    'reverse was ignored: metadata.json gives the order.',
  ]


def test_camera(folder):
  write_json(folder, {'f_number': 2.8, 'focal_length_mm': 24, 'sensor_width_mm': 36})
  stack = read_stack_folder(folder)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert (stack.f_number, stack.focal_length_px) == (2.8, pytest.approx(40))
  # The longer side of the sensor is that of the frames, however they are held.
  for name in 'abc':
    Image.open(folder / f'{name}.png').transpose(Image.Transpose.ROTATE_90).save(folder / f'{name}.png')
  assert read_stack_folder(folder).focal_length_px == pytest.approx(40)

  write_json(
    folder,
    {
      'focal_length_mm': 24,
      'sensor_width_mm': 36,
      'focal_length_px': 44,
      'principal_point_x_px': 20,
      'principal_point_y_px': 30.5,
    },
  )
  stack = read_stack_folder(folder, max_side=30)
  assert stack.focal_length_px == 22
  assert stack.principal_point_px == (20.5 / 2 - 0.5, 31 / 2 - 0.5)

  write_json(folder, {'sensor_width_mm': 36})
  stack = read_stack_folder(folder)
  assert stack.focal_length_px is None
  assert 'sensor_width_mm in metadata.json was ignored: the focal length is unknown.' in stack.notes


def test_part_of_the_files(folder):
  write_json(folder, JSON)
  stack = read_stack_folder([folder / 'c.png', folder / 'a.png'])
  assert stack.names == ['a.png', 'c.png']
  np.testing.assert_array_equal(stack.focus, [0, 2])


ROWS = 'file,focus_distance_m\na.png,4\nb.png,2\nc.png,0.5\n'


@pytest.mark.parametrize(
  'data',
  [
    ROWS.encode('utf-8-sig'),
    ROWS.encode('utf-16'),
    ROWS.encode('utf-16-le'),
    b'\xfe\xff' + ROWS.encode('utf-16-be'),
    ROWS.replace(',', ';').replace('0.5', '0,5').encode('utf-8-sig'),
    ROWS.replace(',', '\t').replace('0.5', '0,5').replace('\n', '\r\n').encode('utf-16'),
    ('sep=;\r\n' + ROWS.replace(',', ';').replace('0.5', '0,50')).encode(),
    ROWS.replace('0.5', '"0,5"').encode(),
    ROWS.replace('file', 'FILE').encode(),
    ROWS.replace('a.png', 'A.PNG').encode(),
    b'file;focus_distance_m;;\na.png;4;;\nb.png;2;;\nc.png;,5;;\n;;;\n',
  ],
)
def test_csv_of_spreadsheets(folder, data):
  (folder / 'metadata.csv').write_bytes(data)
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0.25, 0.5, 2])


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('metadata.csv', 'file,focus_dpt\ra.png,0\rb.png,1\rc.png,2\r'),
    ('metadata.csv', '# rig 2\n# 2024-05-01\nfile,focus_dpt\na.png,0\nb.png,1\nc.png,2\n'),
    ('metadata.csv', ',file,focus_dpt\n0,a.png,0\n1,b.png,1\n2,c.png,2\n'),
    ('metadata.csv', 'file,focus_distance_m\na.png,∞\nb.png,1\nc.png,0.5\n'),
    ('Metadata.CSV', 'file,focus_dpt\na.png,0\nb.png,1\nc.png,2\n'),
    ('Metadata.JSON', json.dumps({'frames': frames('focus_dpt', 0, 1, 2)})),
    ('FOCUS_DISTANCE.TXT', '# focus_unit: dpt\n0 1 2'),
  ],
)
def test_files_as_people_write_them(folder, name, text):
  (folder / name).write_text(text)
  stack = read_stack_folder(folder)
  assert (stack.focus.tolist(), stack.focus_unit) == ([0, 1, 2], DIOPTRE_UNIT)


@pytest.mark.parametrize(
  ('text', 'focus', 'unit'),
  [
    ('file,focus_distance_mm\na.png,4000\nb.png,2000\nc.png,500', [0.25, 0.5, 2], DIOPTRE_UNIT),
    ('file,Focus distance (cm)\na.png,infinity\nb.png,200\nc.png,50', [0, 0.5, 2], DIOPTRE_UNIT),
    ('file,distance (ft)\na.png,10\nb.png,5\nc.png,1', [1 / 3.048, 1 / 1.524, 1 / 0.3048], DIOPTRE_UNIT),
    ('file,focus_distance_m\na.png,4 m\nb.png,200 cm\nc.png,500mm', [0.25, 0.5, 2], DIOPTRE_UNIT),
    ('SourceFile,FocusDistance\n./a.png,inf\n./b.png,2.00 m\n./c.png,0.50 m', [0, 0.5, 2], DIOPTRE_UNIT),
    ('file,Focus (dioptres)\na.png,0\nb.png,1\nc.png,2', [0, 1, 2], DIOPTRE_UNIT),
    ('file,focus_dpt\na.png,0 D\nb.png,1D\nc.png,2 dpt', [0, 1, 2], DIOPTRE_UNIT),
    ('file,focus\na.png,0 D\nb.png,1 D\nc.png,2 D', [0, 1, 2], DIOPTRE_UNIT),
    ('Filename;Z [µm]\na.png;-2,5\nb.png;0\nc.png;2,5', [-2.5, 0, 2.5], 'um'),
    ('image,focus\na.png,-5 µm\nb.png,-0.0 µm\nc.png,5 µm', [-5, 0, 5], 'um'),
    ('file,focus,focus_unit\na.png,0,mm\nb.png,1 mm,\nc.png,2,', [0, 1, 2], 'mm'),
    ('file,focus_distance_m\na.png,Infinite\nb.png,infty\nc.png,2', [0, 0, 0.5], DIOPTRE_UNIT),
    ('file,focus_distance_m\na.png,1/0\nb.png,4/2\nc.png,1/2', [0, 0.5, 2], DIOPTRE_UNIT),
    ('file,focus distance [mm]\na.png,∞ mm\nb.png,2 m\nc.png,500', [0, 0.5, 2], DIOPTRE_UNIT),
    # As spreadsheets write them.
    ('file,focus_dpt,f_number\na.png,0,f/2.8\nb.png,1\nc.png,2\n\x1a', [0, 1, 2], DIOPTRE_UNIT),
    ('file,focus_dpt\na.png,0,,\nb.png,1,,\nc.png,2,,\n', [0, 1, 2], DIOPTRE_UNIT),
    ('file,focus_dpt\n"=""a.png""",0\n\'b.png\',1\nc.png,2\n', [0, 1, 2], DIOPTRE_UNIT),
  ],
)
def test_units(folder, text, focus, unit):
  (folder / 'metadata.csv').write_text(text)
  stack = read_stack_folder(folder)
  np.testing.assert_allclose(stack.focus, focus)
  assert stack.focus_unit == unit
  assert not np.signbit(stack.focus[stack.focus == 0]).any()


@pytest.mark.parametrize(
  ('text', 'ignored'),
  [
    ('file,exposure,focus_distance_m,ISO\na.png,1/60,4,100\nb.png,1/60,2,100\nc.png,1/60,0.5,100', 'exposure, ISO'),
    ('file,focus_dpt,comment\na.png,0.25,"a, ""b"""\nb.png,0.5,\n\nc.png,2,rough, but "sharp"\n\n', 'comment'),
    ('file,,Focus Distance [cm],\na.png,,400,\nb.png,,200,\nc.png,,50,\n', ''),
    ('file,Focus distance in mm,\na.png,4000,\nb.png,2000,\nc.png,500,\n', ''),
    ('Datei;Diopters;ISO\na.png;0,25;100\nb.png;0,5;100\nc.png;2;100', 'ISO'),
    ('file|FocusDistance|Aperture|time\n|m||s\na.png|4|f/2|1\nb.png|2|f/2|2\nc.png|0.5||3', 'time s'),
    ('file focus_dpt\na.png 0.25\nb.png 0.5\nc.png 2', ''),
    (
      'SourceFile,FileName,SubjectDistance,Z\n./a.png,a.png,4 m,1\nb.png,b.png,2 m,2\nc.png,c.png,0.5 m,3',
      'FileName, Z',
    ),
  ],
)
def test_other_columns_are_ignored(folder, text, ignored):
  (folder / 'metadata.csv').write_text(text)
  stack = read_stack_folder(folder)
  np.testing.assert_allclose(stack.focus, [0.25, 0.5, 2])
  assert stack.focus_unit == DIOPTRE_UNIT
  assert stack.f_number == (2 if 'Aperture' in text else None)
  notes = [note for note in stack.notes if note.startswith('Ignored in metadata.csv: ')]
  assert notes == ([f'Ignored in metadata.csv: {ignored}.'] if ignored else [])


@pytest.mark.parametrize(
  'header', ['X (um),Y (um),Z (\u03bcm)', 'x,y,stage z [microns]', 'x,y,ZPosition (\xb5m)', 'x,y,Z_um']
)
def test_positions_among_other_columns(folder, header):
  rows = ''.join(f'{name}.png,5,6,{2.5 * n}\n' for n, name in enumerate('abc'))
  (folder / 'metadata.csv').write_text(f'file,{header}\n{rows}')
  stack = read_stack_folder(folder)
  assert (stack.focus.tolist(), stack.focus_unit) == ([0, 2.5, 5], 'um')


def test_a_row_may_be_repeated(folder):
  (folder / 'metadata.csv').write_text('file,focus_dpt\na.png,0\nb.png,1\nc.png,2\nb.png,1\n')
  assert read_stack_folder(folder).focus.tolist() == [0, 1, 2]


def test_rows_of_files_that_are_not_there(folder):
  text = 'file,focus_dpt\na.png,0\nb.png,1\nc.png,2\nd.png,3\nTotal,6\n'
  (folder / 'metadata.csv').write_text(text)
  stack = read_stack_folder(folder)
  assert stack.focus.tolist() == [0, 1, 2]
  assert 'metadata.csv also lists d.png, Total, which are not there.' in stack.notes


@pytest.mark.parametrize(
  'document',
  [
    {
      'camera': {'model': 'A'},
      'frames': [entry | {'ISO': 100} for entry in frames('Focus distance (cm)', 400, 200, 50)],
    },
    {f'{name}.png': {'focus_dpt': focus, 'ISO': [1]} for name, focus in zip('abc', (0.25, 0.5, 2), strict=True)},
  ],
)
def test_other_fields_of_json_are_ignored(folder, document):
  write_json(folder, document)
  stack = read_stack_folder(folder)
  np.testing.assert_allclose(stack.focus, [0.25, 0.5, 2])
  (note,) = [note for note in stack.notes if note.startswith('Ignored in metadata.json: ')]
  assert 'ISO' in note


@pytest.mark.parametrize(
  'document',
  [
    frames('focus_distance_m', 4, 2, 0.5),
    {'frames': frames('focus_distance_mm', 4000, '2000', 500)},
    {'frames': frames('focus_distance_m', '4 m', '200 cm', 0.5)},
  ],
)
def test_units_in_json(folder, document):
  write_json(folder, document)
  np.testing.assert_allclose(read_stack_folder(folder).focus, [0.25, 0.5, 2])


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('metadata.json', '{"title": "Ants", "description": "", "access": "protected"}'),  # of albums of photographs
    ('metadata.json', '{"SensorTimestamp": 1, "LensPosition": 1.5, "FocusFoM": 300}'),  # of cameras
    ('metadata.csv', 'time,temperature\n12:00,20\n12:01,21\n'),
  ],
)
def test_a_file_of_another_program_is_noted(folder, name, text):
  (folder / name).write_text(text)
  stack = read_stack_folder(folder)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  notes = [note for note in stack.notes if 'was not read' in note]
  assert len(notes) == 1
  assert notes[0].startswith(f'{name} was not read: its fields are those of another program (')
  # One that names an image is meant for this.
  (folder / name).write_text(text.replace('protected', 'a.png').replace('1.5', '"a.png"').replace('20', 'a.png'))
  with pytest.raises(InputError, match=r'(fields|columns) are .*, expected '):
    read_stack_folder(folder)


@pytest.mark.parametrize('name', ['distances.txt', 'focus_distance.txt.txt', 'Metadata.txt'])
def test_text_of_another_name_is_noted(folder, name):
  (folder / name).write_text('4 2 1')
  (folder / 'notes.txt').write_text('ants')
  notes = read_stack_folder(folder).notes
  assert f'{name} was not read: focus distances are expected in metadata.csv.' in notes


def test_minus_of_typesetters(folder):
  (folder / 'metadata.csv').write_text('file,focus,focus_unit\na.png,\u22125,um\nb.png,0,\nc.png,5,\n')
  assert read_stack_folder(folder).focus.tolist() == [-5, 0, 5]
  (folder / 'metadata.csv').unlink()
  (folder / 'focus_distance.txt').write_text('\u22125um 0um 5um')
  assert read_stack_folder(folder).focus.tolist() == [-5, 0, 5]


def test_table_of_another_name_is_noted(folder):
  (folder / 'focus.csv').write_text('file,focus_dpt\na.png,0\nb.png,1\nc.png,2\n')
  stack = read_stack_folder(folder)
  assert stack.focus_unit == FRAME_INDEX_UNIT
  assert 'focus.csv was not read: focus distances are expected in metadata.csv.' in stack.notes
  (folder / 'focus.csv').rename(folder / 'Metadata.XLSX')
  (folder / '.~lock.Metadata.XLSX').write_text('')
  notes = read_stack_folder(folder).notes
  assert 'Metadata.XLSX was not read: focus distances are expected in metadata.csv.' in notes


def test_json_in_utf_16(folder):
  (folder / 'metadata.json').write_bytes(json.dumps(JSON).encode('utf-16'))
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0, 0.5, 2])


@pytest.mark.parametrize('encoding', ['utf-8', 'cp1252', 'utf-16'])
def test_names_look_alike(folder, encoding):
  for name in 'abc':
    (folder / f'{name}.png').rename(folder / unicodedata.normalize('NFD', f'Käfer_{name}.png'))
  text = 'file,focus_dpt\n' + ''.join(f'Käfer_{name}.PNG,{n}\n' for n, name in enumerate('abc'))
  (folder / 'metadata.csv').write_bytes(text.encode(encoding))
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0, 1, 2])


def test_case_matters_where_it_tells_files_apart(folder):
  Image.new('RGB', (60, 40), (200,) * 3).save(folder / 'C.png')
  entries = [{'file': name, 'focus_dpt': n} for n, name in enumerate(['a.png', 'b.png', 'c.png', 'C.png'])]
  write_json(folder, {'frames': entries})
  assert read_stack_folder(folder).names == ['a.png', 'b.png', 'c.png', 'C.png']


class TestPositions:
  def test_along_an_axis(self, folder):
    (folder / 'metadata.csv').write_text('file,focus,focus_unit\na.png,-2.5,um\nb.png,0,\nc.png,2.5,\n')
    stack = read_stack_folder(folder)
    np.testing.assert_array_equal(stack.focus, [-2.5, 0, 2.5])
    np.testing.assert_array_equal(stack.fov, [1, 1, 1])
    assert (stack.focus_unit, stack.order_known) == ('um', False)
    assert any('metadata.csv, in um, and so is depth' in note for note in stack.notes)
    assert read_stack_folder(folder, reverse=True).focus.tolist() == [2.5, 0, -2.5]

  def test_run_the_way_of_the_files(self, folder):
    write_json(folder, {'focus_unit': 'steps', 'frames': frames('focus', 10, -20, 0)})
    stack = read_stack_folder(folder)
    assert (stack.names, stack.focus.tolist()) == (['a.png', 'c.png', 'b.png'], [10, 0, -20])

  @pytest.mark.parametrize(('unit', 'values'), [('m', ['inf', 2, 0.5]), ('dpt', [0, 0.5, 2]), ('1/m', [0, 0.5, 2])])
  def test_known_units_are_those(self, folder, unit, values):
    write_json(folder, {'focus_unit': unit, 'focal_length_mm': 50, 'frames': frames('focus', *values)})
    stack = read_stack_folder(folder)
    np.testing.assert_array_equal(stack.focus, [0, 0.5, 2])
    assert (stack.focus_unit, stack.order_known) == (DIOPTRE_UNIT, True)
    assert stack.fov[0] > 1

  @pytest.mark.parametrize(
    ('text', 'focus', 'unit'),
    [
      ('0 5 10', [0, 5, 10], 'unit of focus_distance.txt'),
      ('# focus_unit: um\n1\n5\n10\n', [1, 5, 10], 'um'),
      ('focus_unit = mm\n-1 -0,5 0', [-1, -0.5, 0], 'mm'),
      ('1um\n5um\n10um\n', [1, 5, 10], 'um'),
      ('1 µm\n5 µm\n10 µm\n', [1, 5, 10], 'um'),
      ('# focus_unit: \u03bcm\n1\n5\n10', [1, 5, 10], 'um'),
      ('# focus_unit: Microns\n1\n5\n10', [1, 5, 10], 'um'),
      ('1 microns\n5 micron\n10 microns\n', [1, 5, 10], 'um'),
      ('4 meters\n2 metres\n1 meter\n', [0.25, 0.5, 1], DIOPTRE_UNIT),
      ('0D 1D 2 D', [0, 1, 2], DIOPTRE_UNIT),
      ('4,\n2,\n1,\n\x1a', [0.25, 0.5, 1], '1 / unit of focus_distance.txt'),
      ('# focus_unit: m\n4 2 1', [0.25, 0.5, 1], DIOPTRE_UNIT),
      ('# focus_unit: dpt\n0 2 4', [0, 2, 4], DIOPTRE_UNIT),
    ],
  )
  def test_in_the_text_file(self, folder, text, focus, unit):
    (folder / 'focus_distance.txt').write_text(text)
    stack = read_stack_folder(folder)
    assert (stack.focus.tolist(), stack.focus_unit) == (focus, unit)

  def test_unit_of_the_text_file_in_the_sidecar(self, folder):
    (folder / 'focus_distance.txt').write_text('1 5 10')
    write_json(folder, {'focus_unit': 'um'})
    stack = read_stack_folder(folder)
    assert (stack.focus.tolist(), stack.focus_unit) == ([1, 5, 10], 'um')

  @pytest.mark.parametrize(
    ('document', 'message'),
    [
      ({'focus_unit': 3}, r'focus_unit is 3, expected the name of a unit'),
      ({'focus_unit': 'um', 'frames': frames('focus_dpt', 0, 1, 2)}, "focus_unit is 'um' with focus_dpt"),
      ({'focus_unit': 'um', 'frames': frames('focus', 0, 1, 'inf')}, "focus of c.png is 'inf', expected a finite"),
      ({'focus_unit': 'm', 'frames': frames('focus', 0, 1, 2)}, 'focus of a.png is 0, expected a number above 0'),
      ({'focus_unit': 'um', 'frames': frames('focus', 1, 1, 1)}, 'the position is 1 in every frame, expected a sweep'),
    ],
  )
  def test_bad(self, folder, document, message):
    write_json(folder, document)
    with pytest.raises(InputError, match=message):
      read_stack_folder(folder)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', "columns are missing, expected 'file' and other columns"),
    ('file,focus_dpt', 'found only a header'),
    ('focus_dpt,ISO\n0,1\n1,1\n2,1', "columns are focus_dpt, ISO, expected 'file' and other columns"),
    ('file,focus_dpt,focus_dpt\na.png,1,1', "'focus_dpt' and 'focus_dpt' are both focus_dpt, expected each once"),
    ('file,focus_km\na.png,0', r'columns are file, focus_km, expected .*\(focus_km may be meant for one'),
    ('file,focus_distence_m,ISO\na.png,0,1', r'columns are file, focus_distence_m, ISO, expected focus_distance_m'),
    ('file,f_number,focal,distance\na.png,2,0,1', r'columns are file, .*\(focal, distance may be meant for one'),
    ('file,exposure,ISO\na.png,0,1', 'columns are file, exposure, ISO, expected focus_distance_m, focus_dpt, focus or'),
    ('file,focus (mm),focus [um]\na.png,0,1', r"'focus \(mm\)' and 'focus \[um\]' are both focus, expected each once"),
    ('file,focus_dpt\na.png,0\nb.png', r'no focus_dpt for b\.png, c\.png, expected one for every image'),
    ('file,focus_dpt\na.png,0,5', r"3 cells in the row 'a\.png,0,5', expected 2"),
    ('file,focus_dpt\na.png,0\nb.png,1', r'no focus_dpt for c\.png, expected one for every image'),
    ('file,focus_dpt\na.png,\nb.png,1\nc.png,', r'no focus_dpt for a\.png, c\.png, expected one for every image'),
    (
      'file,focus_dpt\na.png,0\nb.png,1\nd.png,3',
      r'found no file d\.png, expected names of files in its folder',
    ),
    ('file,focus_dpt\na.png,0\nb.png,1\nb.png,2', r'b\.png is listed twice with different values, expected'),
    ('file,focus_dpt\na.png,0\n,1', 'file of entry 2 is None, expected the name of an image'),
    (
      'file,focus_dpt\na.png,0\nb.png,-1\nc.png,2',
      r"focus_dpt of b\.png is '-1', expected a finite number of",
    ),
    ('file,focus_dpt\na.png,0\nb.png,inf\nc.png,2', r"focus_dpt of b\.png is 'inf', expected a finite number"),
    (
      'file,focus_distance_m\na.png,0\nb.png,1\nc.png,2',
      r"focus_distance_m of a\.png is '0', expected a number",
    ),
    ('file,focus_distance_m\na.png,nan\nb.png,1\nc.png,2', r"focus_distance_m of a\.png is 'nan', expected a number"),
    (
      'file,focus_distance_m\na.png,x\nb.png,1\nc.png,2',
      r"focus_distance_m of a\.png is 'x', expected a number",
    ),
    ('file,focus_dpt\na.png,2\nb.png,2\nc.png,2', r'the focus distance is 0\.5 in every frame, expected a sweep'),
    ('file,focus\na.png,"1,000"\nb.png,"2,000"\nc.png,3000', r"focus is '1,000', expected numbers without commas"),
    ('file;focus\na.png;1.000\nb.png;2.000\nc.png;500', r"focus is '1\.000', expected numbers without points"),
    ('file,focus\na.png,1 um\nb.png,2 mm\nc.png,3 um', 'focus is in um and mm, expected one unit'),
    ('file,focus_dpt\na.png,1 um\nb.png,2\nc.png,3', r"focus_dpt of a\.png is '1 um', expected a finite number"),
    (
      'file,distance\na.png,1\nb.png,2\nc.png,3',
      r'\(distance may be meant for one: name it with its unit, as in Focus distance',
    ),
    ('file,focus_dpt,focus_distance_m\na.png,2,0.5', 'both focus_distance_m and focus_dpt, expected one of them'),
    (
      'file,focus_dpt,f_number\na.png,0,2\nb.png,1,4\nc.png,2,',
      'f_number is 2 and 4, expected one value',
    ),
    ('file,focus_dpt,focal_length_mm\na.png,0,9\nb.png,1,\nc.png,200,', r'0\.005, inside the focal length 0\.009'),
    ('file\n' + 'x' * 200_000, 'cannot be read as CSV'),
    ('a.png,0\nb.png,1\nc.png,2', r"begins with 'a\.png,0', expected a header with column names"),
    (
      'file,focus_dpt\na.png,0,5\nb.png,1\nc.png,2',
      r"row 'a\.png,0,5', expected 2 \(with decimal commas",
    ),
  ],
)
def test_bad_csv(folder, text, message):
  (folder / 'metadata.csv').write_text(text)
  with pytest.raises(InputError, match=message) as caught:
    read_stack_folder(folder)
  assert 'metadata.csv' in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('document', 'message'),
  [
    ([], r'is \[\], expected an object'),
    ({'frame': []}, 'fields are frame, expected frames, focal_length_m'),
    ({'frames': [{'file': 'a.png', 'ISO': 2}]}, 'fields are file, ISO, expected focus_distance_m, focus_dpt, focus or'),
    ({'frames': {}}, r'frames is \{\}, expected a list of objects'),
    ({'frames': ['a.png']}, r"frames is \['a\.png'\], expected a list of objects"),
    ({'frames': [{'file': 3}]}, 'file of entry 1 is 3, expected the name of an image'),
    ({'frames': frames('focus_dpt', 0, None, 1)}, r'no focus_dpt for b\.png, expected one for every image'),
    ({'frames': frames('focus_dpt', 0, True, 1)}, r'focus_dpt of b\.png is True, expected a finite number'),
    ({'frames': frames('focus_dpt', 0, [1], 1)}, r'focus_dpt of b\.png is \[1\], expected a finite number'),
    ({'frames': frames('focus_dpt', 0, 1) + frames('focus_distance_m', 1)[1:]}, r'no focus_dpt for c\.png'),
    ({'f_number': -2}, 'f_number is -2, expected a finite number above 0'),
    ({'f_number': float('inf')}, 'f_number is inf, expected a finite number above 0'),
    ({'focal_length_mm': 0}, 'focal_length_mm is 0, expected a finite number above 0'),
    ({'focal_length_mm': 1, 'focal_length_m': 1}, 'both focal_length_m and focal_length_mm, expected one of them'),
    ({'principal_point_x_px': 1}, 'one of principal_point_x_px and principal_point_y_px, expected both or neither'),
  ],
)
def test_bad_json(folder, document, message):
  write_json(folder, document)
  with pytest.raises(InputError, match=rf'metadata\.json: {message}') as caught:
    read_stack_folder(folder)
  assert '\n' not in str(caught.value)


def test_unreadable(folder):
  (folder / 'metadata.json').write_text('{"frames": \n[}')
  with pytest.raises(InputError, match=r'metadata\.json: cannot be read as JSON \(Expecting value: line 2'):
    read_stack_folder(folder)
  (folder / 'metadata.json').write_bytes(b'{}\0')
  with pytest.raises(InputError, match=r'metadata\.json: cannot be read as text'):
    read_stack_folder(folder)
  (folder / 'metadata.csv').write_text(CSV)
  with pytest.raises(InputError, match=r'both metadata\.csv and metadata\.json, expected one of them'):
    read_stack_folder(folder)


@pytest.mark.parametrize(
  'written', ['C:\\Users\\me\\{}.png', './frames/{}.png', '/data/{}.png', '{}', 'D:/stack/{}', '{}.PNG']
)
def test_names_with_folders_or_without_suffix(folder, written):
  rows = ''.join(f'{written.format(name)},{n}\n' for n, name in enumerate('abc'))
  (folder / 'metadata.csv').write_text(f'file,focus_dpt\n{rows}')
  np.testing.assert_array_equal(read_stack_folder(folder).focus, [0, 1, 2])


def test_a_name_without_suffix_that_two_files_have(folder):
  Image.new('RGB', (4, 4)).save(folder / 'a.bmp')
  (folder / 'metadata.csv').write_text('file,focus_dpt\na,0\nb,1\nc,2\n')
  with pytest.raises(InputError, match='found no file a, expected names of files in its folder'):
    read_stack_folder(folder)
