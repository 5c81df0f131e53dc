"""Contact sheets: names of files, any text, drawn without warnings; and places that stay empty."""

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
    assert tile([[Panel(name, IMAGE)]], name).shape[1] == 32
  with Image.open(tmp_path / 'sheet.png') as sheet:
    assert sheet.size[0] > 300


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


def test_none_leaves_a_place_empty(tmp_path):
  one = Panel('', IMAGE)
  contact_sheet(tmp_path / 'sheet.png', [[one, one], [None, one]])
  sheet = np.asarray(Image.open(tmp_path / 'sheet.png').convert('L'))
  height, width = (length // 2 for length in sheet.shape)
  drawn = [(part < 255).any() for row in (sheet[:height], sheet[height:]) for part in (row[:, :width], row[:, width:])]
  assert drawn == [True, True, False, True]
