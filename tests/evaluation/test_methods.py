"""Methods by name, and the time of their predictions without compilation."""

import types

import numpy as np
import pytest
from local_network import local_model

import focal_jax
from focal_jax.align.estimate import ALIGNMENTS
from focal_jax.errors import InputError
from focal_jax.evaluation import timing
from focal_jax.evaluation.methods import ConstantPredictor, alignment_of, open_methods
from focal_jax.evaluation.timing import Timed
from focal_jax.prediction.classical_predictor import ClassicalPredictor
from focal_jax.prediction.predictor import Predictor
from focal_jax.stack import Prediction


@pytest.fixture
def asked(monkeypatch):
  """What `focal_jax.load` was asked for."""
  names = []
  monkeypatch.setattr(focal_jax, 'load', lambda name: names.append(name) or ClassicalPredictor())
  return names


@pytest.mark.parametrize(
  ('text', 'label', 'name'),
  [
    ('shipped', 'shipped', 'shipped'),
    ('ours=shipped', 'ours', 'shipped'),
    ('simulated', 'simulated', 'simulated'),
    ('classical', 'classical', 'classical'),
    ('classical:laplacian', 'classical:laplacian', 'classical:laplacian'),
    (' a b = classical ', 'a b', 'classical'),
    ('runs/long/name/best.npz', 'name/best.npz', 'runs/long/name/best.npz'),
    ('best.npz', 'best.npz', 'best.npz'),
    ('=best.npz', 'best.npz', 'best.npz'),
    # Sweeps name their folders like this.
    ('runs/model.detection=plane/seed-0/best.npz', 'seed-0/best.npz', 'runs/model.detection=plane/seed-0/best.npz'),
    ('network=runs/a=1,b=2/best.npz', 'network', 'runs/a=1,b=2/best.npz'),
  ],
)
def test_labels_and_names(text, label, name, asked):
  methods = open_methods([text], lambda: pytest.fail('there is no constant'))
  assert list(methods) == [label]
  assert asked == [name]


def test_order_and_constant(asked):
  calls = []
  methods = open_methods(['b=x.npz', 'constant', 'a=x.npz', 'zero=constant'], lambda: calls.append(1) or 0.25)
  assert list(methods) == ['b', 'constant', 'a', 'zero']
  assert methods['constant'].value == methods['zero'].value == 0.25
  assert asked == ['x.npz', 'x.npz']


@pytest.mark.parametrize('texts', [('classical', 'classical'), ('a=constant', 'a=classical'), ('b/x.npz', 'c/b/x.npz')])
def test_two_methods_of_one_label(texts, asked):
  with pytest.raises(InputError, match=r"two methods named '.*', expected a label before each"):
    open_methods(texts, lambda: 0.0)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a=', "weights are '', expected one of shipped"),
    ('none.npz', 'none.npz: no such weights file'),
    ('classical:none', "method is 'classical:none', expected classical, or classical: and "),
    ('magic', "weights are 'magic', expected one of shipped"),
  ],
)
def test_methods_that_cannot_be_loaded(text, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=message):
    open_methods([text], lambda: 0.0)


@pytest.mark.parametrize(('value', 'depth'), [(0.25, 0.25), (None, 0.8), (0.0, 0.0)])
def test_the_constant_predictor(value, depth):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 4, 5, 3), np.uint8)
  prediction = ConstantPredictor(value).predict(images, np.float32([1.5, 0.7, 0.1]))
  np.testing.assert_array_equal(prediction.depth, np.full((4, 5), depth, np.float32))
  np.testing.assert_array_equal(prediction.confidence, np.zeros((4, 5)))
  np.testing.assert_allclose(prediction.aligned * 255, images, rtol=1e-6)
  assert (prediction.motion == 0).all()
  assert prediction.coverage.shape == (3, 4, 5)
  assert prediction.weights is None


class Compiles(Predictor):
  """Takes 30 s for the first stack of a shape, and 0.25 s for each further one."""

  def __init__(self):
    self.calls, self.now = [], 100.0

  def predict(self, images, focus, fov=None, align='measured', motion=None, *, tile_px=None) -> Prediction:
    self.now += 0.25 if (images.shape, align) in self.calls else 30
    self.calls.append((images.shape, align))
    return ConstantPredictor(float(len(self.calls))).predict(images, focus)


def test_time_without_compilation(monkeypatch):
  model = Compiles()
  monkeypatch.setattr(timing, 'time', types.SimpleNamespace(perf_counter=lambda: model.now))
  timed = Timed(model)
  focus = np.float32([0, 1])
  for (shape, align), calls in (
    (((2, 4, 5, 3), 'network'), 2),
    (((2, 4, 5, 3), 'network'), 1),
    (((2, 6, 5, 3), 'network'), 2),
    (((2, 4, 5, 3), 'network'), 1),
    (((2, 4, 5, 3), 'off'), 2),
    (((2, 6, 5, 3), 'network'), 1),
  ):
    before = len(model.calls)
    prediction, seconds = timed.predict(np.zeros(shape, np.uint8), focus, None, align)
    assert len(model.calls) - before == calls
    assert prediction.depth[0, 0] == len(model.calls)  # of the call that was timed
    assert seconds == 0.25


def test_a_method_without_an_alignment_network_is_aligned_as_measured():
  classical, network = ClassicalPredictor(), local_model()
  assert [alignment_of(classical, align) for align in ALIGNMENTS] == ['measured', 'measured', 'metadata', 'off']
  assert [alignment_of(network, align) for align in ALIGNMENTS] == list(ALIGNMENTS)
