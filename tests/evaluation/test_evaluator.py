"""`evaluate` and `compare` from a source of stacks to the files they write, with models whose errors are known."""

import csv
import dataclasses
import json
from pathlib import Path

import h5py
import jax.numpy as jnp
import layouts
import numpy as np
import pytest
import toy
from absl import flags
from ml_collections import ConfigDict
from PIL import Image
from scipy import ndimage

import focal_jax
from focal_jax import warp
from focal_jax.data import sources
from focal_jax.errors import InputError
from focal_jax.evaluation.compare import compare
from focal_jax.evaluation.evaluator import _Extremes, evaluate, evaluate_methods
from focal_jax.evaluation.measure import MethodResult, StackResult, measure_stacks
from focal_jax.evaluation.methods import ConstantPredictor, may_have_seen
from focal_jax.evaluation.protocols import FOLDER, SIMULATED
from focal_jax.files import pictures
from focal_jax.models.end_to_end import init_variables
from focal_jax.models.npz_file import save_weights
from focal_jax.prediction.network_predictor import NetworkPredictor
from focal_jax.prediction.predictor import Predictor
from focal_jax.recipes import default
from focal_jax.stack import Prediction
from tfds_ddff.build import build

flags.FLAGS.mark_as_parsed()  # grain reads absl flags

SIZE = (12, 16)
METRES, DIOPTRES = (1.5, 0.7, 0.3, 0.1), (0.5, 2.0, 4.0, 8.0)  # far to near
MEASURES = ('mae', 'mse', 'rms')


def stack(name, focus, target, **fields):
  """An example of a source; its first pixel holds its number, by which models know it."""
  rng = np.random.default_rng(len(name))
  return {
    'images': rng.integers(0, 256, (len(focus), *target.shape, 3), np.uint8),
    'focus': np.float32(focus),
    'fov': np.ones(len(focus), np.float32),
    'motion': np.zeros((len(focus), 3), np.float32),
    'target': target.astype(np.float32),
    'valid': np.ones(target.shape, np.float32),
    'name': name,
    **fields,
  }


def stacks_of_errors(count, focus=DIOPTRES):
  """Stacks whose first pixel is their number, by which `Off` finds their true depth."""
  rng = np.random.default_rng(0)
  examples = []
  for index in range(count):
    example = stack(f'stack {index}', focus, rng.uniform(min(focus), max(focus), SIZE))
    example['images'][:, 0, 0] = index
    examples.append(example)
  return examples


class Off(Predictor):
  """Predicts the true depth plus one error per stack; `fields` are further fields of its predictions."""

  name = 'off.npz'

  def __init__(self, examples, errors, **fields):
    self.examples, self.errors, self.fields = examples, errors, fields

  def predict(self, images, focus, fov=None, align='measured', motion=None, *, tile_px=None) -> Prediction:
    index = int(images[0, 0, 0, 0])
    prediction = ConstantPredictor(0.0).predict(images, focus)
    depth = (self.examples[index]['target'] + self.errors[index]).astype(np.float32)
    return prediction.replace(depth=depth, **self.fields)


@pytest.fixture
def models(monkeypatch):
  """What `focal_jax.load` gives, by name."""
  by_name = {}
  monkeypatch.setattr(focal_jax, 'load', lambda name: by_name[name])
  return by_name


def config_of(data_dir='', **fields) -> ConfigDict:
  config = default.get_config()
  config.data.data_dir = data_dir
  config.eval.update(**fields)
  return config


@pytest.fixture
def serve(monkeypatch):
  """Makes examples the source of a data set."""

  def serve(examples, dataset='folder:none', **fields):
    monkeypatch.setattr(sources, 'open_source', lambda *_: examples)
    monkeypatch.setattr(sources, 'mean_target', lambda *_: None)
    return config_of(**{'dataset': dataset, 'split': 'val', 'pictures': 0, **fields})

  return serve


@pytest.fixture
def drawn(monkeypatch):
  """Titles of the panels of every contact sheet, row by row, by file name, in place of the pictures."""
  sheets = {}

  def contact_sheet(path, rows, title=''):
    sheets[path.name] = [[panel and panel.title for panel in row] for row in rows]
    path.touch()

  monkeypatch.setattr(pictures, 'contact_sheet', contact_sheet)
  return sheets


def read(out: Path):
  """summary.json, in which every number must be finite, and the lines of per_image.csv by method."""

  def refuse(text):
    raise ValueError(text)

  summary = json.loads((out / 'summary.json').read_text(), parse_constant=refuse)
  with (out / 'per_image.csv').open() as file:
    rows = list(csv.DictReader(file))
  return summary, {label: [row for row in rows if row['method'] == label] for label in summary['methods']}


def column(rows, name):
  return np.array([float(row[name]) for row in rows])


def assert_picture(path, least=(300, 200)):
  with Image.open(path) as image:
    image.load()
    assert image.format == 'PNG'
    assert all(low <= length <= 6000 for low, length in zip(least, image.size, strict=True))
    assert len(np.unique(np.asarray(image.convert('L')))) > 5


def test_a_network_beside_baselines(tmp_path):
  """The toy network with weights from a file whose folder has an `=` in its name, as a sweep's have."""
  folder = tmp_path / 'model.detection=plane'
  folder.mkdir()
  network = toy.make_toy()
  save_weights(folder / 'best.npz', init_variables(network, 0), {'model': toy.MODEL})
  source = toy.write_stacks(tmp_path / 'data')
  half = np.load(tmp_path / 'data/val/1/target.npy')
  half[:20] = np.nan
  np.save(tmp_path / 'data/val/1/target.npy', half)
  out = tmp_path / 'out'
  config = config_of(dataset=source, split='val', baselines=('constant',), align='network', pictures=1)
  returned = evaluate(config, str(folder / 'best.npz'), out)

  summary, rows = read(out)
  assert summary == json.loads(json.dumps(returned))
  assert summary['weights'] == {'network': str(folder / 'best.npz')}
  train = [np.load(path) for path in sorted((tmp_path / 'data/train').glob('*/target.npy'))]
  assert summary['constant'] == pytest.approx(np.mean(train), rel=1e-5)
  assert [row['name'] for row in rows['network']] == ['0', '1', '2']
  assert [int(row['pixels']) for row in rows['constant']] == [1440, 720, 1440]
  model, depths = focal_jax.load(folder / 'best.npz'), []
  for index in range(3):
    example = sources.open_source(source, 'val', '')[index]
    prediction = model.predict(example['images'], example['focus'], example['fov'], 'network')
    depths.append(prediction.depth)
    target = np.load(tmp_path / f'data/val/{index}/target.npy')
    for label, depth in (('network', prediction.depth), ('constant', summary['constant'])):
      row, error = rows[label][index], (depth - target)[np.isfinite(target)]
      assert float(row['mae']) == pytest.approx(np.abs(error).mean(), rel=1e-4)
      assert float(row['mse']) == pytest.approx((error**2).mean(), rel=1e-4)
    variance = np.einsum('nhw,n->hw', prediction.weights, example['focus'] ** 2) - prediction.depth**2
    assert float(rows['network'][index]['avg_unc']) == pytest.approx(np.sqrt(variance).mean(), rel=1e-3)
    assert rows['constant'][index]['avg_unc'] == ''
    assert 'ause' not in rows['network'][index]  # its confidence is 1 everywhere
    assert float(rows['network'][index]['seconds']) > 0
  for label, method in summary['methods'].items():
    for name, value in method['values'].items():
      assert value['mean'] == pytest.approx(np.mean(column(rows[label], name)), rel=1e-12), name
      assert value['low'] <= value['mean'] <= value['high']
    seconds = column(rows[label], 'seconds')
    assert method['seconds_a_stack'] == {
      'median': np.median(seconds),
      'fastest': seconds.min(),
      'slowest': seconds.max(),
    }
  names = {path.name for path in out.iterdir()}
  assert names == {'summary.json', 'summary.md', 'per_image.csv', 'best.png', 'worst.png', 'error_by_depth.png'}
  for name in ('best.png', 'worst.png', 'error_by_depth.png'):
    assert_picture(out / name)
  text = (out / 'summary.md').read_text()
  assert f'| network | these 3 stacks | {summary["methods"]["network"]["values"]["mse"]["mean"]:.4g} |' in text
  assert f'\n* constant: {summary["constant"]:.4g}\n' in text


def result(value, index):
  values = {} if value is None else {'mse': value}
  method = MethodResult(np.zeros((2, 2)), np.zeros((2, 2)), values, None, np.zeros((3, 2)))
  return StackResult(str(index), np.zeros((2, 2, 3)), np.zeros((2, 2)), (0.0, 1.0), 4, {'m': method})


@pytest.mark.parametrize('number', [0, 1, 3, 10, 40])
def test_extremes(number):
  values = np.random.default_rng(0).random(20).tolist()
  values[7] = None
  kept = _Extremes('m', 'mse', number)
  for index, value in enumerate(values):
    kept.add(result(value, index))
  order = sorted((index for index in range(20) if values[index] is not None), key=lambda index: values[index])
  names = {file: [int(one.name) for one in results] for file, results in kept.pictures().items()}
  assert names == ({'best.png': order[:number], 'worst.png': order[::-1][:number]} if number else {})


def test_pictures_of_a_comparison(tmp_path, serve, models, drawn):
  """A row for each of a few stacks, spread over all, with confidence's curve beside."""
  examples = stacks_of_errors(7)
  errors = np.linspace(0.7, 0.1, 7)
  confidence = np.random.default_rng(1).random(SIZE).astype(np.float32)
  models |= {'a': Off(examples, errors, confidence=confidence), 'b': Off(examples, -errors)}
  compare(serve(examples, pictures=3), ['a', 'x=b', 'constant'], tmp_path / 'out')
  rows = drawn['comparison.png']
  assert [row[0] for row in rows] == ['stack 0', 'stack 3', 'stack 6']
  assert rows[0][1] == 'truth'
  assert rows[0][2:] == ['a', 'error, mse 0.49', 'x', 'error, mse 0.49', 'constant', rows[0][7]]
  assert rows[0][7].startswith('error, mse ')
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
    *('summary.json', 'summary.md', 'per_image.csv'),
    *('comparison.png', 'error_by_depth.png', 'sparsification.png'),
  }
  for name in ('error_by_depth.png', 'sparsification.png'):
    assert_picture(tmp_path / 'out' / name)
  summary, _ = read(tmp_path / 'out')
  assert summary['methods']['a']['values']['ause']['mean'] == pytest.approx(0, abs=1e-5)  # all errors are alike
  assert 'ause' not in summary['methods']['x']['values']


def test_errors_of_more_than_three_methods_stand_below_their_depths(tmp_path, serve, models, drawn):
  examples = stacks_of_errors(2)
  models |= {label: Off(examples, [0.1, 0.1]) for label in 'abcd'}
  compare(serve(examples, pictures=2), list('abcd'), tmp_path / 'out')
  above, below, *second = drawn['comparison.png']
  assert above == ['stack 0', 'truth', *'abcd']
  assert below == [None, None, *['error, mse 0.01'] * 4]
  assert [row[0] for row in second] == ['stack 1', None]


def test_best_and_worst(tmp_path, serve, models, drawn):
  examples = stacks_of_errors(5)
  models['shipped'] = Off(examples, [0.3, -0.1, 0.5, 0.2, 0.4])
  evaluate(serve(examples, pictures=2, baselines=('constant',)), None, tmp_path / 'out')
  assert [row[0] for row in drawn['best.png']] == ['stack 1', 'stack 3']
  assert [row[0] for row in drawn['worst.png']] == ['stack 2', 'stack 4']
  assert drawn['worst.png'][0][2:4] == ['network', 'error, mse 0.25']


def test_differences_are_those_of_each_stack(tmp_path, serve, models):
  """Errors range from 0.1 to 2, so that means do not show a difference of 0.02; paired differences do."""
  examples = stacks_of_errors(12)
  errors = np.geomspace(0.1, 2, 12)
  models |= {'a': Off(examples, errors), 'b': Off(examples, errors - 0.02), 'c': Off(examples, errors[::-1])}
  compare(serve(examples), ['a', 'b', 'c'], tmp_path / 'out')
  summary, rows = read(tmp_path / 'out')
  values = {label: summary['methods'][label]['values']['mae'] for label in 'abc'}
  assert values['a']['low'] < values['b']['high']
  assert values['b']['low'] < values['a']['mean'] < values['b']['high']
  differences = summary['differences_to_first']
  assert list(differences) == ['b', 'c']
  for label in 'bc':
    for name in MEASURES:
      own = column(rows[label], name) - column(rows['a'], name)
      assert differences[label][name]['mean'] == pytest.approx(own.mean(), rel=1e-9, abs=1e-15)
      assert differences[label][name]['stacks'] == 12
  better = differences['b']['mae']
  assert better['mean'] == pytest.approx(-0.02, abs=1e-5)
  assert better['low'] <= better['mean'] <= better['high'] < -0.0199
  same = differences['c']['mae']
  assert same['low'] < 0 < same['high']
  text = (tmp_path / 'out' / 'summary.md').read_text()
  (line,) = [line for line in text.splitlines() if line.startswith('| b | **')]
  assert '-0.02 (-0.02 .. -0.02)' in line
  assert '## Differences to a\n' in text


def test_one_stack_has_no_intervals(tmp_path, serve, models):
  examples = stacks_of_errors(1)
  models |= {'a': Off(examples, [0.1]), 'b': Off(examples, [0.2])}
  compare(serve(examples, pictures=5), ['a', 'b'], tmp_path / 'out')
  summary, _ = read(tmp_path / 'out')
  value = summary['differences_to_first']['b']['mae']
  assert (value['low'], value['high'], value['stacks']) == (None, None, 1)
  assert value['mean'] == pytest.approx(0.1, rel=1e-4)
  assert_picture(tmp_path / 'out' / 'comparison.png')
  assert 'interval' not in (tmp_path / 'out' / 'summary.md').read_text().partition('## Differences')[0]


def test_errors_that_are_not_finite_are_left_out_of_the_means(tmp_path, serve, models):
  """A prediction of NaN has no error: its stack does not count in the mean of that method, which the summary notes."""
  examples = stacks_of_errors(4)
  models |= {'a': Off(examples, [np.nan, 0.1, 0.3, np.inf]), 'b': Off(examples, [0.1, 0.2, 0.3, 0.4])}
  compare(serve(examples, pictures=2), ['a', 'b'], tmp_path / 'out')
  summary, rows = read(tmp_path / 'out')
  assert_picture(tmp_path / 'out' / 'comparison.png')
  assert [rows['a'][index]['mae'] for index in (0, 3)] == ['', 'inf']
  assert summary['methods']['a']['values']['mae']['stacks'] == 2
  assert summary['methods']['a']['values']['mae']['mean'] == pytest.approx(0.2, rel=1e-4)
  assert summary['differences_to_first']['b']['mae']['stacks'] == 2
  text = (tmp_path / 'out' / 'summary.md').read_text()
  assert 'Stacks left out of a mean' in text
  assert 'a, mae: 2' in text
  assert 'b, mae' not in text


@pytest.mark.parametrize(
  ('dataset', 'split', 'count', 'rows'),
  [
    ('ddff12/raw', 'val', 0, 4),
    ('ddff12/scene_disjoint', 'val', 0, 4),
    ('ddff12/scene_disjoint', 'val', 3, 4),  # as many as there are
    ('ddff12/scene_disjoint', 'val', 2, 0),  # a part of them
    ('ddff12/scene_disjoint', 'val[:50%]', 0, 0),
    ('ddff12/scene_disjoint', 'train', 0, 0),
    ('ddff12', 'val', 0, 0),  # the official split: crops of other scenes
    ('ddff12/official', 'val', 0, 0),
    ('examples', 'val', 0, 0),
    ('fod500', 'test', 0, 3),
    ('fod500', 'train', 0, 0),
    ('middlebury_fs', 'test', 0, 2),
    ('hci4d', 'val', 0, 3),
    ('simulated', 'val', 3, 0),
  ],
)
def test_published_rows_on_the_same_stacks(dataset, split, count, rows, tmp_path, serve):
  examples = [stack(str(index), (0.02, 0.28), np.full((4, 4), 0.2)) for index in range(3)]
  config = serve(examples, dataset, split=split, num_stacks=count)
  evaluate_methods(config, ['constant'], tmp_path / 'out', False)
  summary, _ = read(tmp_path / 'out')
  assert sum(row['same_stacks_as_ours'] for row in summary['published']) == rows
  text = (tmp_path / 'out' / 'summary.md').read_text()
  assert text.count('(these stacks)') == rows
  if dataset.startswith('ddff12'):
    assert len(summary['published']) == 9
    measured_on = 'DDFF-12 val, scene-disjoint (glassroom, office41), 200 stacks, mask not stated'
    assert (f'| FOSSA, zero-shot [5] | {measured_on} |' in text) == (not rows)
    assert '\n[5] Zuo et al., "Zero-Shot Depth from Defocus", 2026 (arXiv 2603.26658).' in text
    assert '| 5 frames' not in text
    (dfv,) = [row for row in summary['published'] if row['method'] == 'DFV']
    assert not dfv['same_stacks_as_ours']  # five of ten frames, and another mask


def moving_frames(zooms, shifts, size=(96, 128)):
  """uint8 pictures of one texture, larger by a zoom and moved by (x, y) px, and the motion that `warp` undoes."""
  rng = np.random.default_rng(0)
  texture = ndimage.gaussian_filter(rng.standard_normal((3, *(length + 64 for length in size))), (0, 1.5, 1.5))
  texture = np.clip(0.5 + 0.2 * texture / texture.std(), 0, 1)
  y, x = np.indices(size)
  centre = (np.array(size) - 1) / 2
  frames, motion = [], []
  for zoom, (dx, dy) in zip(zooms, shifts, strict=True):
    # What lies at q from the centre in the texture lies at zoom q + shift in the frame.
    places = (y - centre[0] - dy) / zoom + centre[0] + 32, (x - centre[1] - dx) / zoom + centre[1] + 32
    frame = np.stack([ndimage.map_coordinates(plane, places, order=3, mode='mirror') for plane in texture], -1)
    frames.append(np.round(frame.clip(0, 1) * 255).astype(np.uint8))
    motion.append([(1 - zoom) * (size[1] - 1) / (2 * (size[1] // 2)), -dx, -dy])
  return np.stack(frames), np.float32(motion)


def write_moving(folder: Path, motion_known: bool):
  frames, motion = moving_frames((1.03, 1.01, 1.0), ((2.0, -1.0), (1.0, 1.5), (0.0, 0.0)))
  place = folder / 'val' / 'moving'
  place.mkdir(parents=True)
  for index, frame in enumerate(frames):
    Image.fromarray(frame).save(place / f'{index}.png')
  np.save(place / 'target.npy', np.full(frames.shape[1:3], 1.5))
  if motion_known:
    np.save(place / 'motion.npy', motion)
  return frames, motion


class Told(Predictor):
  """Aligns the frames by a given motion."""

  name = 'told.npz'

  def __init__(self, motion):
    self.motion, self.asked = motion, []

  def predict(self, images, focus, fov=None, align='measured', motion=None, *, tile_px=None) -> Prediction:
    self.asked.append(align)
    aligned = warp.warp(jnp.asarray(images) / 255, jnp.asarray(fov), jnp.asarray(self.motion))
    return ConstantPredictor(1.0).predict(images, focus).replace(aligned=np.asarray(aligned), motion=self.motion)


@pytest.mark.parametrize('motion_known', [True, False])
def test_alignment(motion_known, tmp_path, models):
  _, motion = write_moving(tmp_path / 'data', motion_known)
  half = motion / 2
  models |= {'truth': Told(motion), 'half': Told(half), 'none': Told(np.zeros_like(motion))}
  config = config_of(dataset=f'folder:{tmp_path / "data"}', split='val', align='measured', pictures=0)
  compare(config, ['truth', 'half', 'none', 'constant'], tmp_path / 'out')
  summary, rows = read(tmp_path / 'out')
  fields = {
    label: {name: float(text) for name, text in rows[label][0].items() if '_' in name and text} for label in rows
  }
  measured = {'zoom_before', 'zoom_after', 'rms_before_px', 'rms_after_px'}
  known = {'epe_px', 'epe_crop_px'} if motion_known else set()
  for label in ('truth', 'half', 'none'):
    assert (measured | known) & fields[label].keys() == measured | known
  assert ('epe_px' in rows['truth'][0]) == motion_known
  assert not (measured | {'epe_px', 'epe_crop_px'}) & fields['constant'].keys()
  assert not (measured | {'epe_px', 'epe_crop_px'}) & summary['methods']['constant']['values'].keys()

  truth, half_way, none = (fields[label] for label in ('truth', 'half', 'none'))
  assert truth['zoom_before'] == half_way['zoom_before'] == pytest.approx(1.03, abs=2e-3)
  assert truth['zoom_after'] == pytest.approx(1, abs=2e-3)
  assert half_way['zoom_after'] == pytest.approx(1.015, abs=3e-3)
  assert truth['rms_after_px'] < 0.1 < half_way['rms_after_px'] < none['rms_after_px']
  assert none['rms_after_px'] == pytest.approx(none['rms_before_px'], rel=1e-3)
  if motion_known:
    moved, unmoved = (
      np.asarray(warp.displacement_field(jnp.ones(3), jnp.asarray(one), 96, 128), np.float64)
      for one in (motion, np.zeros_like(motion))
    )
    field = moved - unmoved
    brute = np.sqrt((field**2).sum(-1).mean((1, 2))).mean()
    assert truth['epe_px'] < 1e-5
    assert half_way['epe_px'] == pytest.approx(brute / 2, rel=1e-4)
    assert none['epe_px'] == pytest.approx(brute, rel=1e-4)
    assert truth['epe_crop_px'] == half_way['epe_crop_px'] == pytest.approx(brute, rel=1e-4)
  text = (tmp_path / 'out' / 'summary.md').read_text().partition('## Alignment')[2].partition('## Run time')[0]
  assert ('end-point error' in text) == motion_known
  assert '\n| truth |' in text
  assert '\n| constant |' not in text


def test_methods_without_an_alignment_network_are_aligned_as_measured(tmp_path, models, serve):
  frames, motion = moving_frames((1.02, 1.01, 1.0), ((0.0, 0.0),) * 3)
  example = stack('one', (1.0, 2.0, 3.0), np.full(frames.shape[1:3], 1.5), images=frames)
  models |= {'a': Told(motion), 'b': Told(motion)}
  models['a'].has_alignment_network = True
  compare(serve([example], align='network'), ['a', 'b', 'constant'], tmp_path / 'out')
  assert [set(models[label].asked) for label in 'ab'] == [{'network'}, {'measured'}]
  summary, _ = read(tmp_path / 'out')
  assert summary['align'] == 'network'
  assert [summary['methods'][label].get('align') for label in ('a', 'b', 'constant')] == ['network', 'measured', None]
  text = (tmp_path / 'out' / 'summary.md').read_text()
  assert 'Frames are aligned first (network; without an alignment network, and so measured: b); ' in text


def test_stacks_without_depth_are_measured_by_their_alignment(tmp_path, models, serve, drawn):
  """As Mobile Depth: no errors, and the pictures are those of least and greatest displacement."""
  frames, motion = moving_frames((1.02, 1.01, 1.0), ((0.0, 0.0),) * 3)
  unknown = {'motion': np.full((3, 3), np.nan, np.float32), 'valid': np.zeros(frames.shape[1:3], np.float32)}
  examples = [
    stack(name, (1.0, 2.0, 3.0), np.zeros(frames.shape[1:3]), images=images, **unknown)
    for name, images in (('moving', frames), ('still', frames[[2, 2, 2]]))
  ]
  models['shipped'] = Told(0 * motion)
  config = serve(examples, 'mobile_depth', split='test', align='measured', pictures=1, baselines=('constant',))
  evaluate(config, None, tmp_path / 'out')
  summary, rows = read(tmp_path / 'out')
  assert summary['stacks_without_valid_target'] == 2
  assert [[row[0] for row in drawn[name]] for name in ('best.png', 'worst.png')] == [['still'], ['moving']]
  assert 'mse' not in rows['network'][0]
  assert not (tmp_path / 'out' / 'error_by_depth.png').exists()
  assert summary['methods']['constant']['values'] == {}


def test_errors_relative_to_the_focus_range(tmp_path, models, serve):
  """Stacks in metres, which fall from far to near, beside stacks in dioptres, which rise: 0 is far and 1 near."""
  rng = np.random.default_rng(0)
  places, examples, errors = [], [], []
  for index, (focus, error) in enumerate(((METRES, 0.1), (DIOPTRES, 0.1), (METRES, -0.2), (DIOPTRES, -0.2))):
    place = rng.uniform(0, 1, SIZE)
    far, near = focus[0], focus[-1]
    example = stack(str(index), focus, far + place * (near - far))
    example['images'][:, 0, 0] = index
    example['valid'][0] = 0
    places.append(place[1:])
    examples.append(example)
    errors.append(error * (near - far))
  models['off'] = Off(examples, errors, weights=np.full((4, *SIZE), 0.25, np.float32))
  config = serve(examples, 'simulated', num_stacks=4)
  evaluate_methods(config, ['off', 'constant'], tmp_path / 'out', False)
  summary, rows = read(tmp_path / 'out')
  np.testing.assert_allclose(column(rows['off'], 'mae'), [0.1, 0.1, 0.2, 0.2], rtol=1e-4)
  np.testing.assert_allclose(column(rows['off'], 'mse'), [0.01, 0.01, 0.04, 0.04], rtol=1e-4)
  np.testing.assert_allclose(
    column(rows['constant'], 'mae'), [np.abs(place - 0.5).mean() for place in places], rtol=1e-4
  )
  spreads = [np.std(focus) / np.ptp(focus) for focus in (METRES, DIOPTRES)]
  np.testing.assert_allclose(column(rows['off'], 'avg_unc'), 2 * spreads, rtol=1e-4)
  assert summary['constant'] == 'middle of the focus range'
  assert summary['protocol']['relative_to_focus_range']
  assert_picture(tmp_path / 'out' / 'error_by_depth.png')

  results = list(measure_stacks(examples, 4, {'off': models['off']}, SIMULATED, 'off', ''))
  for one, place, error in zip(results, places, (0.1, 0.1, -0.2, -0.2), strict=True):
    assert one.focus_ends == (0.0, 1.0)
    np.testing.assert_allclose(one.target[1:], place, atol=1e-5)
    assert np.isnan(one.target[0]).all()
    assert one.pixels == place.size
    weight, absolute, signed = one.methods['off'].by_depth
    np.testing.assert_array_equal(weight, np.histogram(place, 20, (0, 1))[0])
    np.testing.assert_allclose(absolute, weight * abs(error), rtol=1e-3)
    np.testing.assert_allclose(signed, weight * error, rtol=1e-3)  # nearer than the truth is above 0


class Nearest(Predictor):
  """The focus of the nearest frame, everywhere; `data` is what its weights say that they were trained on."""

  def __init__(self, data=None):
    self.name = 'nearest.npz'
    self.trained_on = tuple(data or ())

  def predict(self, images, focus, fov=None, align='measured', motion=None, *, tile_px=None) -> Prediction:
    return (
      ConstantPredictor(0.0).predict(images, focus).replace(depth=np.full(images.shape[1:3], focus[-1], np.float32))
    )


@pytest.mark.parametrize('dataset', ['examples', 'ddff12', 'ddff12/raw'])
def test_labels_and_corrected_focus_of_ddff12(dataset, tmp_path, models, serve):
  """Two stacks whose nearest frame is labelled 0.2 and 0.16 px, of what is at 0.25 and 0.2 px: errors of -0.05 and
  -0.04 px, with 0.062 px added of 0.012 and 0.022 px. A constant has no focus; what was trained there has the labels.
  """
  examples = [
    stack(str(index), (0.05, near), np.full(SIZE, truth))
    for index, (near, truth) in enumerate(((0.2, 0.25), (0.16, 0.2)))
  ]
  models |= {'a': Nearest(['simulated']), 'b': Nearest(['ddff12/official', 'simulated']), 'c': Nearest(['published'])}
  compare(serve(examples, dataset), ['a', 'b', 'c', 'zero=constant'], tmp_path / 'out')
  summary, rows = read(tmp_path / 'out')
  assert list(rows) == ['a', 'a, focus corrected', 'b', 'c', 'zero']
  for label in 'abc':
    np.testing.assert_allclose(column(rows[label], 'mae'), [0.05, 0.04], rtol=1e-4)
  np.testing.assert_allclose(column(rows['a, focus corrected'], 'mae'), [0.012, 0.022], rtol=1e-4)
  np.testing.assert_allclose(column(rows['a, focus corrected'], 'mse'), [0.000144, 0.000484], rtol=1e-4)
  np.testing.assert_allclose(column(rows['zero'], 'mae'), [0.125, 0.095], rtol=1e-4)  # the middle of the labels
  focus = {label: method['focus'] for label, method in summary['methods'].items()}
  assert focus == {label: 'corrected' if label == 'a, focus corrected' else 'as labelled' for label in rows}
  assert summary['protocol']['focus_correction'] == 0.062
  assert summary['weights'] == dict.fromkeys('abc', 'nearest.npz')
  assert summary['differences_to_first']['a, focus corrected']['mae']['mean'] == pytest.approx(-0.028, rel=1e-4)
  text = (tmp_path / 'out' / 'summary.md').read_text()
  assert 'Focus corrected: 0.062 px added to the labels of all frames' in text
  assert '| a | these 2 stacks | 0.00205 |' in text
  assert '| a, focus corrected | these 2 stacks | 0.000314 |' in text


@pytest.mark.parametrize(
  ('focus', 'labels'),
  [('labelled', ['a', 'b', 'constant']), ('corrected', ['a, focus corrected', 'b', 'constant'])],
)
def test_one_kind_of_focus_alone(focus, labels, tmp_path, models, serve):
  """Focus that cannot be corrected is unchanged."""
  examples = [stack('one', (0.05, 0.2), np.full(SIZE, 0.25))]
  models |= {'a': Nearest(['simulated']), 'b': Nearest(['ddff12'])}
  compare(serve(examples, 'examples', focus=focus), ['a', 'b', 'constant'], tmp_path / 'out')
  summary, _ = read(tmp_path / 'out')
  assert list(summary['methods']) == labels
  expected = 0.05 if focus == 'labelled' else 0.012
  assert summary['methods'][labels[0]]['values']['mae']['mean'] == pytest.approx(expected, rel=1e-4)


def test_evaluate_reports_both_columns(tmp_path, models, serve):
  examples = [stack('one', (0.05, 0.2), np.full(SIZE, 0.25))]
  models['shipped'] = Nearest()  # weights from before files said what they were trained on
  summary = evaluate(serve(examples, 'examples', baselines=('constant',)), None, tmp_path / 'out')
  assert list(summary['methods']) == ['network', 'network, focus corrected', 'constant']
  assert summary['methods']['network']['values']['mae']['mean'] == pytest.approx(0.05, rel=1e-4)
  assert summary['methods']['network, focus corrected']['values']['mae']['mean'] == pytest.approx(0.012, rel=1e-4)


def test_one_column_where_networks_know_the_labels_or_labels_are_right(tmp_path, models, serve):
  examples = [stack('one', (0.05, 0.2), np.full(SIZE, 0.25))]
  models |= {'trained': Nearest(['ddff12']), 'simulated': Nearest(['simulated'])}
  evaluate_methods(serve(examples, 'examples'), ['trained', 'constant'], tmp_path / 'trained', False)
  evaluate_methods(serve(examples, 'hci4d'), ['simulated', 'constant'], tmp_path / 'other', False)
  for name, labels in (('trained', ['trained', 'constant']), ('other', ['simulated', 'constant'])):
    summary, _ = read(tmp_path / name)
    assert list(summary['methods']) == labels
    assert 'ocus corrected' not in (tmp_path / name / 'summary.md').read_text()
  assert summary['protocol']['focus_correction'] is None
  assert 'focus' not in summary['methods']['simulated']


@pytest.mark.parametrize(
  ('data', 'seen'),
  [
    (None, False),
    ([], False),
    (['simulated', 'hci4d'], False),
    (['ddff12'], True),
    (['simulated', 'ddff12/scene_disjoint'], True),
    (['simulated/ddff12'], False),  # the simulator's camera of that name
    (['published'], True),
  ],
)
def test_weights_that_may_have_seen_ddff12(data, seen):
  description = {} if data is None else {'data': data}
  assert may_have_seen(NetworkPredictor('some.npz', toy.make_toy(), {}, description, []), 'ddff12') == seen


def test_error_by_depth_in_the_unit_of_the_stacks(models):
  """In metres, bins run from the farthest frame, 1.5 m, to the nearest, 0.1 m; targets beyond go into the end bins."""
  target = np.random.default_rng(0).uniform(0.0, 1.6, SIZE)
  example = stack('metres', METRES, target)
  example['images'][:, 0, 0] = 0
  (one,) = measure_stacks([example], 1, {'off': Off([example], [0.25])}, FOLDER, 'off', '')
  weight, absolute, signed = one.methods['off'].by_depth
  np.testing.assert_array_equal(weight, np.histogram(target.clip(0.1, 1.5), 20, (0.1, 1.5))[0][::-1])
  np.testing.assert_allclose(absolute, 0.25 * weight, rtol=1e-4)
  np.testing.assert_allclose(signed, 0.25 * weight, rtol=1e-4)
  assert one.focus_ends == pytest.approx((1.5, 0.1))


@dataclasses.dataclass(frozen=True)
class Fault:
  settings: dict
  texts: tuple
  match: str


FAULTS = {
  'not built': Fault({'dataset': 'fod500', 'split': 'test'}, ('constant',), 'build it with'),
  'no such split': Fault({'dataset': 'examples', 'split': 'train'}, ('constant',), "only the split 'val'"),
  'no such data set': Fault({'dataset': 'nothing'}, ('constant',), "'nothing' is unknown"),
  'no such folder': Fault({'dataset': 'folder:nowhere'}, ('constant',), 'nowhere'),
  'endless': Fault({'dataset': 'simulated'}, ('constant',), 'eval.num_stacks is 0'),
  'alignment': Fault({'align': 'True'}, ('constant',), "eval.align is 'True', expected one of measured, network, me"),
  'no such field': Fault({'dataste': 'ddff12'}, ('constant',), r'no field eval\.dataste; eval has dataset'),
  'negative': Fault({'num_stacks': -1}, ('constant',), 'eval.num_stacks is -1'),
  'no such weights': Fault({}, ('network=none.npz', 'constant'), 'none.npz'),
  'no such measure': Fault({}, ('classical:none',), 'classical:none'),
  'one label': Fault({}, ('constant', 'constant'), "two methods named 'constant'"),
}


@pytest.mark.parametrize('name', FAULTS)
def test_faults(name, tmp_path):
  fault = FAULTS[name]
  config = config_of(**{'data_dir': str(tmp_path / 'data'), **fault.settings})
  with pytest.raises(InputError, match=fault.match) as caught:
    evaluate_methods(config, list(fault.texts), tmp_path / 'out', False)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'out').exists()


def test_a_comparison_of_one(tmp_path):
  with pytest.raises(InputError, match='has 1 method, expected at least two'):
    compare(config_of(), ['constant'], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_hidden_depth_is_for_a_submission(tmp_path):
  files, out = tmp_path / 'files', tmp_path / 'out'
  layouts.write_ddff12(files, {'train': 1, 'val': 1})
  with h5py.File(files / 'ddff-dataset-test.h5', 'w') as file:
    file.create_dataset('stack_test', (1, 10, 383, 552, 3), np.uint8, chunks=True, compression='gzip')
  build('ddff12', files, tmp_path / 'data')
  config = config_of(dataset='ddff12', split='test', data_dir=str(tmp_path / 'data'))
  with pytest.raises(InputError, match=r'ddff12 test: no stack has a valid target.*--mode=submit'):
    evaluate_methods(config, ['constant'], out, False)
  assert not out.exists()


def test_single_pictures(tmp_path):
  (tmp_path / 'files').mkdir()
  with h5py.File(tmp_path / 'files' / 'nyu_depth_v2_labeled.mat', 'w') as file:
    file['images'] = np.zeros((1, 3, 8, 6), np.uint8)
    file['depths'] = np.ones((1, 8, 6), np.float32)
  build('nyu_depth', tmp_path / 'files', tmp_path / 'data')
  config = config_of(dataset='nyu_depth', split='train', data_dir=str(tmp_path / 'data'))
  with pytest.raises(InputError, match='single pictures, expected focal stacks'):
    evaluate_methods(config, ['constant'], tmp_path / 'out', False)
  assert not (tmp_path / 'out').exists()


def test_existing_results_are_not_overwritten(tmp_path, serve, models):
  examples = stacks_of_errors(2)
  models['shipped'] = Off(examples, [0.1, 0.2])
  config, out = serve(examples, baselines=()), tmp_path / 'out'
  evaluate(config, None, out)
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  models['shipped'] = Off(examples, [0.3, 0.3])
  with pytest.raises(InputError, match=r'already holds files.*--overwrite'):
    evaluate(config, None, out)
  assert {path.name: path.read_bytes() for path in out.iterdir()} == before
  evaluate(config, None, out, overwrite=True)
  summary, _ = read(out)
  assert summary['methods']['network']['values']['mae']['mean'] == pytest.approx(0.3, rel=1e-4)


def test_a_failure_on_the_way_leaves_nothing(tmp_path, serve, models):
  examples = stacks_of_errors(2)
  models['shipped'] = Off(examples, [0.1])  # and none for the second
  with pytest.raises(IndexError):
    evaluate(serve(examples, baselines=()), None, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


def test_the_first_stacks_of_a_split(tmp_path, serve, models):
  examples = stacks_of_errors(5)
  models['shipped'] = Off(examples, [0.1, 0.2, 0.3, 0.4, 0.5])
  summary = evaluate(serve(examples, baselines=(), num_stacks=2), None, tmp_path / 'two')
  assert summary['stacks'] == 2
  assert summary['methods']['network']['values']['mae']['mean'] == pytest.approx(0.15, rel=1e-4)
  assert evaluate(serve(examples, baselines=(), num_stacks=9), None, tmp_path / 'all')['stacks'] == 5


def test_bad_input_is_reported_before_the_training_mean_is_computed(tmp_path, monkeypatch, serve):
  """Reading all of it would take minutes."""
  example = stack('hidden', DIOPTRES, np.zeros(SIZE), valid=np.zeros(SIZE, np.float32))
  config = serve([example])
  monkeypatch.setattr(sources, 'mean_target', lambda *_: pytest.fail('was read'))
  with pytest.raises(InputError, match='no stack has a valid target'):
    evaluate_methods(config, ['constant'], tmp_path / 'out', False)
  assert not (tmp_path / 'out').exists()
