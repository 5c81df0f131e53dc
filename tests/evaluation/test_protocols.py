"""Every data set's protocol against numpy on the published files, and published figures against the facts."""

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import layouts
import numpy as np
import OpenEXR
import pytest
from absl import flags
from PIL import Image

from focal_jax.evaluation import protocols
from focal_jax.evaluation.evaluator import evaluate_methods
from focal_jax.evaluation.protocols import protocol_of
from focal_jax.recipes import default
from tfds_ddff.build import build

flags.FLAGS.mark_as_parsed()  # grain reads absl flags

SIZE = (6, 8)  # of most frames, so that little is compiled
Truth = list[tuple[np.ndarray, np.ndarray]]  # target and weight of each stack in the files, float64


def channel(path: Path, name: str) -> np.ndarray:
  with OpenEXR.File(str(path), separate_channels=True) as file:
    return file.channels()[name].pixels.astype(np.float64)


def of_hdf5(path: Path, key: str, mask: Callable) -> Truth:
  with h5py.File(path) as file:
    return [(disparity, mask(disparity)) for disparity in file[key][:].astype(np.float64)]


def write_ddff12(folder: Path) -> None:
  layouts.write_ddff12(folder, {'train': 2, 'val': 3}, SIZE)
  with h5py.File(folder / layouts.DDFF12_TRAINVAL, 'r+') as file:
    file['disp_val'][0] = 0.02  # beyond 7 m, everywhere
    file['disp_val'][1, 1, :4] = [0.0201, 0.0203, 0.2824, 0.2826]


def write_hci4d(folder: Path) -> None:
  layouts.write_hci4d(folder, {'train': 2, 'val': 3}, SIZE)
  with h5py.File(folder / layouts.HCI4D_FILE, 'r+') as file:
    file['disp_val'][1] = 3.0
    file['disp_val'][2] = 0.0  # a disparity like any other


def write_fod500(folder: Path) -> None:
  layouts.write_fod500(folder, (SIZE,) * 3)
  layouts.write_exr(folder / 'fs_6/000005Dpt.exr', R=np.full(SIZE, 1.6, np.float16))


def write_flyingthings(folder: Path) -> None:
  layouts.write_flyingthings_fs(folder, (SIZE,) * 3)


def write_middlebury(folder: Path) -> None:
  layouts.write_middlebury_fs(folder)
  layouts.write_exr(folder / 'Middlebury_FS/Jadeplant/disp.exr', Y=np.full((7, 5), 9.5, np.float32))


def write_smartphone(folder: Path) -> None:
  layouts.write_smartphone(folder, sizes=(SIZE,) * 3)
  path = folder / 'train1' / layouts.PHONE_CONFIDENCE.format(scene='a')
  layouts.write_exr(path, R=np.full(SIZE, -0.1, np.float32))


def ddff12(folder: Path) -> tuple[Truth, Truth]:
  path = folder / layouts.DDFF12_TRAINVAL
  return (
    of_hdf5(path, 'disp_train', lambda d: np.isfinite(d) & (d > 0)),
    of_hdf5(path, 'disp_val', lambda d: (d >= 0.0202) & (d <= 0.2825)),
  )


def hci4d(folder: Path) -> tuple[Truth, Truth]:
  path = folder / layouts.HCI4D_FILE
  return of_hdf5(path, 'disp_train', np.isfinite), of_hdf5(path, 'disp_val', lambda d: np.abs(d) <= 2.5)


def hci4d_train(folder: Path) -> tuple[Truth, Truth]:
  path = folder / layouts.HCI4D_FILE
  return hci4d(folder)[0], of_hdf5(path, 'disp_train', lambda d: np.abs(d) <= 2.5)


def fod500(folder: Path) -> tuple[Truth, Truth]:
  depths = [channel(folder / f'fs_6/{scene:06d}Dpt.exr', 'R') for scene in range(6)]
  return [(d, (d > 0) & (d <= 2)) for d in depths[:4]], [(d, (d >= 0.1) & (d <= 1.5)) for d in depths[4:]]


def flyingthings(folder: Path) -> tuple[Truth, Truth]:
  parts = []
  for places in (('train/0003', 'train/0007'), ('val/0001',)):
    disparities = [channel(folder / 'FlyingThings3D_FS' / place / 'disp.exr', 'Y') for place in places]
    parts.append([(d, np.isfinite(d) & (d > 0)) for d in disparities])
  return parts[0], parts[1]


def middlebury(folder: Path) -> tuple[Truth, Truth]:
  disparities = [channel(folder / 'Middlebury_FS' / name / 'disp.exr', 'Y') for name in ('ArtL', 'Jadeplant', 'Piano')]
  return [], [(d, (d >= 10) & (d <= 60)) for d in disparities]


def smartphone(folder: Path) -> tuple[Truth, Truth]:
  scenes = []
  for place, scene, name in (('train1', 'a', 'R'), ('train1', 'b', 'R'), ('train3', 'c', 'V'), ('test', 'd', 'R')):
    with Image.open(folder / place / layouts.PHONE_DEPTH.format(scene=scene)) as image:
      grey = np.asarray(image.convert('L'), np.float64)
    inverse = 1 / (20 / (100 - 99.8 * grey / 255))
    confidence = channel(folder / place / layouts.PHONE_CONFIDENCE.format(scene=scene), name)
    confidence = np.where(np.isnan(confidence), 0, confidence).clip(0, 1)
    scenes.append((inverse, confidence * ((inverse >= 1 / 3.91092) & (inverse <= 1 / 0.10201))))
  return scenes[:3], scenes[3:]


def smartphone_train(folder: Path) -> tuple[Truth, Truth]:
  train, _ = smartphone(folder)
  return train, train


@dataclasses.dataclass(frozen=True)
class Case:
  dataset: str
  split: str
  unit: str
  write: Callable[[Path], None]
  read: Callable[[Path], tuple[Truth, Truth]]  # truth of train, for the constant, and of the split
  names: list[str]
  left_out: list[str]
  same_rows: list[str] = dataclasses.field(default_factory=list)  # published on the same stacks
  other_rows: int = 0


HCI_ROWS = ['AiFDepthNet', 'AiFDepthNet, by all-in-focus only', 'DefocusNet']
SCENES = ['train1/a', 'train1/b', 'train3/c']
CASES = {
  'ddff12': Case(
    'ddff12', 'val', 'px', write_ddff12, ddff12, ['val_00000', 'val_00001', 'val_00002'], ['val_00000'], other_rows=9
  ),
  'hci4d': Case(
    'hci4d', 'val', 'px', write_hci4d, hci4d, ['val_00000', 'val_00001', 'val_00002'], ['val_00001'], HCI_ROWS
  ),
  'hci4d, train': Case(
    'hci4d/official', 'train', 'px', write_hci4d, hci4d_train, ['train_00000', 'train_00001'], [], other_rows=3
  ),
  'fod500': Case(
    'fod500', 'test', 'm', write_fod500, fod500, ['000004', '000005'], ['000005'],
    ['Won and Jeon', 'AiFDepthNet', 'DefocusNet'], 1,
  ),
  'flyingthings_fs': Case('flyingthings_fs', 'val', 'px', write_flyingthings, flyingthings, ['val/0001'], []),
  'middlebury_fs': Case(
    'middlebury_fs', 'test', 'px', write_middlebury, middlebury, ['ArtL', 'Jadeplant', 'Piano'], ['Jadeplant'],
    ['Won and Jeon', 'AiFDepthNet'],
  ),
  'smartphone': Case('smartphone', 'test', '1/m', write_smartphone, smartphone, ['test/d'], []),
  'smartphone, train': Case('smartphone', 'train', '1/m', write_smartphone, smartphone_train, SCENES, ['train1/a']),
}  # fmt: skip


def strict_json(path: Path):
  def refuse(text):
    raise ValueError(f'{path}: {text}')

  return json.loads(path.read_text(), parse_constant=refuse)


def errors(truth: Truth, constant: float) -> list[dict[str, float]]:
  """Of each stack; {} for one of no weight."""
  values = []
  for target, weight in truth:
    target = np.where(weight > 0, target, 0)
    total = float(weight.sum())
    if not total:
      values.append({})
      continue
    mse = float((weight * (constant - target) ** 2).sum() / total)
    values.append({'mae': float((weight * np.abs(constant - target)).sum() / total), 'mse': mse, 'rms': math.sqrt(mse)})
  return values


@pytest.mark.parametrize('name', CASES)
def test_errors_of_the_constant(name, tmp_path):
  case = CASES[name]
  case.write(tmp_path / 'files')
  build(case.dataset, tmp_path / 'files', tmp_path / 'data')
  config = default.get_config()
  config.data.data_dir = str(tmp_path / 'data')
  config.eval.update(dataset=case.dataset, split=case.split, pictures=0)
  evaluate_methods(config, ['constant'], tmp_path / 'out', False)
  summary = strict_json(tmp_path / 'out' / 'summary.json')
  text = (tmp_path / 'out' / 'summary.md').read_text()
  with (tmp_path / 'out' / 'per_image.csv').open() as file:
    rows = list(csv.DictReader(file))

  train, truth = case.read(tmp_path / 'files')
  if train:
    total = sum(float(weight.sum()) for _, weight in train)
    constant = sum(float((weight * np.where(weight > 0, target, 0)).sum()) for target, weight in train) / total
    assert summary['constant'] == pytest.approx(constant, rel=1e-5)
  else:
    constant = 35.0  # the middle of 10 .. 60 px
    assert summary['constant'] == 'middle of the focus range'

  expected = errors(truth, constant)
  assert [row['name'] for row in rows] == case.names
  assert [row['name'] for row, values in zip(rows, expected, strict=True) if not values] == case.left_out
  assert [int(row['pixels']) for row in rows] == [np.count_nonzero(weight) for _, weight in truth]
  for row, values in zip(rows, expected, strict=True):
    for measure in ('mae', 'mse', 'rms'):
      assert row[measure] == '' if not values else float(row[measure]) == pytest.approx(values[measure], rel=1e-4)

  method = summary['methods']['constant']['values']
  for measure in ('mae', 'mse', 'rms'):
    column = [values[measure] for values in expected if values]
    assert method[measure]['stacks'] == len(column)
    assert method[measure]['mean'] == pytest.approx(np.mean(column), rel=1e-4)
    # Plain means of the lines of the file, and no other.
    lines = [float(row[measure]) for row in rows if row[measure]]
    assert method[measure]['mean'] == pytest.approx(np.mean(lines), rel=1e-12)
  assert summary['stacks'] == len(truth)
  assert summary['stacks_without_valid_target'] == len(case.left_out)
  assert ('1 stack without a valid target left out' in text) == bool(case.left_out)
  assert 'left out of a mean' not in text
  assert summary['protocol']['unit'] == case.unit
  assert set(method) == set(summary['protocol']['measures'])
  assert summary['protocol']['measured_centre_px'] == ([336, 252] if case.dataset == 'smartphone' else None)

  published = summary['published']
  assert [row['method'] for row in published if row['same_stacks_as_ours']] == case.same_rows
  assert len(published) == len(case.same_rows) + case.other_rows
  assert text.count('(these stacks)') == len(case.same_rows)
  assert ('Rows measured on other stacks' in text) == bool(case.other_rows)
  for row in published:
    assert f'] {row["source"]}.  \n' in text


def test_signed_disparities_have_neither_ratios_nor_logarithms():
  assert not {'log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3'} & set(protocol_of('hci4d').names)
  target = np.float32([[-2.5, 0.0, 2.5, -2.6, 2.6, np.nan]])
  _, weight = protocol_of('hci4d').truth({'target': target, 'valid': np.ones_like(target)})
  np.testing.assert_array_equal(weight, [[1, 1, 1, 0, 0, 0]])


def test_the_range_of_ddff12():
  """0 wherever the disparity is beyond 0.0202 .. 0.2825 px, ends included."""
  target = np.float32([[0.0, 0.0201, 0.0202, 0.1, 0.2825, 0.2826, np.nan]])
  target, weight = protocol_of('ddff12/raw').truth({'target': target, 'valid': np.ones_like(target)})
  np.testing.assert_array_equal(target, np.float32([[0, 0, 0.0202, 0.1, 0.2825, 0, 0]]))
  np.testing.assert_array_equal(weight, [[0, 0, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize(
  ('size', 'window'),
  [
    ((504, 378), np.s_[84:420, 63:315]),
    ((505, 379), np.s_[84:420, 63:315]),
    ((400, 252), np.s_[32:368, :]),
    ((300, 300), np.s_[:, 24:276]),
    ((6, 8), np.s_[:, :]),
  ],
)
def test_the_centre_of_smartphone(size, window):
  rng = np.random.default_rng(0)
  target, valid = rng.uniform(0.3, 5, size).astype(np.float32), rng.uniform(0.1, 1, size).astype(np.float32)
  example = {'target': target.copy(), 'valid': valid.copy()}
  got, weight = protocol_of('smartphone').truth(example)
  expected = np.zeros_like(valid)
  expected[window] = valid[window]
  np.testing.assert_array_equal(weight, expected)
  np.testing.assert_array_equal(got, target)
  np.testing.assert_array_equal(example['valid'], valid)  # as it was


def test_a_data_set_without_a_protocol_of_its_own():
  assert protocol_of('folder:stacks/a') is protocols.FOLDER
  assert protocol_of('simulated/frozen').relative
  assert protocol_of('mobile_depth/aligned').names == ()


@pytest.mark.parametrize(
  ('protocol', 'method', 'values'),
  [
    ('ddff12', 'AiFDepthNet', {'mse': 8.6e-4, 'log_rms': 0.29, 'abs_rel': 0.25, 'sqr_rel': 0.01, 'bumpiness': 0.63,
                               'delta_1': 68.33, 'delta_2': 87.40, 'delta_3': 93.96}),
    ('ddff12', 'DefocusNet', {'mse': 9.1e-4}),
    ('ddff12', 'DDFFNet', {'mse': 9.7e-4, 'log_rms': 0.32, 'abs_rel': 0.29, 'sqr_rel': 0.01, 'bumpiness': 0.59,
                           'delta_1': 61.95, 'delta_2': 85.14, 'delta_3': 92.98}),
    ('ddff12', 'VDFF', {'mse': 7.3e-3, 'log_rms': 1.39, 'abs_rel': 0.62, 'sqr_rel': 0.05, 'bumpiness': 0.79,
                        'delta_1': 8.42, 'delta_2': 19.95, 'delta_3': 32.68}),
    ('ddff12', 'DFV', {'mse': 5.70e-4, 'rms': 0.0213, 'abs_rel': 0.17, 'sqr_rel': 6.26e-3, 'bumpiness': 0.42,
                       'delta_1': 76.74, 'delta_2': 94.23, 'delta_3': 98.14}),
    ('ddff12', 'HybridDepth', {'mse': 5.1e-4}),
    ('ddff12', 'DualFocus', {'mse': 4.7e-4}),
    ('ddff12', 'FOSSA, fine-tuned', {'mse': 3e-4}),
    ('ddff12', 'FOSSA, zero-shot', {'mse': 1.3e-3}),
    ('fod500', 'Won and Jeon', {'mse': 8.68e-3, 'rms': 0.0859, 'abs_rel': 0.08, 'sqr_rel': 0.0130}),
    ('fod500', 'AiFDepthNet', {'mse': 1.27e-2, 'rms': 0.1043, 'mae': 0.0549, 'abs_rel': 0.1115, 'sqr_rel': 0.0187}),
    ('fod500', 'DefocusNet', {'mse': 1.75e-2, 'rms': 0.1207, 'mae': 0.0637, 'abs_rel': 0.1386, 'sqr_rel': 0.0331}),
    ('fod500', 'DFV', {'mse': 0.0188, 'rms': 0.129, 'mae': 0.077, 'bumpiness': 1.43}),
    ('hci4d', 'AiFDepthNet', {'mse': 0.0472, 'rms': 0.2014, 'bumpiness': 1.58}),
    ('hci4d', 'AiFDepthNet, by all-in-focus only', {'mse': 0.0746, 'rms': 0.2398, 'bumpiness': 2.58}),
    ('hci4d', 'DefocusNet', {'mse': 0.0593, 'rms': 0.2355, 'bumpiness': 2.69}),
    ('middlebury_fs', 'Won and Jeon', {'mae': 1.645, 'mse': 9.178, 'rms': 2.930, 'abs_rel': 0.068, 'sqr_rel': 0.376}),
    ('middlebury_fs', 'AiFDepthNet', {'mae': 3.825, 'mse': 58.570, 'rms': 5.936, 'abs_rel': 0.165, 'sqr_rel': 3.039}),
  ],
)  # fmt: skip
def test_published_figures(protocol, method, values):
  (row,) = [row for row in protocol_of(protocol).published if row.method == method]
  assert row.values == values
  assert set(values) <= set(protocol_of(protocol).names)
