"""`--mode=predict` as a function: what it writes, in which unit, and what it refuses; without a network."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import focal_jax
from focal_jax import InputError
from focal_jax.data.folder import read_stack_folder
from focal_jax.focus.texture import texture_share
from focal_jax.prediction.predict import Options, predict_folder
from focal_jax.prediction.results import MOTION_FILE, read_motion

HEIGHT, WIDTH = 120, 160
ZOOMS = (1.04, 1.02, 1.0)  # how much larger the content of a frame is than the last one's
DISTANCES_M = (2.0, 1.0, 0.5)
ALIGNMENT_FILES = {*(f'aligned/{index}.png' for index in range(3)), 'alignment.gif', MOTION_FILE, 'summary.json'}
DEPTH_FILES = {
  *('depth.npy', 'depth_16bit.png', 'depth_16bit.json', 'depth.png', 'confidence.npy', 'confidence.png'),
  *('all_in_focus.png', 'points.ply', 'mesh.ply', 'mesh.glb', 'report.html', 'contact_sheet.png'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Upper half sharp in the first frame, lower half in the last; content grows towards the first; sidecar in metres."""
  path = tmp_path_factory.mktemp('stack')
  rng = np.random.default_rng(0)
  texture = sum(ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), s) * s for s in (0.8, 2, 4))
  texture = np.clip(0.5 + 0.15 * texture / texture.std(), 0, 1)
  upper = np.arange(HEIGHT)[:, None] < HEIGHT // 2
  for index, zoom in enumerate(ZOOMS):
    far, near = (ndimage.gaussian_filter(texture, 1.5 * abs(index - at)) for at in (0, 2))
    centre = (np.array([HEIGHT, WIDTH]) - 1) / 2
    frame = ndimage.affine_transform(
      np.where(upper, far, near), np.full(2, 1 / zoom), centre * (1 - 1 / zoom), order=3, mode='mirror'
    )
    grey = np.round(255 * np.clip(frame, 0, 1)).astype(np.uint8)
    Image.fromarray(np.stack([grey] * 3, -1)).save(path / f'{index}.png')
  rows = [f'{index}.png,{distance}' for index, distance in enumerate(DISTANCES_M)]
  (path / 'metadata.csv').write_text('\n'.join(['file,focus_distance_m', *rows]) + '\n')
  return path


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'size_px': None}, r'cannot be read as a motion file \(.*NoneType.*\)'),
    ({'size_px': [WIDTH, HEIGHT]}, 'is for frames of 120 x 160 px, expected the shape of 160 x 120 px'),
    ({'motion': [0, 0, 0]}, 'fov and motion are not finite numbers'),
    ({'motion': [[0, 0]] * 3}, 'fov and motion are not finite numbers'),
    ({'frames': ['0.png'] * 3}, 'fov and motion are not finite numbers'),
    ({'frames': [0, 1, 2]}, 'fov and motion are not finite numbers'),
    ({'motion': [[0, 161, 0]] * 3}, 'motion is a zoom of 0 or a shift beyond the frames'),
    ({'motion': [[-1, 0, 0]] * 3}, 'motion is a zoom of 0 or a shift beyond the frames'),
    ({'frames': 3}, r'cannot be read as a motion file \(.*int.*\)'),
  ],
)
def test_an_implausible_motion(folder, tmp_path, change, message):
  frames = [f'{n}.png' for n in range(3)]
  content = {'size_px': [HEIGHT, WIDTH], 'region': None, 'frames': frames, 'fov': [1, 1, 1], 'motion': [[0, 0, 0]] * 3}
  stack, path = read_stack_folder(folder), tmp_path / MOTION_FILE
  path.write_text(json.dumps(content))
  read_motion(path, stack, None)
  for bad, told in (({**content, **change}, message), ({'frames': frames}, r"motion file \(no 'size_px'\)")):
    path.write_text(json.dumps(bad))
    with pytest.raises(InputError, match=rf'motion\.json: .*{told}'):
      read_motion(path, stack, None)
  # At another size.
  path.write_text(json.dumps({**content, 'size_px': [HEIGHT // 7, WIDTH // 7]}))
  read_motion(path, stack, None)


@pytest.mark.parametrize('data', [b'[' * 100_000, b'', bytes(range(256)), None])
def test_a_file_that_is_no_motion(folder, tmp_path, data):
  path = tmp_path / MOTION_FILE
  if data is not None:
    path.write_bytes(data)
  with pytest.raises(InputError, match=r'motion\.json: cannot be read as .*expected .*from predict') as caught:
    read_motion(path, read_stack_folder(folder), None)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_motion_that_an_editor_saved(folder, tmp_path, encoding):
  frames, path = [f'{n}.png' for n in range(3)], tmp_path / MOTION_FILE
  content = {'size_px': [HEIGHT, WIDTH], 'region': None, 'frames': frames, 'fov': [1, 1, 1], 'motion': [[0, 2, 0]] * 3}
  path.write_text(json.dumps(content), encoding=encoding)
  _, motion = read_motion(path, read_stack_folder(folder), None)
  assert motion.tolist() == [[0, 2, 0]] * 3


def test_a_frame_of_another_exposure_is_noted(folder, tmp_path):
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  with Image.open(tmp_path / '1.png') as image:
    image.point(lambda value: value // 2).save(tmp_path / '1.png')
  for source, notes in ((folder, []), (tmp_path, ['Exposure differs: 1.png has 0.5 times the usual brightness.'])):
    out = tmp_path / f'out{len(notes)}'
    predict_folder(source, out, Options(method='classical', only_align=True))
    told = [note for note in json.loads((out / 'summary.json').read_text())['notes'] if 'Exposure' in note]
    assert [note.partition(' The all')[0] for note in told] == notes


def files(out):
  return {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def result(folder, tmp_path_factory):
  out = tmp_path_factory.mktemp('out') / 'new'
  return out, predict_folder(folder, out, Options(method='classical'))


def test_all_files_are_written(result):
  out, prediction = result
  assert files(out) == ALIGNMENT_FILES | DEPTH_FILES
  depth = np.load(out / 'depth.npy')
  np.testing.assert_array_equal(depth, prediction.depth)
  assert np.median(depth[20:50]) < 0.8  # dioptres: 0.5 and 2 are true
  assert np.median(depth[70:100]) > 1.7
  summary = json.loads((out / 'summary.json').read_text())
  assert (summary['depth_unit'], summary['weights'], summary['frames']) == ('1/m', None, ['0.png', '1.png', '2.png'])
  assert summary['residual_motion']['before']['zoom_range'] == pytest.approx(ZOOMS[0], abs=2e-3)
  assert summary['residual_motion']['after']['zoom_range'] < 1.003
  assert summary['surface']['unit'] == 'm'
  scale = json.loads((out / 'depth_16bit.json').read_text())
  values = np.asarray(Image.open(out / 'depth_16bit.png'))
  np.testing.assert_allclose(scale['offset'] + scale['scale'] * values, depth, atol=scale['scale'])


@pytest.mark.slow
@pytest.mark.parametrize('method', ['network', 'classical'])
@pytest.mark.parametrize('align', ['measured', 'metadata'])
def test_the_command_is_the_call(folder, tmp_path, method, align):
  """The same depth, frames and motion by default and by name; the first moves the frames by up to 3 px."""
  out = tmp_path / 'out'
  flags = ['--mode=predict', f'--method={method}', f'--stack={folder}', f'--out={out}', '--max_side=128']
  given = {} if align == 'measured' else {'align': align}
  flags += [f'--{name}={value}' for name, value in given.items()]
  command = [sys.executable, '-m', 'focal_jax.main', *flags]
  done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  stack = read_stack_folder(folder, max_side=128)
  model = focal_jax.load(None if method == 'network' else method)
  prediction = model.predict(stack.images, stack.focus, stack.fov, **given)
  # The command knows that focus is in dioptres, of which there are none below 0.
  np.testing.assert_allclose(np.load(out / 'depth.npy'), np.maximum(prediction.depth, 0), atol=1e-6)
  # What is written counts only where some frame shows texture.
  textured = texture_share(lambda n: stack.images[n] / np.float32(255), prediction.motion, stack.fov)
  np.testing.assert_allclose(np.load(out / 'confidence.npy'), prediction.confidence * textured, atol=1e-5)
  motion = np.array(json.loads((out / MOTION_FILE).read_text())['motion'])
  np.testing.assert_allclose(motion, prediction.motion, atol=1e-6)
  assert (np.abs(motion).max() > 0.02) == (align == 'measured')


@pytest.mark.parametrize(
  ('unit', 'name', 'expected'),
  [
    ('dioptres', '1/m', lambda dioptres: dioptres),
    ('metres', 'm', lambda dioptres: 1 / dioptres),
    ('index', 'frame index', lambda dioptres: np.where(dioptres < 1, 2 * dioptres - 1, dioptres)),
  ],
)
def test_units(folder, result, tmp_path, unit, name, expected):
  predict_folder(folder, tmp_path, Options(method='classical', unit=unit))
  np.testing.assert_allclose(np.load(tmp_path / 'depth.npy'), expected(result[1].depth), rtol=1e-5, atol=1e-5)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['depth_unit'] == json.loads((tmp_path / 'depth_16bit.json').read_text())['unit'] == name
  np.testing.assert_allclose(sorted(summary['depth_range']), sorted(expected(np.array([0.5, 2.0]))), rtol=1e-6)


def test_alignment_alone_and_its_motion_once_more(folder, result, tmp_path):
  first, again, half = tmp_path / 'first', tmp_path / 'again', tmp_path / 'half'
  assert predict_folder(folder, first, Options(method='classical', only_align=True)) is None
  assert files(first) == ALIGNMENT_FILES
  motion = first / MOTION_FILE
  reused = predict_folder(folder, again, Options(method='classical', motion=motion, align='metadata'))
  np.testing.assert_allclose(reused.depth, result[1].depth, atol=1e-5)
  smaller = predict_folder(folder, half, Options(method='classical', motion=motion, max_side=WIDTH // 2))
  np.testing.assert_allclose(smaller.motion, reused.motion * [1, 0.5, 0.5], atol=1e-6)
  assert json.loads((half / 'summary.json').read_text())['residual_motion']['after']['zoom_range'] < 1.005


def test_the_folder_here_and_results_of_an_earlier_run(folder, tmp_path, monkeypatch, caplog):
  caplog.set_level('INFO')
  monkeypatch.chdir(folder)
  predict_folder('.', tmp_path, Options(method='classical', only_align=True))
  assert f'{folder.name}: 3 frames of 160 x 120 px' in caplog.messages
  assert not any('earlier run' in message for message in caplog.messages)
  two = [folder / f'{n}.png' for n in range(2)]
  predict_folder(two, tmp_path, Options(method='classical', only_align=True), overwrite=True)
  assert f'{tmp_path / "aligned"} also contains other files, of an earlier run: 1.' in caplog.messages


def test_alignments(folder, tmp_path):
  for align in ('metadata', 'off'):
    prediction = predict_folder(folder, tmp_path / align, Options(method='classical', align=align))
    np.testing.assert_array_equal(prediction.motion, 0)
  assert MOTION_FILE in files(tmp_path / 'metadata')
  assert MOTION_FILE not in files(tmp_path / 'off')


def test_part_of_the_frames(folder, result, tmp_path):
  region = (40, 10, 96, 100)
  prediction = predict_folder(folder, tmp_path, Options(method='classical', region=region))
  assert prediction.depth.shape == (100, 96)
  assert np.median(np.abs(prediction.depth - result[1].depth[10:110, 40:136])) < 0.05
  assert json.loads((tmp_path / 'summary.json').read_text())['options']['region'] == list(region)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'method': 'guess'}, "method is 'guess', expected network, classical or classical:MEASURE"),
    ({'method': 'classical', 'weights': 'some.npz'}, "weights is 'some.npz' and method 'classical', expected no"),
    ({'method': 'classical', 'align': 'network'}, "align is 'network' and method 'classical'"),
    ({'align': 'maybe'}, "align is 'maybe', expected one of measured, network, metadata, off"),
    ({'motion': Path('motion.json'), 'align': 'off'}, "motion is given and align is 'off', expected one of the two"),
    ({'align': 'off', 'only_align': True}, "only_align is set and align is 'off'"),
    ({'unit': 'feet'}, "unit is 'feet', expected one of metres, dioptres, index"),
    ({'min_confidence': 2.0}, 'min_confidence is 2.0, expected 0 .. 1'),
    ({'max_side': -1}, 'max_side is -1, expected at least 1 pixel'),
    ({'depth_side': -3}, 'depth_side is -3, expected at least 1 pixel'),
  ],
)
def test_options_are_checked(options, message):
  with pytest.raises(InputError, match=message):
    Options(**options)


def test_results_do_not_go_among_the_frames(folder):
  before = files(folder)
  with pytest.raises(InputError, match='holds the frames, expected another folder for the results'):
    predict_folder(folder, folder, Options(method='classical'), overwrite=True)
  assert files(folder) == before


def test_options_that_do_not_fit_the_stack_leave_no_output(folder, result, tmp_path):
  out = tmp_path / 'out'
  bare = tmp_path / 'bare'
  bare.mkdir()
  for index in range(3):
    (bare / f'{index}.png').write_bytes((folder / f'{index}.png').read_bytes())
  (tmp_path / 'text.json').write_text('{"size_px": 3}')
  motion = json.loads((result[0] / MOTION_FILE).read_text())
  two = {name: motion[name][:2] for name in ('frames', 'fov', 'motion')}
  (tmp_path / 'other.json').write_text(json.dumps(motion | two))
  (tmp_path / 'infinite.json').write_text(json.dumps(motion | {'fov': [1.0, float('inf'), 1.0]}))
  (tmp_path / 'turned.json').write_text(json.dumps(motion | {'frames': motion['frames'][::-1]}))
  for source, options, message in (
    (folder, {'method': 'classical:sobel'}, "method is 'classical:sobel', expected"),
    (bare, {'unit': 'metres'}, "unit is 'metres', but the focus is in 'frame index'"),
    (folder, {'motion': tmp_path / 'none.json'}, r'none\.json: cannot be read as text'),
    (folder, {'motion': tmp_path / 'text.json'}, r'text\.json: cannot be read as a motion file'),
    (folder, {'motion': tmp_path / 'other.json'}, r'other\.json: contains the motion of 2 frames, expected 3'),
    (folder, {'motion': tmp_path / 'infinite.json'}, r'infinite\.json: fov and motion are not finite'),
    (folder, {'motion': tmp_path / 'turned.json'}, r'turned\.json: aligns to 0.png, expected 2.png'),
    (folder, {'motion': result[0] / MOTION_FILE, 'region': (0, 0, 64, 64)}, 'contains the motion of region None'),
  ):
    with pytest.raises(InputError, match=message):
      predict_folder(source, out, Options(**{'method': 'classical'} | options))
    assert not out.exists()


@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_frames_of_a_few_pixels(folder, tmp_path):
  predict_folder(folder, tmp_path / 'out', Options(method='classical', only_align=True, max_side=1))
  with Image.open(tmp_path / 'out' / 'aligned' / '0.png') as frame:
    assert frame.size == (1, 1)
