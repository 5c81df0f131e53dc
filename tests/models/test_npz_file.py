"""Weights files: a round trip, and damaged files end in an error of one line."""

import io
import zipfile

import numpy as np
import pytest

from focal_jax.errors import InputError
from focal_jax.models.npz_file import load_weights, save_weights

VARIABLES = {'params': {'a': {'kernel': np.arange(60.0).reshape(3, 20)}, 'b': {'bias': np.ones(7)}}}


@pytest.fixture
def good(tmp_path):
  path = tmp_path / 'good.npz'
  save_weights(path, VARIABLES, {'model': 'toy', 'arguments': {}})
  return path


def test_round_trip(good):
  variables, description = load_weights(good)
  np.testing.assert_array_equal(variables['params']['a']['kernel'], VARIABLES['params']['a']['kernel'])
  assert description == {'model': 'toy', 'arguments': {}}


def test_damaged_files_are_read_or_refused_in_one_line(good):
  """Random changes, deletions, insertions and truncations raise nothing but an InputError of one line."""
  rng, whole, refused = np.random.default_rng(0), good.read_bytes(), []
  for number in range(600):
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
      place = int(rng.integers(len(data)))
      match number % 4:
        case 0:
          data[place] = rng.integers(256)
        case 1:
          del data[place : place + int(rng.integers(1, 9))]
        case 2:
          data[place:place] = rng.bytes(int(rng.integers(1, 9)))
        case 3:
          data[place:] = data[place:][: int(rng.integers(len(data)))]
    path = good.with_name('damaged.npz')
    path.write_bytes(data)
    try:
      load_weights(path)
    except InputError as error:
      refused.append(str(error))
  assert len(refused) > 400
  assert all(message.startswith(str(path)) and '\n' not in message for message in refused)


def npy(array):
  stream = io.BytesIO()
  np.save(stream, array)
  return stream.getvalue()


def entry(path, name, data):
  """An archive of one entry with any content."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(name, data)
  return path.read_bytes()


def method(data, number):
  """The compression method of the only entry, in both of its headers."""
  data = bytearray(data)
  data[8:10] = number.to_bytes(2, 'little')
  at = data.rindex(b'PK\1\2') + 10
  data[at : at + 2] = number.to_bytes(2, 'little')
  return data


def encrypted(data):
  data = bytearray(data)
  data[6] |= 1
  data[data.rindex(b'PK\1\2') + 8] |= 1
  return data


def corrupted_stream(data):
  """The deflated bytes begin with a block of an invalid type."""
  data = bytearray(data)
  start = 30 + int.from_bytes(data[26:28], 'little') + int.from_bytes(data[28:30], 'little')
  data[start] = 0xFF
  return data


ZEROS = npy(np.zeros(50))


@pytest.mark.parametrize(
  'spoil',
  [
    lambda path: b'',
    lambda path: ZEROS,  # not an archive
    lambda path: corrupted_stream(entry(path, 'a.npy', ZEROS)),  # zlib.error
    lambda path: method(entry(path, 'a.npy', ZEROS), 77),  # NotImplementedError
    lambda path: method(entry(path, 'a.npy', ZEROS), 14),  # lzma's errors
    lambda path: encrypted(entry(path, 'a.npy', ZEROS)),  # RuntimeError
    lambda path: entry(path, 'a.npy', ZEROS[:40]),
    lambda path: entry(path, 'a.npy', ZEROS.replace(b'(50,)', b'(9,9,9)'.ljust(5))),
    lambda path: entry(path, 'a.npy', ZEROS.replace(b'(50,)', b'(5**9')),
    lambda path: entry(path, 'a.npy', ZEROS.replace(b'<f8', b'|O8')),  # pickled
    lambda path: entry(path, 'a.npy', ZEROS),  # no description
    lambda path: entry(path, 'description.npy', npy(np.array('{'))),
    lambda path: entry(path, 'description.npy', npy(np.array('[1]'))),
  ],
)
def test_errors_of_numpy_and_zipfile_become_one_line(spoil, tmp_path):
  path = tmp_path / 'weights.npz'
  path.write_bytes(spoil(path))
  with pytest.raises(InputError) as caught:
    load_weights(path)
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)
