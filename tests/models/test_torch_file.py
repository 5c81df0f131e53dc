"""Archives written here opcode by opcode: those that PyTorch writes, and malicious ones."""

import copyreg
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from focal_jax.errors import InputError
from focal_jax.models.torch_file import read_state_dict

REFERENCE = Path(__file__).parents[2].parent / 'shared' / 'parity' / 'reference_a.pth'

NONE, FALSE, TRUE, REDUCE, BUILD = b'N', b'\x89', b'\x88', b'R', b'b'


def text(string: str) -> bytes:
  return b'X' + struct.pack('<I', len(string.encode())) + string.encode()


def integer(number: int) -> bytes:
  return b'\x8a\x0a' + number.to_bytes(10, 'little', signed=True)


def items(*values: bytes) -> bytes:
  return b'(' + b''.join(values) + b't'


def mapping(values: dict[str, bytes]) -> bytes:
  return b'}(' + b''.join(text(key) + value for key, value in values.items()) + b'u'


def name(module: str, attribute: str) -> bytes:
  return f'c{module}\n{attribute}\n'.encode()


def stack_name(module: str, attribute: str) -> bytes:
  return text(module) + text(attribute) + b'\x93'


def call(function: bytes, *arguments: bytes) -> bytes:
  return function + items(*arguments) + REDUCE


ORDERED_DICT = name('collections', 'OrderedDict')
REBUILD = name('torch._utils', '_rebuild_tensor_v2')


def storage(size: int, kind: str = 'FloatStorage', key: str = '0') -> bytes:
  return items(text('storage'), name('torch', kind), text(key), text('cpu'), integer(size)) + b'Q'


def tensor(shape, strides=None, *, size: int, offset: int = 0, kind: str = 'FloatStorage', key: str = '0') -> bytes:
  if strides is None:
    strides = [int(np.prod(shape[n + 1 :])) for n in range(len(shape))]
  shape, strides = items(*map(integer, shape)), items(*map(integer, strides))
  return call(REBUILD, storage(size, kind, key), integer(offset), shape, strides, FALSE, call(ORDERED_DICT))


def write(path: Path, body: bytes, storages: dict[str, bytes] | None = None, **entries: bytes) -> Path:
  """An archive whose data.pkl is the program `body`; storage '0' holds 0 .. 23 unless said."""
  storages = {'0': np.arange(24, dtype='<f4').tobytes()} if storages is None else storages
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('weights/data.pkl', b'\x80\x02' + body + b'.')
    for key, numbers in storages.items():
      archive.writestr(f'weights/data/{key}', numbers)
    for entry, content in entries.items():
      archive.writestr(f'weights/{entry}', content)
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'weights.pth'


@pytest.mark.skipif(not REFERENCE.exists(), reason='the reference weights are not beside this repository')
def test_reads_reference_weights():
  weights = read_state_dict(REFERENCE)
  assert len(weights) == 522
  first, last = next(iter(weights)), list(weights)[-1]
  assert (first, weights[first].shape) == ('DFF_net.FM_measure.Focus_extraction.0.0.weight', (8, 3, 1, 9, 9))
  assert (last, weights[last].shape) == ('optical_flow_aggregation.conv3.6.bias', (3,))
  counters = [key for key in weights if key.endswith('num_batches_tracked')]
  assert len(counters) == 83
  for key, value in weights.items():
    assert value.dtype == (np.int64 if key in counters else np.float32)
    assert np.all(np.isfinite(value))
  assert all(weights[key].shape == () for key in counters)
  parameters = {
    part: sum(v.size for k, v in weights.items() if k.startswith(part) and 'running_' not in k and k not in counters)
    for part in ('DFF_net.', 'optical_flow_aggregation.')
  }
  assert parameters == {'DFF_net.': 4_038_832, 'optical_flow_aggregation.': 195_593}


@pytest.mark.parametrize(
  ('shape', 'strides', 'offset', 'expected'),
  [
    ((2, 3, 4), None, 0, np.arange(24).reshape(2, 3, 4)),
    ((4, 3), (1, 4), 0, np.arange(12).reshape(3, 4).T),
    ((3,), (8,), 5, [5, 13, 21]),
    ((), (), 23, 23),
    ((1, 2), (99, 1), 22, [[22, 23]]),
    ((2, 2), (1, 1), 0, [[0, 1], [1, 2]]),
    ((0, 7), None, 24, np.zeros((0, 7))),
  ],
)
def test_views(path, shape, strides, offset, expected):
  write(path, mapping({'w': tensor(shape, strides, size=24, offset=offset)}))
  (value,) = read_state_dict(path).values()
  assert value.dtype == np.float32
  assert not value.flags.writeable
  np.testing.assert_array_equal(value, np.asarray(expected))


@pytest.mark.parametrize(
  ('kind', 'dtype', 'order'),
  [
    *[('Double', 'f8', 'little'), ('Float', 'f4', None), ('Float', 'f4', 'big'), ('Half', 'f2', 'little')],
    *[('Long', 'i8', 'big'), ('Int', 'i4', None), ('Short', 'i2', 'big'), ('Char', 'i1', 'little')],
  ],
)
def test_dtypes_and_byte_orders(path, kind, dtype, order):
  numbers = np.array([-3, 0, 1, 100], dtype)
  raw = numbers.astype(numbers.dtype.newbyteorder('>' if order == 'big' else '<')).tobytes()
  entries = {'byteorder': order.encode()} if order else {}
  write(path, mapping({'w': tensor((4,), size=4, kind=f'{kind}Storage')}), {'0': raw}, **entries)
  value = read_state_dict(path)['w']
  assert value.dtype == numbers.dtype
  np.testing.assert_array_equal(value, numbers)


@pytest.mark.parametrize(
  ('kind', 'raw', 'expected'),
  [
    ('Half', '003c 00c0 0100 ff7b 007c', np.array([1, -2, 2**-24, 65504, np.inf], np.float16)),
    ('BFloat16', '803f 00c0 4940 0100 80ff', np.array([1, -2, 3.140625, 2**-133, -np.inf], np.float32)),
    ('Byte', '00 7f ff', np.array([0, 127, 255], np.uint8)),
    ('Bool', '00 01 02', np.array([False, True, True])),
  ],
)
def test_bytes_made_by_hand(path, kind, raw, expected):
  write(
    path, mapping({'w': tensor(expected.shape, size=expected.size, kind=f'{kind}Storage')}), {'0': bytes.fromhex(raw)}
  )
  value = read_state_dict(path)['w']
  assert value.dtype == expected.dtype
  np.testing.assert_array_equal(value, expected)


WEIGHT = tensor((2,), size=24)


@pytest.mark.parametrize(
  'body',
  [
    mapping({'a.w': WEIGHT, 'a.b': WEIGHT}),
    call(ORDERED_DICT)
    + b'('
    + text('a.w')
    + WEIGHT
    + text('a.b')
    + WEIGHT
    + b'u'
    + mapping({'_metadata': b'}'})
    + BUILD,
    mapping({'module.a.w': WEIGHT, 'module.a.b': WEIGHT}),
    mapping({'epoch': integer(3), 'state_dict': mapping({'a.w': WEIGHT, 'a.b': WEIGHT}), 'best': NONE, 'lr': b']'}),
    mapping({'model': mapping({'module.a.w': WEIGHT, 'module.a.b': WEIGHT})}),
    mapping({'a.w': call(name('torch._utils', '_rebuild_parameter'), WEIGHT, TRUE, call(ORDERED_DICT)), 'a.b': WEIGHT}),
    mapping({'a.w': WEIGHT.replace(REBUILD, stack_name('torch._utils', '_rebuild_tensor_v2')), 'a.b': WEIGHT}),
  ],
  ids=['dict', 'OrderedDict', 'DataParallel', 'checkpoint', 'model', 'parameter', 'protocol 4'],
)
def test_layouts(path, body):
  weights = read_state_dict(write(path, body))
  assert list(weights) == ['a.w', 'a.b']
  np.testing.assert_array_equal(weights['a.w'], [0, 1])


def test_prefix_stays_unless_all_have_it(path):
  weights = read_state_dict(write(path, mapping({'module.w': WEIGHT, 'w': WEIGHT})))
  assert list(weights) == ['module.w', 'w']


def test_standard_pickler_containers(path):
  # Everything the reader knows of plain data, as the pickler of every protocol writes it.
  plain = {
    'epoch': 3,
    'lr': 1e-4,
    'best': -(2**40),
    'flags': [True, None, ()],
    'groups': [{0: [(1,), (1, 2), (1, 2, 3, 'é')]}],
  }
  for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
    body = pickle.dumps(plain, protocol)[2:-1]
    # The second of the two top-level dicts joins the first under a key of its own.
    write(path, mapping({'state_dict': mapping({'w': WEIGHT})}) + text('rest') + body + b's')
    assert list(read_state_dict(path)) == ['w']


def hostile_programs(marker: Path) -> dict[str, bytes]:
  """Programs that would touch `marker`, or try things that could, if `pickle` ran them."""
  touch = text(f'touch {marker}')
  python = text(f'__import__("os").mkdir({str(marker)!r})')
  return {
    'os.system': call(name('os', 'system'), touch),
    'builtins.eval': call(name('builtins', 'eval'), python),
    'builtins.exec by STACK_GLOBAL': call(stack_name('builtins', 'exec'), python),
    'dotted name of an admitted module': stack_name('collections', 'OrderedDict.__init__.__globals__'),
    'module with a dot too few': stack_name('torch', '_utils._rebuild_tensor_v2'),
    'numpy': name('numpy.core.multiarray', '_reconstruct'),
    'unadmitted storage': storage(1, 'QInt8Storage'),
    'STACK_GLOBAL of numbers': integer(1) + integer(2) + b'\x93',
    'INST': b'(' + touch + b'ios\nsystem\n',
    'OBJ': b'(' + name('os', 'system') + touch + b'o',
    'NEWOBJ': ORDERED_DICT + b')\x81',
    'EXT1': b'\x82\xf0' + items(touch) + REDUCE,
    'PERSID': b'Pstorage\n',
    'REDUCE of a string': call(text('system'), touch),
    'OrderedDict with items': call(ORDERED_DICT, items(items(text('a'), NONE))),
    'call of a storage type': call(name('torch', 'FloatStorage'), integer(2**40)),
    'call of a tensor': call(WEIGHT, integer(1)),
    'tensor with a boolean shape': call(REBUILD, storage(24), integer(0), items(TRUE), items(integer(1)), FALSE, NONE),
    'tensor with more strides than axes': tensor((2,), (1, 1), size=24),
    'tensor of 65 axes': tensor((1,) * 65, size=24),
    'parameter of a string': call(name('torch._utils', '_rebuild_parameter'), text('x'), TRUE, NONE),
    'BUILD on a tensor': WEIGHT + mapping({'storage': NONE}) + BUILD,
    'BUILD on a name': ORDERED_DICT + mapping({'__call__': NONE}) + BUILD,
    'storage without a type': items(text('storage'), text('FloatStorage'), text('0'), text('cpu'), integer(1)) + b'Q',
    'storage of negative size': storage(-1),
    'items of a tensor': WEIGHT + text('a') + NONE + b's',
    'odd number of items': b'}(' + text('a') + b'u',
    'empty stack': b'R',
    'no such opcode': b'\xff',
    'key that nests deeply': b'})' + b'\x85' * 30_000 + NONE + b's',
    'list that nests deeply': b']' * 30_000 + b'a' * 29_999,
    'dict that holds itself': b'}q\x00' + text('state_dict') + b'h\x00s',
  }


HOSTILE = hostile_programs(Path('marker'))


@pytest.mark.parametrize('attack', HOSTILE)
def test_hostile_pickle_runs_nothing(path, tmp_path, attack, monkeypatch):
  # The extension registry bypasses `Unpickler.find_class` for codes that the process has met before.
  monkeypatch.setitem(copyreg._extension_cache, 0xF0, os.system)
  marker = tmp_path / 'ran'
  body = hostile_programs(marker)[attack]
  # Alone, and beside a state dict that is harmless.
  for program in (body, mapping({'state_dict': mapping({'w': WEIGHT}), 'epoch': body})):
    write(path, program)
    if program is not body and attack in ('list that nests deeply', 'dict that holds itself'):
      assert list(read_state_dict(path)) == ['w']  # plain data, however odd
      continue
    with pytest.raises(InputError) as caught:
      read_state_dict(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400
  assert not marker.exists()


@pytest.mark.parametrize('attack', ['os.system', 'builtins.exec by STACK_GLOBAL', 'INST', 'EXT1'])
def test_hostile_pickle_would_run(tmp_path, attack, monkeypatch):
  """The attacks above work on the standard unpickler."""
  monkeypatch.setitem(copyreg._extension_cache, 0xF0, os.system)
  marker = tmp_path / 'ran'
  pickle.loads(b'\x80\x04' + hostile_programs(marker)[attack] + b'.')
  assert marker.exists()


def test_refused_name_is_in_the_message(path):
  with pytest.raises(InputError, match=r"weights\.pth: data\.pkl asks for 'os\.system'"):
    read_state_dict(write(path, HOSTILE['os.system']))


def test_build_sets_no_attribute(path):
  state = mapping({'_metadata': b'}', '__class__': ORDERED_DICT, 'keys': NONE})
  assert list(read_state_dict(write(path, mapping({'w': WEIGHT}) + state + BUILD))) == ['w']


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (tensor((25,), size=24), 'does not fit its storage of 24'),
    (tensor((1,), size=24, offset=24), 'does not fit'),
    (tensor((2**62, 2**62), (0, 0), size=24), 'does not fit'),
    (tensor((0, 2**62), (1, 1), size=24), 'is not a valid array'),
    (tensor((2,), (-1,), size=24, offset=1), 'PyTorch does not write'),
    (tensor((2**63,), (0,), size=24), 'PyTorch does not write'),
    (tensor((2,), size=24, key='7'), "storage '7' is missing"),
    (tensor((2,), size=25), 'has 96 bytes, expected 25 x 4'),
    (tensor((2,), size=24, kind='HalfStorage'), 'has 96 bytes, expected 24 x 2'),
    (integer(3), "entry 'w' of the state dict is 3, expected a tensor"),
  ],
)
def test_bad_tensor(path, value, message):
  with pytest.raises(InputError, match=message):
    read_state_dict(write(path, mapping({'w': value})))


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    (b'}', 'state dict is empty'),
    (b']', 'type list, expected a state dict'),
    (WEIGHT, 'type ndarray, expected a state dict'),
    (mapping({'generator': mapping({'w': WEIGHT})}), 'under one of state_dict'),
  ],
)
def test_no_state_dict(path, body, message):
  with pytest.raises(InputError, match=message):
    read_state_dict(write(path, body))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty'),
    (b'version https://git-lfs', 'begins with'),
    (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b'\x80\x02M\xe9\x03.', 'PyTorch before 1.6'),
    (b'PK\x03\x04', 'cannot be read .*expected a complete zip'),
  ],
)
def test_no_zip(path, content, message):
  path.write_bytes(content)
  with pytest.raises(InputError, match=message):
    read_state_dict(path)


def test_missing_file_and_folder(tmp_path):
  with pytest.raises(InputError, match=r'nowhere\.pth: no such file'):
    read_state_dict(tmp_path / 'nowhere.pth')
  with pytest.raises(InputError, match='is not a file'):
    read_state_dict(str(tmp_path))


def test_truncations(path):
  whole = write(path, mapping({'w': WEIGHT})).read_bytes()
  for length in range(0, len(whole), 7):
    path.write_bytes(whole[:length])
    with pytest.raises(InputError):
      read_state_dict(path)


def test_flipped_bytes(path):
  """Damage is found or harmless: what is read is what was written (the CRCs of the zip see to it)."""
  whole = write(path, mapping({'w': WEIGHT})).read_bytes()
  for position in range(0, len(whole), 5):
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
    try:
      weights = read_state_dict(path)
    except InputError:
      continue
    np.testing.assert_array_equal(weights['w'], [0, 1])


def test_zip_bombs(path):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('weights/data.pkl', mapping({'w': tensor((2,), size=2**20)}) + b'.')
    archive.writestr('weights/data/0', bytes(2**22))
  with pytest.raises(InputError, match='compressed'):
    read_state_dict(path)

  # The directory says that a stored entry is larger than the whole file.
  whole = write(path, mapping({'w': tensor((2,), size=2**28)})).read_bytes()
  entry = whole.rindex(b'weights/data/0') - 46
  path.write_bytes(whole[: entry + 20] + struct.pack('<II', 2**30, 2**30) + whole[entry + 28 :])
  with pytest.raises(InputError, match='expected no more than the'):
    read_state_dict(path)


@pytest.mark.parametrize('entries', [[], ['data.pkl'], ['a/data.pkl', 'b/data.pkl'], ['word/document.xml']])
def test_other_zip(path, entries):
  with zipfile.ZipFile(path, 'w') as archive:
    for entry in entries or ['empty']:
      archive.writestr(entry, mapping({}))
  with pytest.raises(InputError, match=r'entries <name>/data\.pkl, expected 1'):
    read_state_dict(path)


def test_unknown_byte_order(path):
  with pytest.raises(InputError, match=r'byteorder is .*expected little or big'):
    read_state_dict(write(path, mapping({'w': WEIGHT}), byteorder=b'middle'))
