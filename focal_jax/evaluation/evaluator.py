"""`focal-jax evaluate`: errors of a network, baselines and published figures, by the protocol of each data set."""

import heapq
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import focal_jax
import tfds_ddff
from focal_jax import backend
from focal_jax.align.estimate import check_alignment
from focal_jax.api import SHIPPED
from focal_jax.config import check_fields
from focal_jax.data import sources
from focal_jax.errors import InputError
from focal_jax.evaluation import plots, tables
from focal_jax.evaluation.measure import StackResult, check_stacks, measure_stacks
from focal_jax.evaluation.methods import alignment_of, open_methods, with_corrected_focus
from focal_jax.evaluation.protocols import protocol_of
from focal_jax.files import pictures
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.prediction.predictor import Predictor
from focal_jax.simulate.stacks import settings_from_config

log = logging.getLogger(__name__)


def evaluate(config: ConfigDict, weights: str | None, out: Path, overwrite: bool = False) -> dict[str, Any]:
  """Predicts every stack of a split with a network and baselines, on the same pixels, and writes into `out`:

  summary.json and summary.md (means, intervals, published rows, run time, alignment), per_image.csv, best.png and
  worst.png (the network's stacks with the smallest and largest error), error_by_depth.png and sparsification.png.

  Args:
    config: uses `eval` and `data.data_dir`, and `simulator` for the data set 'simulated'.
    weights: as for `focal_jax.load`.
    out: folder for the results.
    overwrite: replace existing results in `out`.

  Returns:
    The content of summary.json.

  Raises:
    InputError: a data set that is not built or has no targets, or invalid weights; nothing is written then.
  """
  baselines = list(config.eval.baselines)
  first = weights if weights in baselines else f'network={weights or SHIPPED}'
  texts = [first, *(text for text in baselines if text != first)]
  return evaluate_methods(config, texts, out, overwrite)


def evaluate_methods(
  config: ConfigDict, texts: list[str], out: Path, overwrite: bool, *, paired: bool = False
) -> dict[str, Any]:
  """`evaluate` for any methods (`evaluation.methods.open_methods`); images show the first.

  If the data set's focus labels are known to be off (`protocols.FocusCorrection`), methods not trained on it are
  measured with the labels and with corrected focus.

  Args:
    config: as for `evaluate`.
    texts: the methods, as for `open_methods`.
    out: folder for the results.
    overwrite: replace existing results in `out`.
    paired: adds differences to the first method, and one image of all methods, comparison.png, instead of best.png and
      worst.png.
  """
  check_output(out, overwrite)
  check_fields(config)
  settings, data_dir = config.eval, config.data.data_dir
  check_alignment(settings.align, 'eval.align')
  source = sources.open_source(settings.dataset, settings.split, data_dir, settings_from_config(config.simulator))
  protocol = protocol_of(settings.dataset)
  count = _count_stacks(settings, len(source))
  title = f'{settings.dataset} {settings.split}'
  check_stacks(source, count, protocol, settings.align, title)
  methods = open_methods(texts, lambda: sources.mean_target(settings.dataset, data_dir))
  if protocol.focus_correction and settings.focus != 'labelled':
    methods = with_corrected_focus(methods, protocol.focus_correction, labelled=settings.focus == 'both')
  labels = list(methods)
  rank = 'mse' if 'mse' in protocol.names else 'rms_after_px'
  kept = _Spread(count, settings.pictures) if paired else _Extremes(labels[0], rank, settings.pictures)

  tally = tables.Tally(labels)
  with result_folder(out, overwrite) as staging:  # before the work, which a folder that cannot be written to would lose
    for result in measure_stacks(source, count, methods, protocol, settings.align, title):
      tally.add(result)
      kept.add(result)

    heading = tables.Heading(
      _full_name(settings.dataset),
      settings.split,
      count == len(source),
      unit := protocol.unit or getattr(source, 'focus_unit', ''),
      settings.align,
      {label: alignment_of(method, settings.align) for label, method in methods.items() if method.reads_images},
      [label for label, method in methods.items() if method.focus_offset],
      _facts(methods),
    )
    summary = tables.summarise(tally, protocol, heading, paired)
    (staging / 'summary.json').write_text(json.dumps(summary, indent=2, allow_nan=False) + '\n')
    (staging / 'summary.md').write_text(tables.markdown(summary), encoding='utf-8')
    tables.write_csv(staging / 'per_image.csv', tally)
    for name, results in kept.pictures().items():
      rows = [row for one in results for row in plots.stack_rows(one, labels if paired else labels[:1], rank)]
      pictures.contact_sheet(staging / name, rows, f'{title}: depth{f" in {unit}" if unit else ""}')
    if protocol.names:
      plots.draw_error_by_depth(staging / 'error_by_depth.png', tally, unit)
    if any(tally.sparsification.values()):
      plots.draw_sparsification(staging / 'sparsification.png', tally)
  print(tables.plain(summary))
  log.info('wrote %s, with all measures, intervals and published figures', out / 'summary.md')
  return summary


def _count_stacks(settings: ConfigDict, length: int) -> int:
  """Number of stacks to evaluate."""
  if settings.num_stacks < 0:
    raise InputError(f'eval.num_stacks is {settings.num_stacks}, expected a number of stacks, or 0 for all')
  if sources.is_simulated(settings.dataset) and not settings.num_stacks:
    raise InputError('eval.num_stacks is 0, expected how many stacks to simulate, since there is no end to them')
  return min(settings.num_stacks, length) if settings.num_stacks else length


def _full_name(dataset: str) -> str:
  """Name of a built data set with its config, such as 'ddff12/official'."""
  if dataset.partition('/')[0] not in tfds_ddff.DATASETS or sources.is_simulated(dataset):
    return dataset
  builder, config = tfds_ddff.find(dataset)
  return f'{builder.name}/{config.name}'


def _facts(methods: Mapping[str, Predictor]) -> dict[str, Any]:
  """Other information needed to reproduce the results."""
  own = {label: method for label, method in methods.items() if method.reads_images and not method.focus_offset}
  facts = {'weights': {label: method.name for label, method in own.items()}}
  for method in methods.values():
    if not method.reads_images:
      facts |= method.description
  return facts | {
    'device': str(backend.default_device()),
    'versions': {'focal_jax': focal_jax.__version__, 'jax': jax.__version__},
  }


class _Extremes:
  """The stacks with the smallest and the largest value of a measure for a method."""

  def __init__(self, label: str, rank: str, number: int):
    self._label, self._rank, self._number = label, rank, number
    self._best: list[tuple[float, int, StackResult]] = []  # heaps, the one to give up first
    self._worst: list[tuple[float, int, StackResult]] = []
    self._index = 0

  def add(self, result: StackResult) -> None:
    self._index += 1
    value = result.methods[self._label].values.get(self._rank)
    if value is None:
      return
    for heap, key in ((self._best, -value), (self._worst, value)):
      heapq.heappush(heap, (key, self._index, result))
      if len(heap) > self._number:
        heapq.heappop(heap)

  def pictures(self) -> dict[str, list[StackResult]]:
    """The stacks by file name, the most extreme first."""
    heaps = {'best.png': self._best, 'worst.png': self._worst}
    return {name: [result for *_, result in sorted(heap, reverse=True)] for name, heap in heaps.items() if heap}


class _Spread:
  """Stacks evenly spread over all of them."""

  def __init__(self, count: int, number: int):
    number = min(count, number)
    self._wanted = {round(index * (count - 1) / max(number - 1, 1)) for index in range(number)}
    self._index = 0
    self._results: list[StackResult] = []

  def add(self, result: StackResult) -> None:
    if self._index in self._wanted:
      self._results.append(result)
    self._index += 1

  def pictures(self) -> dict[str, list[StackResult]]:
    return {'comparison.png': self._results} if self._results else {}
