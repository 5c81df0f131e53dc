"""Contact sheets: any name or text is drawn without warnings; places may stay empty."""

import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from focal_jax.files import pictures
from focal_jax.files.pictures import Panel, contact_sheet, plain, tile

IMAGE = np.full((24, 32, 3), 128, np.uint8)


@pytest.mark.parametrize(
  'name',
  [
    'im$_{1$.jpg',
    '$x$',
    'a\\$b',
    '昆虫标本.jpg',
    'K\udce4fer.jpg',
    'two\nlines',
    '\x00\x07',
    '名' * 300,
    'x' * 300,
    '',
  ],
)
def test_any_name_can_be_drawn(tmp_path, name):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    contact_sheet(
      tmp_path / 'sheet.png', [[Panel(name, IMAGE), Panel(name, np.arange(768.0).reshape(24, 32), name)]], name
    )
    assert tile([[Panel(name, IMAGE)]], name).shape[1] == 96
  with Image.open(tmp_path / 'sheet.png') as sheet:
    assert sheet.size[0] > 300


def test_small_tiles_are_enlarged():
  noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
  sheet = tile([[Panel('a', noise), Panel('b', noise)]])
  assert sheet.shape[1] == 2 * 80 + 4
  np.testing.assert_array_equal(sheet[-40:, -80:], np.kron(noise, np.ones((2, 2, 1), np.uint8)))


def test_dollars_are_drawn_as_they_are(tmp_path):
  # As mathematics the name would be one italic letter.
  contact_sheet(tmp_path / 'a.png', [[Panel('$x$', IMAGE)]])
  contact_sheet(tmp_path / 'b.png', [[Panel('x', IMAGE)]])
  widths = []
  for name in 'ab':
    with Image.open(tmp_path / f'{name}.png') as sheet:
      title = np.asarray(sheet.convert('L'))[:30]
    columns = np.flatnonzero((title < 128).any(axis=0))
    widths.append(columns.max() - columns.min())
  assert widths[0] > 2 * widths[1]


def test_plain_text():
  assert plain('im$_{1$.jpg') == 'im$_{1$.jpg'
  assert plain(unicodedata.normalize('NFD', 'Käfer')) == 'Käfer'
  assert plain(' two\n lines ') == 'two lines'
  assert plain('a\udce4\uffff') == 'a??'


def test_long_names_keep_both_ends():
  name = 'IMG_2024-05-01_a_series_of_many_frames_0017.jpg'
  short = plain(name, 12.0)
  head, tail = short.split('…')
  assert name.startswith(head)
  assert name.endswith(tail)
  assert min(len(head), len(tail)) >= 6
  assert sum(map(pictures._advance, short)) <= 12
  assert plain(name, 100.0) == name


def test_neighbours_share_a_scale_and_columns_their_titles(tmp_path, monkeypatch):
  scales, titles, Figure = [], [], pictures.Figure

  class Counting(Figure):
    def colorbar(self, image, ax, **options):
      scales.append((len(ax), image.get_clim()))
      return super().colorbar(image, ax=ax, **options)

    def savefig(self, path, **options):
      titles.extend(axis.get_title() for axis in self.axes)

  monkeypatch.setattr(pictures, 'Figure', Counting)
  depth = np.arange(768.0).reshape(24, 32)
  same = {'unit': 'm', 'limits': (0.0, 9.0)}
  row = [Panel('a', IMAGE), Panel('b,\nc', depth, **same), Panel('d', depth, **same), Panel('e', depth, 'm')]
  contact_sheet(tmp_path / 'sheet.png', [row, row])
  assert scales == 2 * [(2, (0.0, 9.0)), (1, (0.0, 767.0))]
  assert titles[:8] == ['a', 'b,\nc', 'd', 'e', '', '', '', '']


def test_none_leaves_a_place_empty(tmp_path):
  one = Panel('', IMAGE)
  contact_sheet(tmp_path / 'sheet.png', [[one, one], [None, one]])
  sheet = np.asarray(Image.open(tmp_path / 'sheet.png').convert('L'))
  height, width = (length // 2 for length in sheet.shape)
  drawn = [(part < 255).any() for row in (sheet[:height], sheet[height:]) for part in (row[:, :width], row[:, width:])]
  assert drawn == [True, True, False, True]


def test_faded_places_are_nearly_grey(tmp_path):
  values = np.tile(np.linspace(0, 1, 200), (200, 1))
  faded = np.zeros((200, 200), bool)
  faded[:100] = True
  sheets = []
  for name, where in (('plain', None), ('faded', faded)):
    contact_sheet(tmp_path / f'{name}.png', [[Panel('', values, 'm', (0.0, 1.0), faded=where)]])
    sheets.append(np.asarray(Image.open(tmp_path / f'{name}.png').convert('RGB')).astype(float))
  plain_sheet, faded_sheet = sheets
  changed = np.abs(plain_sheet - faded_sheet).max(-1) > 2
  rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
  top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
  # The upper half of the map, and nothing else.
  assert (right - left) / (bottom - top) == pytest.approx(2, rel=0.05)
  inner = np.s_[top + 3 : bottom - 2, left + 3 : right - 2]
  saturation = [np.ptp(sheet[inner], axis=-1).mean() for sheet in sheets]
  assert saturation[1] < 0.25 * saturation[0]
  share, grey = pictures.FADED_SHARE, 255 * pictures.FADED_GREY
  np.testing.assert_allclose(faded_sheet[inner], (1 - share) * plain_sheet[inner] + share * grey, atol=3)
