"""Plots of an evaluation: curves, and stacks with their ground truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from focal_jax.evaluation.measure import StackResult
from focal_jax.evaluation.tables import Tally
from focal_jax.files import pictures

_WORST_SHOWN = 0.25  # upper colour limit of errors, as a share of the focus range
_METHODS_IN_A_ROW = 3


def stack_rows(result: StackResult, labels: Sequence[str], rank: str = '') -> list[list[pictures.Panel | None]]:
  """RGB, truth, and depth and error of the methods; for one method alone its confidence, too.

  Of up to three methods in one row, of more in two: errors below the depths.

  Args:
    rank: name of a measure to show above the error; none if empty.
  """
  limits = min(result.focus_ends), max(result.focus_ends)
  known = np.isfinite(result.target).any()
  first = [pictures.Panel(result.name, result.picture)]
  if known:
    first.append(pictures.Panel('truth', result.target, '', limits))
  depths, errors = [], []
  for label in labels:
    one = result.methods[label]
    depths.append(pictures.Panel(label.replace(', ', ',\n'), one.depth, '', limits))
    if known:
      error = np.abs(one.depth - result.target)
      end = _WORST_SHOWN * (limits[1] - limits[0])
      title = f'error, {rank} {one.values[rank]:.2g}' if rank in one.values else 'error'
      errors.append(pictures.Panel(title, error, '', (0.0, end), 'magma'))
  if not errors:
    rows = [first + depths]
  elif len(labels) <= _METHODS_IN_A_ROW:
    rows = [first + [panel for pair in zip(depths, errors, strict=True) for panel in pair]]
  else:
    rows = [first + depths, [None] * len(first) + errors]
  if len(labels) == 1:
    confidence = result.methods[labels[0]].confidence
    rows[0].append(pictures.Panel('confidence', confidence, '', (0.0, 1.0), pictures.CONFIDENCE_COLOURS))
  return rows


def draw_error_by_depth(path: Path, tally: Tally, unit: str) -> None:
  """Draws mean absolute error and bias over the true depth, and the distribution of the true depth."""
  figure = Figure(figsize=(7, 6), layout='constrained')
  FigureCanvasAgg(figure)
  above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  count = next(iter(tally.by_depth.values()))[0]
  edges = np.linspace(*(tally.focus_ends or (0.0, 1.0)), len(count) + 1)
  centres = (edges[1:] + edges[:-1]) / 2
  for label, (weight, absolute, signed) in tally.by_depth.items():
    known = weight > 0
    (line,) = above.plot(centres[known], absolute[known] / weight[known], marker='.', label=label)
    above.plot(centres[known], signed[known] / weight[known], ls='--', lw=1, color=line.get_color())
  above.axhline(0, color='0.7', lw=0.8)
  above.set_ylabel(f'mean |error| (solid), mean error (dashed){f", {unit}" if unit else ""}', fontsize=9)
  above.legend(fontsize=9)
  below.bar(centres, 100 * count / max(count.sum(), 1e-12), width=0.9 * abs(edges[1] - edges[0]), color='0.6')
  below.set_ylabel('% of pixels', fontsize=9)
  below.set_xlabel(
    f'true depth{f", {unit}" if unit else ""}'
    if tally.focus_ends not in (None, (0.0, 1.0))
    else 'true depth, as its place in the focus range: 0 farthest frame, 1 nearest'
  )
  figure.savefig(path, dpi=110)


def draw_sparsification(path: Path, tally: Tally) -> None:
  """Draws the error of the pixels that remain when the least confident ones are removed, and the oracle's; means over
  the stacks.
  """
  figure = Figure(figsize=(7, 4.5), layout='constrained')
  FigureCanvasAgg(figure)
  axis = figure.subplots()
  for label, curves in tally.sparsification.items():
    if not curves:
      continue
    curve, oracle = np.mean(curves, axis=0)
    removed = 100 * np.arange(len(curve)) / len(curve)
    area = np.nanmean(tally.values(label, 'ause'))
    (line,) = axis.plot(removed, curve, label=f'{label} (AUSE {area:.3f})')
    axis.plot(removed, oracle, ls=':', color=line.get_color())
  axis.plot([], [], ls=':', color='0.3', label='dotted: pixels ranked by their true error')
  axis.axhline(1, color='0.7', lw=0.8, label='uninformative confidence')
  axis.set_ylim(0, None)
  axis.set_xlabel('least confident pixels removed, %')
  axis.set_ylabel('mean |error| of the rest, relative to all pixels', fontsize=9)
  figure.legend(loc='outside lower center', ncols=2, fontsize=8)
  figure.savefig(path, dpi=110)
