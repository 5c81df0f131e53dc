"""`make reference`: what the documentation takes from the sources. docs/configuration.md from the comments beside the
settings, docs/command_line.md from the help of the modes, docs/published.md from the protocols of the evaluation, and
in README.md the blocks that stand in weights/README.md.

  python docs/make_reference.py
"""

import contextlib
import io
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = 'weights/README.md'
_BLOCK = re.compile(r'^((>?) *<!-- (\w+): from [^>]*-->\n).*?(^>? *<!-- end -->)', re.DOTALL | re.MULTILINE)

_COMMAND_LINE = """# Command line

Made from the program's own help by `make reference`. `focal-jax MODE ...` is `python -m focal_jax.main MODE ...`, which
also works in a checkout that is not installed. Recipes, weights and examples are in the package: `--config=simulated`
means `configs/simulated.py` from any folder.

"""


def command_line() -> str:
  """The text of docs/command_line.md."""
  from focal_jax.main import MODES

  parts = [f'## {mode}\n\n```text\n{_help(mode)}\n```\n' for mode in MODES]
  return f'{_COMMAND_LINE}```text\n{_help()}\n```\n\n' + '\n'.join(parts)


def _help(*arguments: str) -> str:
  from focal_jax.main import run

  given, sys.argv = sys.argv, ['focal-jax', *arguments, '--help']
  text = io.StringIO()
  try:
    with contextlib.redirect_stdout(text):
      run()
  finally:
    sys.argv = given
  return text.getvalue().rstrip()


_PUBLISHED = """# Published figures

Made by `make reference` from `focal_jax/evaluation/protocols.py`. The notes below each table say on which stacks
the figures were measured, and where they were published. [Evaluation](evaluation.md) prints them beside its own; they
compare digit for digit only where stacks and mask are the same.
"""


def published() -> str:
  """The text of docs/published.md."""
  from focal_jax.evaluation.protocols import DDFF12, FOD500, HCI4D, MIDDLEBURY

  parts = [_PUBLISHED]
  protocols = {'DDFF-12': DDFF12, 'FoD500': FOD500, 'HCI 4D Light Field': HCI4D, 'Middlebury': MIDDLEBURY}
  for dataset, protocol in protocols.items():
    names = [name for name in protocol.names if any(name in row.values for row in protocol.published)]
    lines = [f'## {dataset}', '', f'Unit {protocol.unit}. This project measures {protocol.mask}.', '']
    lines += ['| ' + ' | '.join(('method', *names, 'note')) + ' |', '| --- |' + ' ---: |' * (len(names) + 1)]
    notes = [f'{row.measured_on}. {row.source}.' for row in protocol.published]
    numbers = {note: str(number) for number, note in enumerate(dict.fromkeys(notes), 1)}
    for row, note in zip(protocol.published, notes, strict=True):
      values = (f'{row.values[name]:.4g}' if name in row.values else '' for name in names)
      lines += ['| ' + ' | '.join((row.method, *values, numbers[note])) + ' |']
    lines += ['', *(f'{number}. {note}' for note, number in numbers.items())]
    parts.append('\n'.join(lines) + '\n')
  return '\n'.join(parts)


def with_figures(text: str, figures: str) -> str:
  """A text whose blocks `<!-- NAME: from ... --> .. <!-- end -->` are those of NAME in `figures`.

  A block whose marks are in a quotation is quoted, too.

  Raises:
    ValueError: a block that `figures` does not have.
  """

  def replace(match: re.Match) -> str:
    start, quote, name, end = match.groups()
    mark = re.escape(f'[start:{name}]'), re.escape(f'[end:{name}]')
    found = re.search(rf'<!-- --8<-- {mark[0]} -->\n(.*?)<!-- --8<-- {mark[1]} -->', figures, re.DOTALL)
    if found is None:
      raise ValueError(f'{FIGURES} has no block {name!r}, which README.md asks for')
    lines = (f'{quote} {line}'.rstrip() if quote else line for line in found[1].splitlines())
    return start + ''.join(f'{line}\n' for line in lines) + end

  return _BLOCK.sub(replace, text)


def made(root: Path = ROOT) -> dict[Path, str]:
  """Each file that is made, with its text."""
  from focal_jax.config import reference

  readme = root / 'README.md'
  return {
    root / 'docs' / 'configuration.md': reference(),
    root / 'docs' / 'command_line.md': command_line(),
    root / 'docs' / 'published.md': published(),
    readme: with_figures(readme.read_text(), (root / FIGURES).read_text()),
  }


if __name__ == '__main__':
  sys.path.insert(0, str(ROOT))
  for path, text in made().items():
    path.write_text(text)
