"""A submission to the DDFF-12 benchmark: names, order and values from the test file to the zip, and every bad zip."""

import collections
import io
import json
import logging
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import focal_jax
from focal_jax.errors import InputError
from focal_jax.evaluation.submission import check_submission, submit
from focal_jax.files import pictures
from focal_jax.optics import ddff_focus_disparities
from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import Prediction

SIZE = (383, 552)
SCENES = ('lockeroom', 'cafeteria', 'library', 'spencerlab', 'office44', 'magistrale')
# Independent of the code under test: the order of the official test file.
NAMES = [scene + '/DISP_' + str(10000 + number)[1:] for scene in SCENES for number in range(1, 21)]
FIRST, SECOND, THIRD = (f'{name}.npy' for name in NAMES[:3])


def write_test_file(path: Path, count: int) -> Path:
  """Stack i has, of the frames nearest first and the channels blue first: 2 + i in the blue of the nearest frame, 100
  in its red, and a ramp in the red of the farthest. All other frames, never written, read as 0 without being unpacked.
  """
  with h5py.File(path, 'w') as file:
    stack = file.create_dataset(
      'stack_test', (count, 10, *SIZE, 3), np.uint8, chunks=(1, 1, *SIZE, 3), compression='gzip', compression_opts=1
    )
    far = np.zeros((*SIZE, 3), np.uint8)
    far[..., 2] = np.arange(SIZE[1]) % 251
    for index in range(count):
      stack[index, 0] = np.broadcast_to(np.array([2 + index, 0, 100], np.uint8), (*SIZE, 3))
      stack[index, 9] = far
  return path


def disparity_of(index: int) -> np.ndarray:
  """What `Stub` gives for stack `index` of `write_test_file`."""
  ramp = np.arange(SIZE[1], dtype=np.float32) % 251
  return np.broadcast_to(ramp + np.float32(0.5) * np.float32(2 + index), SIZE)


class Stub(Predictor):
  """A model whose disparity is the red of the first frame and half the blue of the last, and that keeps its calls."""

  name = 'stub.npz'

  def __init__(self):
    self.calls = []

  def predict(self, images, focus, fov=None, align='measured', motion=None, *, tile_px=None):
    self.calls.append((images[0, 0, 0].tolist(), images[-1, 0, 0].tolist(), focus, fov, align))
    depth = images[0, ..., 0] + np.float32(0.5) * images[-1, ..., 2]
    weights = np.broadcast_to(np.float32(0.1), images.shape[:-1])
    return Prediction(
      depth=depth,
      confidence=np.ones_like(depth),
      pyramid=(depth,) * 4,
      weights=weights,
      aligned=np.broadcast_to(weights[..., None], images.shape),
      coverage=weights,
      motion=np.zeros((10, 3), np.float32),
    )


@pytest.fixture
def model(monkeypatch) -> Stub:
  """Without images, which take most of the time."""
  stub = Stub()
  monkeypatch.setattr(focal_jax, 'load', lambda weights: stub)
  monkeypatch.setattr(pictures, 'contact_sheet', lambda path, rows, title: path.write_bytes(b''))
  return stub


@pytest.fixture(scope='module')
def complete(tmp_path_factory) -> tuple[Path, Stub, list[list[pictures.Panel]]]:
  """The results for a test file of 120 stacks, the model that gave them, and the rows of the contact sheet."""
  folder = tmp_path_factory.mktemp('complete')
  stub, rows = Stub(), []

  def draw(path, panels, title):
    rows.extend(panels)
    path.write_bytes(b'')

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(focal_jax, 'load', lambda weights: stub)
    patch.setattr(pictures, 'contact_sheet', draw)
    made = submit(write_test_file(folder / 'test.h5', 120), folder / 'new' / 'out', weights='stub.npz')
  assert made == folder / 'new' / 'out' / 'submission.zip'
  return made.parent, stub, rows


@pytest.fixture(scope='module')
def three(tmp_path_factory) -> Path:
  return write_test_file(tmp_path_factory.mktemp('three') / 'test.h5', 3)


def files_below(folder: Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def read_zip(path: Path) -> dict[str, bytes]:
  with zipfile.ZipFile(path) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


def test_a_complete_submission(complete):
  out, *_ = complete
  assert sorted(path.name for path in out.iterdir()) == [
    'contact_sheet.png',
    'submission',
    'submission.zip',
    'summary.json',
  ]
  files = files_below(out / 'submission')
  assert set(files) == {f'{name}.npy' for name in NAMES} | {'runtime.txt'}
  assert 'cafeteria/DISP_0020.npy' in files
  assert 'cafeteria/DISP_0000.npy' not in files
  for index, name in enumerate(NAMES):
    disparity = np.load(io.BytesIO(files[f'{name}.npy']), allow_pickle=False)
    np.testing.assert_array_equal(disparity, disparity_of(index), strict=True)

  lines = [line.split(' ') for line in files['runtime.txt'].decode().splitlines()]
  assert [name for name, _ in lines] == NAMES
  seconds = [float(value) for _, value in lines]
  assert all(0 < value < 10 for value in seconds)

  summary = json.loads((out / 'summary.json').read_text())
  assert summary['seconds_a_stack'] == pytest.approx(np.median(seconds), abs=1e-6)
  assert (summary['stacks'], summary['complete'], summary['weights']) == (120, True, 'stub.npz')
  assert summary['test_file'].endswith('test.h5')
  assert {'device', 'versions'} < set(summary)


def test_the_zip_holds_what_the_folder_does(complete):
  out, *_ = complete
  assert read_zip(out / 'submission.zip') == files_below(out / 'submission')
  check_submission(out / 'submission.zip')


def test_the_model_sees_rgb_far_to_near_and_the_planes_in_px(complete):
  _, stub, _ = complete
  assert len(stub.calls) == 121  # the first one twice, for the compilation
  planes = np.linspace(0.1412 / 7, 0.1412 / 0.5, 10)  # 7 m .. 0.5 m, evenly spaced in disparity
  for index, (first, last, focus, fov, align) in enumerate(stub.calls[1:]):
    assert first == [0, 0, 0]  # the ramp begins with 0
    assert last == [100, 0, 2 + index]
    np.testing.assert_allclose(focus, planes, rtol=1e-3)
    np.testing.assert_array_equal(focus, ddff_focus_disparities().astype(np.float32)[::-1])
    np.testing.assert_array_equal(fov, np.ones(10))
    assert align == 'off'


def test_corrected_focus_is_for_weights_that_have_not_learned_the_labels(model, three, tmp_path):
  submit(three, tmp_path / 'out', partial=True, corrected_focus=True)
  for *_, focus, _, _ in model.calls:
    np.testing.assert_allclose(focus, ddff_focus_disparities()[::-1] + 0.062, rtol=1e-6)
  assert json.loads((tmp_path / 'out' / 'summary.json').read_text())['focus'] == 'corrected'
  for data in (['ddff12/raw', 'simulated'], ['published']):
    model.trained_on = tuple(data)
    with pytest.raises(InputError, match=rf'stub\.npz: --corrected_focus.*\({", ".join(data)}\), expected others'):
      submit(three, tmp_path / 'none', partial=True, corrected_focus=True)
    assert not (tmp_path / 'none').exists()


def test_the_contact_sheet_shows_the_first_stack_of_each_scene(complete):
  rows = complete[2]
  assert [row[0].title for row in rows] == [f'{scene}/DISP_0001: nearest frame' for scene in SCENES]
  for index, row in zip(range(0, 120, 20), rows, strict=True):
    assert [panel.title for panel in row[1:]] == ['farthest frame', 'disparity', 'confidence']
    nearest, farthest, disparity, _ = (panel.image for panel in row)
    assert (nearest[0, 5].tolist(), farthest[0, 5].tolist()) == ([100, 0, 2 + index], [5, 0, 0])
    np.testing.assert_array_equal(disparity, disparity_of(index))


def test_the_contact_sheet_is_drawn(three, tmp_path, monkeypatch):
  monkeypatch.setattr(focal_jax, 'load', lambda weights: Stub())
  submit(three, tmp_path / 'out', partial=True)
  assert (tmp_path / 'out' / 'contact_sheet.png').read_bytes().startswith(b'\x89PNG')


def test_the_zip_is_the_same_but_for_the_seconds(model, three, tmp_path):
  """And does not depend on dates and modes of files."""
  archives = []
  for run in ('a', 'b'):
    with zipfile.ZipFile(submit(three, tmp_path / run, partial=True)) as archive:
      assert archive.testzip() is None
      infos = archive.infolist()
    assert [info.filename for info in infos] == [FIRST, SECOND, THIRD, 'runtime.txt']
    assert {(info.date_time, info.external_attr >> 16) for info in infos} == {((1980, 1, 1, 0, 0, 0), 0o644)}
    archives.append((tmp_path / run / 'submission.zip').read_bytes())
  end_of_maps = zipfile_offset(tmp_path / 'a' / 'submission.zip', 'runtime.txt')
  assert zipfile_offset(tmp_path / 'b' / 'submission.zip', 'runtime.txt') == end_of_maps > 1000
  assert archives[0][:end_of_maps] == archives[1][:end_of_maps]


def zipfile_offset(path: Path, member: str) -> int:
  with zipfile.ZipFile(path) as archive:
    return archive.getinfo(member).header_offset


def test_a_file_of_fewer_stacks_is_an_error_unless_it_is_asked_for(model, three, tmp_path, caplog):
  with pytest.raises(InputError) as raised:
    submit(three, tmp_path / 'new' / 'out')
  assert str(raised.value) == (
    f'{three}: stack_test has a length of 3, expected 120 stacks, 20 of each of the scenes lockeroom, cafeteria, '
    'library, spencerlab, office44, magistrale; --partial accepts fewer, for a trial'
  )
  assert not model.calls
  assert not (tmp_path / 'new').exists()

  with caplog.at_level(logging.WARNING):
    submit(three, tmp_path / 'new' / 'out', partial=True)
  assert 'submission.zip: 3 of 120 stacks; CodaLab will reject it' in caplog.text
  out = tmp_path / 'new' / 'out'
  assert set(files_below(out / 'submission')) == {FIRST, SECOND, THIRD, 'runtime.txt'}
  summary = json.loads((out / 'summary.json').read_text())
  assert (summary['stacks'], summary['complete']) == (3, False)
  check_submission(out / 'submission.zip', 3)
  with pytest.raises(InputError, match=r'submission\.zip: lockeroom/DISP_0004\.npy is missing, found 4 files'):
    check_submission(out / 'submission.zip')


@pytest.mark.parametrize('partial', [False, True])
def test_a_file_of_more_stacks_is_an_error(partial, model, tmp_path):
  with h5py.File(tmp_path / 'test.h5', 'w') as file:  # nothing is stored
    file.create_dataset('stack_test', (121, 10, *SIZE, 3), np.uint8, chunks=(1, 1, *SIZE, 3))
  with pytest.raises(InputError, match=r'has a length of 121, expected 120 stacks, 20 of each .*magistrale$'):
    submit(tmp_path / 'test.h5', tmp_path / 'out', partial=partial)
  assert not model.calls
  assert not (tmp_path / 'out').exists()


def test_a_file_that_is_not_there(model, tmp_path):
  with pytest.raises(InputError, match=r'test\.h5: found no such file, expected the one from https'):
    submit(tmp_path / 'test.h5', tmp_path / 'out')


def test_results_are_replaced_on_request_only_and_then_no_old_map_is_left(complete, model, three, tmp_path):
  out = tmp_path / 'out'
  for name, content in files_below(complete[0]).items():
    if not name.endswith('.npy') or name.removeprefix('submission/')[:-4] in NAMES[:30]:
      (out / name).parent.mkdir(parents=True, exist_ok=True)
      (out / name).write_bytes(content)
  (out / 'notes.txt').write_text('mine')
  before = files_below(out)
  with pytest.raises(InputError, match='already holds files; expected a new or empty folder, or --overwrite'):
    submit(three, out, partial=True)
  assert not model.calls
  assert files_below(out) == before

  submit(three, out, partial=True, overwrite=True)
  assert files_below(out / 'submission') == read_zip(out / 'submission.zip')
  assert set(read_zip(out / 'submission.zip')) == {FIRST, SECOND, THIRD, 'runtime.txt'}
  assert (out / 'notes.txt').read_text() == 'mine'


def test_bad_predictions_leave_nothing(model, three, tmp_path, monkeypatch):
  predict = model.predict

  def infinite(*arguments, **named):
    prediction = predict(*arguments, **named)
    return prediction.replace(depth=np.where(prediction.depth > 100, np.inf, prediction.depth))

  def small(images, *arguments, **named):
    return predict(images[:, 1:], *arguments, **named)

  for spoilt, message in (
    (infinite, r'stub\.npz: predicts disparities of lockeroom/DISP_0001 that are not finite, expected finite'),
    (small, r'DISP_0001\.npy is \(382, 552\) float32, expected \(383, 552\) float32'),
  ):
    monkeypatch.setattr(model, 'predict', spoilt)
    with pytest.raises(InputError, match=message):
      submit(three, tmp_path / 'new' / 'out', partial=True)
    assert not (tmp_path / 'new').exists()


def test_the_real_file(model, shared, tmp_path):
  path = shared / 'data' / 'ddff12' / 'ddff-dataset-test.h5'
  with pytest.raises(InputError, match='stack_test has a length of 1, expected 120 stacks'):
    submit(path, tmp_path / 'out')
  submit(path, tmp_path / 'out', partial=True)
  with h5py.File(path) as file:
    nearest, farthest = file['stack_test'][0, 0], file['stack_test'][0, 9]
  expected = farthest[..., 2].astype(np.float32) + np.float32(0.5) * nearest[..., 0]  # blue, green, red in the file
  np.testing.assert_array_equal(np.load(tmp_path / 'out' / 'submission' / FIRST), expected, strict=True)
  check_submission(tmp_path / 'out' / 'submission.zip', 1)


# Problems found by `check_submission` in zips made independently of the code under test.


def npy(array: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def with_value(value: float) -> np.ndarray:
  array = np.full(SIZE, 0.1, np.float32)
  array[200, 300] = value
  return array


def good_members() -> dict[str, bytes]:
  maps = {f'{name}.npy': npy(with_value(index)) for index, name in enumerate(NAMES[:3])}
  return maps | {'runtime.txt': ''.join(f'{name} 0.25\n' for name in NAMES[:3]).encode()}


def write_zip(path: Path, members, compression: int = zipfile.ZIP_DEFLATED) -> Path:
  with zipfile.ZipFile(path, 'w', compression) as archive, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # a name twice
    for name, content in members.items() if isinstance(members, dict) else members:
      archive.writestr(name, content)
  return path


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize('value', [0, -1])
def test_good_zips(compression, value, tmp_path):
  """Of any order, and with disparities that are finite, whatever their sign."""
  members = dict(reversed(good_members().items())) | {SECOND: npy(np.full(SIZE, value, np.float32, order='F'))}
  check_submission(write_zip(tmp_path / 'a.zip', members, compression), 3)


def runtime(*lines: str) -> dict[str, bytes]:
  return {'runtime.txt': ('\n'.join(lines) + '\n').encode()}


LINES = [f'{name} 0.25' for name in NAMES[:3]]
HUGE = npy(np.zeros(1, np.float32)).replace(b"'shape': (1,), ", b"'shape': (9999999, 9999999), ")

CHANGES = {
  'map too many': (
    {'lockeroom/DISP_0004.npy': b''},
    "found 'lockeroom/DISP_0004.npy', expected only runtime.txt and 3",
  ),
  'outside': ({'../evil.npy': b''}, "found '../evil.npy', expected only"),
  'in a folder': ({'submission/runtime.txt': b''}, "found 'submission/runtime.txt', expected only"),
  'strange name': ({'new\nline': b''}, r"found 'new\nline', expected only"),
  'shape': ({SECOND: npy(np.zeros((382, 552), np.float32))}, f'{SECOND} is (382, 552) float32, expected (383, 552)'),
  'transposed': (
    {SECOND: npy(np.zeros((552, 383), np.float32))},
    f'{SECOND} is (552, 383) float32, expected (383, 552)',
  ),
  'axes': ({SECOND: npy(np.zeros((1, *SIZE), np.float32))}, f'{SECOND} is (1, 383, 552) float32, expected (383, 552)'),
  'a scalar': ({SECOND: npy(np.float32(1))}, f'{SECOND} is () float32, expected (383, 552) float32'),
  'double': ({SECOND: npy(np.zeros(SIZE))}, f'{SECOND} is (383, 552) float64, expected (383, 552) float32'),
  'half': ({SECOND: npy(np.zeros(SIZE, np.float16))}, f'{SECOND} is (383, 552) float16, expected (383, 552) float32'),
  'whole': ({SECOND: npy(np.zeros(SIZE, np.int32))}, f'{SECOND} is (383, 552) int32, expected (383, 552) float32'),
  'big-endian': ({SECOND: npy(np.zeros(SIZE, '>f4'))}, f'{SECOND} is (383, 552) >f4, expected (383, 552) float32'),
  'objects': ({SECOND: npy(np.full((2, 2), None))}, f'{SECOND} is (2, 2) object, expected (383, 552) float32'),
  'a shape that is not': ({SECOND: HUGE}, f'{SECOND} is (9999999, 9999999) float32, expected (383, 552) float32'),
  'NaN': ({THIRD: npy(with_value(np.nan))}, f'{THIRD} has 1 values that are not finite, expected none'),
  'infinite': ({THIRD: npy(with_value(-np.inf))}, f'{THIRD} has 1 values that are not finite, expected none'),
  'cut': ({THIRD: npy(with_value(0))[:-1]}, f'{THIRD} holds less than its header says, expected 845664 bytes'),
  'more behind': ({THIRD: npy(with_value(0)) + b'0'}, f'{THIRD} holds more than its header says, expected 845664'),
  'much behind': ({THIRD: npy(with_value(0)) + bytes(9999)}, f'{THIRD} holds more than its header says, expected'),
  'empty': ({THIRD: b''}, f'found {THIRD} damaged (EOF: reading magic string'),
  'header cut': ({THIRD: npy(with_value(0))[:50]}, f'found {THIRD} damaged (EOF: reading array header'),
  'header': ({THIRD: npy(with_value(0)).replace(b"'descr'", b"'desc((")}, f'found {THIRD} damaged ('),
  'pickle': ({THIRD: pickle.dumps([1, 2])}, f'found {THIRD} damaged (the magic string is not correct'),
  'an archive': ({THIRD: b'PK\3\4' + bytes(99)}, f'found {THIRD} damaged (the magic string is not correct'),
  'no line': (runtime(*LINES[:2]), f'runtime.txt: {NAMES[2]} is missing, found 2 lines, expected 3'),
  'no lines': ({'runtime.txt': b''}, f'runtime.txt: {NAMES[0]} is missing, found 0 lines, expected 3'),
  'line twice': (runtime(*LINES, LINES[1]), f'runtime.txt: found {NAMES[1]} twice, expected one line for each map'),
  'line too many': (runtime(*LINES, 'lockeroom/DISP_0004 1'), "runtime.txt: found the line 'lockeroom/DISP_0004 1'"),
  'empty line': (
    runtime(*LINES, ''),
    "runtime.txt: found the line '', expected lines such as 'lockeroom/DISP_0001 0.5'",
  ),
  'other name': (runtime(f'{FIRST} 1', *LINES[1:]), "runtime.txt: found the line 'lockeroom/DISP_0001.npy 1'"),
  'no seconds': (
    runtime(NAMES[0], *LINES[1:]),
    f"runtime.txt: {NAMES[0]} has '', expected seconds, above 0 and finite",
  ),
  'zero': (runtime(f'{NAMES[0]} 0.0', *LINES[1:]), f"runtime.txt: {NAMES[0]} has '0.0', expected seconds"),
  'negative': (runtime(f'{NAMES[0]} -1', *LINES[1:]), f"runtime.txt: {NAMES[0]} has '-1', expected seconds"),
  'NaN seconds': (runtime(f'{NAMES[0]} nan', *LINES[1:]), f"runtime.txt: {NAMES[0]} has 'nan', expected seconds"),
  'endless': (runtime(f'{NAMES[0]} inf', *LINES[1:]), f"runtime.txt: {NAMES[0]} has 'inf', expected seconds"),
  'a word': (runtime(f'{NAMES[0]} 1 s', *LINES[1:]), f"runtime.txt: {NAMES[0]} has '1 s', expected seconds"),
  'no text': ({'runtime.txt': b'\xff\xfe'}, "runtime.txt: found the line '\ufffd\ufffd', expected lines such as"),
  'long text': ({'runtime.txt': bytes(10**6)}, 'runtime.txt has more than 300 bytes, expected 3 lines'),
}


@pytest.mark.parametrize(('change', 'message'), CHANGES.values(), ids=CHANGES)
def test_mistakes_are_named(change, message: str, tmp_path: Path):
  path = write_zip(tmp_path / 'a.zip', good_members() | change)
  assert_rejected(path, f'{path}: {message}')


def assert_rejected(path: Path, message: str) -> None:
  before = sorted(path.parent.iterdir())
  with pytest.raises(InputError) as raised:
    check_submission(path, 3)
  assert str(raised.value).startswith(message)
  assert '\n' not in str(raised.value)
  assert sorted(path.parent.iterdir()) == before  # nothing is unpacked


@pytest.mark.parametrize('member', [FIRST, THIRD, 'runtime.txt'])
def test_a_member_that_is_missing_or_there_twice(member: str, tmp_path: Path):
  members = good_members()
  path = write_zip(tmp_path / 'twice.zip', [*members.items(), (member, members[member])])
  assert_rejected(path, f'{path}: found {member} 2 times, expected it once')
  del members[member]
  path = write_zip(tmp_path / 'missing.zip', members)
  assert_rejected(path, f'{path}: {member} is missing, found 3 files, expected 4')


def test_a_zip_that_is_no_zip(tmp_path: Path):
  assert_rejected(tmp_path / 'a.zip', f'{tmp_path / "a.zip"}: found no such file, expected the zip of a submission')
  path = write_zip(tmp_path / 'a.zip', good_members())
  whole = path.read_bytes()
  for content in (b'', b'html', whole[:-30], whole[: len(whole) // 2]):
    path.write_bytes(content)
    assert_rejected(path, f'{path}: found a file that cannot be read (')


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_is_found(compression: int, tmp_path: Path):
  """In the values of a map, whose checksum is then another one, or which do not unpack any more."""
  path = write_zip(tmp_path / 'a.zip', good_members(), compression)
  content = bytearray(path.read_bytes())
  content[zipfile_offset(path, SECOND) + 500] ^= 1
  path.write_bytes(content)
  assert_rejected(path, f'{path}: found {SECOND} damaged (')


def test_a_zip_that_is_encrypted_or_packed_in_an_unknown_way(tmp_path: Path):
  path = write_zip(tmp_path / 'a.zip', good_members())
  whole = path.read_bytes()
  for offset, value, what in ((8, 1, 'is encrypted'), (10, 97, 'compression')):
    content = bytearray(whole)
    struct.pack_into('<H', content, whole.index(b'PK\1\2') + offset, value)  # of the first file in the directory
    if offset == 8:
      struct.pack_into('<H', content, 6, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf'found {FIRST} damaged \(.*{what}'):
      check_submission(path, 3)


def test_random_damage_is_never_another_error(tmp_path: Path):
  """Bytes of the headers and the directory, of which some mean nothing, so that the zip may pass."""
  path = write_zip(tmp_path / 'a.zip', good_members())
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  places = [*range(300), *range(whole.index(b'PK\1\2'), len(whole))]
  outcomes = collections.Counter()
  for place in rng.choice(places, 150, replace=False):
    content = bytearray(whole)
    content[place] = rng.integers(256)
    path.write_bytes(content)
    try:
      check_submission(path, 3)
      outcomes['good'] += 1
    except InputError:
      outcomes['bad'] += 1
  assert outcomes['bad'] > 50
