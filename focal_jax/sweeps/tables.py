"""Results of a sweep: tables with mean and spread over the seeds, and a plot."""

import csv
import dataclasses
import math
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from focal_jax.errors import InputError
from focal_jax.files.outputs import write_whole
from focal_jax.models.npz_file import load_weights
from focal_jax.sweeps.variants import WEIGHTS, Run, State, Variant

_TITLES = {
  'mse': 'depth, MSE (focus range²)',
  'mae': 'depth, MAE (focus range)',
  'motion_px': 'motion error (px)',
  'unmoved_px': 'motion error of the crop alone (px)',
}
_SAME_FOR_ALL = ('unmoved_px',)  # not worth a picture


@dataclasses.dataclass(frozen=True)
class Row:
  """The finished runs of a variant: values of each metric, in the order of the seeds."""

  variant: Variant
  seeds: list[int]
  values: dict[str, list[float]]
  parameters: int | None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
  """Mean and sample standard deviation; the latter is undefined for one value."""
  return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def format_value(values: Sequence[float], expected: int) -> str:
  """0.01230 ± 0.00056, with the number of values if it is not the expected one (values that are not finite are
  missing).
  """
  if not values:
    return ''
  mean, spread = mean_and_spread(values)
  text = f'{mean:#.4g}'.rstrip('.') + ('' if spread is None else f' ± {spread:#.2g}'.rstrip('.'))
  return text if len(values) == expected else f'{text} ({len(values)} of {expected})'


def write_report(
  runs: Sequence[Run],
  states: Mapping[Run, State],
  workdir: Path,
  title: str,
  missing: Mapping[Run, str],
  seconds: Mapping[str, float],
) -> None:
  """table.md, table.csv, runs.csv and plot.png, of the runs that are finished.

  Args:
    missing: why the others are not.
    seconds: that runs took, by their names.
  """
  finished = [run for run in runs if states[run].metrics is not None]
  parameters = {run: _count_parameters(run.workdir / WEIGHTS) for run in finished}
  names = list(dict.fromkeys(name for run in finished if run.variant.report for name in states[run].metrics))
  rows = []
  for variant in dict.fromkeys(run.variant for run in runs if run.variant.report):
    own = [run for run in finished if run.variant is variant]
    metrics = [states[run].metrics for run in own]
    values = {name: [one[name] for one in metrics if name in one] for name in names}
    rows.append(Row(variant, [run.seed for run in own], values, parameters[own[0]] if own else None))

  seeds = sorted({run.seed for run in runs})
  write_whole(workdir / 'table.md', markdown_table(rows, names, title, seeds, missing))
  header = ['variant', 'overrides', 'seeds', 'parameters']
  header += [f'{name}_{statistic}' for name in names for statistic in ('mean', 'sd')]
  lines = []
  for row in rows:
    numbers = [mean_and_spread(row.values[name]) if row.values[name] else (None, None) for name in names]
    line = [
      row.variant.label,
      row.variant.text,
      len(row.seeds),
      row.parameters,
      *(one for pair in numbers for one in pair),
    ]
    lines.append(line)
  _write_csv(workdir / 'table.csv', header, lines)
  everything = list(dict.fromkeys(name for run in finished for name in states[run].metrics))
  _write_csv(
    workdir / 'runs.csv',
    ['variant', 'overrides', 'seed', 'step', *everything, 'seconds', 'parameters', 'folder'],
    [
      [
        *(run.variant.label, run.variant.text, run.seed, run.config.steps),
        *(states[run].metrics.get(name) for name in everything),
        *(round(seconds[run.name], 1) if run.name in seconds else None, parameters[run], run.name),
      ]
      for run in finished
    ],
  )
  if names:
    draw_plot(workdir / 'plot.png', [row for row in rows if row.seeds], names, title)


def markdown_table(
  rows: Sequence[Row], names: Sequence[str], title: str, seeds: Sequence[int], missing: Mapping[Run, str]
) -> str:
  """One row per variant, one column per metric; below it, the missing runs."""
  header = ['variant', 'seeds', 'parameters', *(_TITLES.get(name, name) for name in names)]
  lines = [f'# {title}', '', '| ' + ' | '.join(header) + ' |', '| --- |' + ' ---: |' * (len(header) - 1)]
  for row in rows:
    count = str(len(row.seeds)) if len(row.seeds) == len(seeds) else f'{len(row.seeds)} of {len(seeds)}'
    cells = [row.variant.label.replace('|', '\\|'), count, '' if row.parameters is None else f'{row.parameters:,}']
    cells += [format_value(row.values[name], len(row.seeds)) for name in names]
    lines.append('| ' + ' | '.join(cells) + ' |')
  spread = ' ± sample standard deviation' if len(seeds) > 1 else ''
  named = f'seeds {seeds[0]} to {seeds[-1]}' if len(seeds) > 1 else f'seed {seeds[0]}'
  lines += ['', f'Validation at the last step, mean{spread}, {named}.']
  if missing:
    lines += ['', 'Missing:', '', *(f'* {run.name}: {reason}' for run, reason in missing.items())]
  return '\n'.join(lines) + '\n'


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)


def _count_parameters(path: Path) -> int | None:
  """Number of parameters in a weights file; None if it cannot be read."""
  try:
    variables, _ = load_weights(path)
  except (InputError, ValueError, zipfile.BadZipFile):
    return None

  def count(tree):
    return sum(map(count, tree.values())) if isinstance(tree, dict) else int(tree.size)

  return count(variables.get('params', {}))


def draw_plot(path: Path, rows: Sequence[Row], names: Sequence[str], title: str) -> None:
  """A panel for each metric: means with their spread and the single seeds; over the number, where variants are numbers
  of one field, else a line a variant.
  """
  names = [name for name in names if name not in _SAME_FOR_ALL] or names
  field, numbers = _numbers(rows)
  labels = [textwrap.fill(row.variant.label, 28, break_on_hyphens=False, break_long_words=False) for row in rows]
  if field:
    size = (4.2 * len(names), 3.6)
  else:
    size = (2.2 + 3.2 * len(names), 1.5 + sum(0.22 + 0.2 * (label.count('\n') + 1) for label in labels))
  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(1, len(names), squeeze=False, sharey=not field)[0]
  for name, axis in zip(names, axes, strict=True):
    places = numbers if field else range(len(rows))
    shown = [
      (place, row.values[name]) for place, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
    ]
    shown = [(place, values) for place, values in shown if values]
    dots = [(place, value) for place, values in shown for value in values]
    means = [(place, *mean_and_spread(values)) for place, values in shown]
    at, mean = [place for place, _, _ in means], [value for _, value, _ in means]
    spread = [0.0 if value is None or math.isnan(value) else value for _, _, value in means]
    many = any(len(values) > 1 for _, values in shown)
    style = {'color': 'C0', 'markersize': 6, 'capsize': 4, 'zorder': 3}
    dot = {'s': 14, 'color': '0.55', 'linewidths': 0, 'zorder': 4, 'label': 'one seed'}
    if field:
      axis.errorbar(at, mean, yerr=spread if many else None, fmt='o-', label='mean ± sd', **style)
      if many:
        beside = offset_copy(axis.transData, figure, x=7, units='points')  # of the bar
        axis.scatter(*zip(*dots, strict=True), transform=beside, **dot)
      axis.set_xticks(numbers, [f'{number:g}' for number in numbers])
      axis.set_xlabel(field)
      axis.set_ylabel(_TITLES.get(name, name))
    else:
      axis.errorbar(mean, at, xerr=spread if many else None, fmt='o', label='mean ± sd', **style)
      if many:
        below = offset_copy(axis.transData, figure, y=-7, units='points')
        axis.scatter([value for _, value in dots], [place for place, _ in dots], transform=below, **dot)
      axis.set_yticks(range(len(rows)), labels)
      axis.set_ylim(len(rows) - 0.5, -0.5)
      axis.set_xlabel(_TITLES.get(name, name))
      axis.locator_params(axis='x', nbins=4)
    axis.grid(color='0.9')
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
  if many:
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc='outside lower right', ncols=2, fontsize=8, frameon=False)
  figure.suptitle(title, fontsize=11)
  figure.savefig(path, dpi=150)


def _numbers(rows: Sequence[Row]) -> tuple[str, list[int | float]]:
  """The one field that all variants override with a number, and the numbers; '' if it is not so."""
  overrides = [list(row.variant.overrides.items()) for row in rows]
  pairs = [one[0] for one in overrides if len(one) == 1]
  numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in pairs)
  if len(pairs) < len(rows) or len(rows) < 2 or len({field for field, _ in pairs}) > 1 or not numeric:
    return '', []
  return pairs[0][0], [value for _, value in pairs]
