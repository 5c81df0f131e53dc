"""README and site are correct: their Python blocks run, their commands parse, their files exist."""

import importlib.util
import itertools
import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

from focal_jax.data.folder import read_stack_folder

ROOT = Path(__file__).parents[1]
MADE = ('command_line.md', 'configuration.md', 'published.md')
PAGES = [
  *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'weights/README.md', 'tfds_ddff/README.md')),
  *sorted(path for path in (ROOT / 'docs').rglob('*.md') if path.name not in MADE),
]
ROOMS = 'focal_jax|configs|tfds_ddff|benchmarks|tests|docs|weights|examples|notebooks'
# Tested elsewhere: the example of `tests/test_baselines.py`.
RUN_ELSEWHERE = {'docs/tutorials/own_network.md'}
# Files that readers create.
INVENTED = {'focal_jax/models/sharpest.py', 'configs/baselines/sharpest.py'}
# Other programs, of which only the names are checked.
OTHERS = {'cd', 'git', 'source', 'tensorboard'}


def name_of(page):
  return page.relative_to(ROOT).as_posix()


def blocks(page, language):
  """Code blocks of a page: (text after the language, content)."""
  return re.findall(rf'^```{language}\b([^\n]*)\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page):
  """The commands of a page's `sh` blocks, as words."""
  for _, text in blocks(page, 'sh'):
    for line in text.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True)
      # A line may have several, joined by &&.
      for _, part in itertools.groupby(words, lambda word: word == '&&'):
        part = list(part)
        if part and part != ['&&']:
          yield part


def all_commands():
  return [(name_of(page), words) for page in PAGES for words in commands(page)]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A folder that programs may write into, with the files of a checkout beside."""
  for name in ('examples', 'configs', 'weights'):
    (tmp_path / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  'page', [page for page in PAGES if blocks(page, 'python') and name_of(page) not in RUN_ELSEWHERE], ids=name_of
)
def test_python_blocks_run(page, checkout, capsys):
  """One after the other, in one program, on small frames."""
  scope = {'__name__': 'documentation'}
  for _, text in blocks(page, 'python'):
    small = re.sub(r'max_side=\d+', 'max_side=64', text)
    exec(compile(small, f'{name_of(page)}, a block', 'exec'), scope)  # the documentation's own program
  if name_of(page) == 'README.md':
    assert scope['out'].depth.shape == (48, 64)
    assert capsys.readouterr().out.startswith('(48, 64)')


# Parses a command line: instead of running, the program reports that it would run.
UNDERSTAND = """
import argparse, dataclasses, os, runpy, sys
import absl.app, absl.flags

def done(*_, **__):
  print('UNDERSTOOD', flush=True)
  os._exit(0)

def app(program, argv=None, flags_parser=absl.flags.FLAGS):
  rest = flags_parser(sys.argv)
  assert len(rest) == 1, rest
  done()

sys.argv = sys.argv[1:]
if sys.argv[0] == 'focal_jax.main':
  from focal_jax import main
  main.MODES.update({name: dataclasses.replace(mode, run=done) for name, mode in main.MODES.items()})
  main.run(name='focal-jax')
parse = argparse.ArgumentParser.parse_args
argparse.ArgumentParser.parse_args = lambda *args, **kwargs: done(parse(*args, **kwargs))
absl.app.run = app
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
"""


# Invalid commands, by what is wrong with them.
STALE = {
  'outt': ('focal_jax.main', ['predict', 'examples/pcb', '--outt=x']),
  'batchsize': ('focal_jax.main', ['train', '--config=simulated', '--config.batchsize=1', '--workdir=x']),
  'shap': ('benchmarks.tiles', ['--shap=1']),
}


def program_of(words):
  """(module, arguments) of a command of this project; None for any other."""
  words = list(itertools.dropwhile(lambda word: re.fullmatch(r'[A-Z_]+=.*', word), words))
  if words[0] == 'focal-jax':
    return 'focal_jax.main', words[1:]
  if words[:2] == ['python', '-m'] and words[2].partition('.')[0] in ('focal_jax', 'tfds_ddff', 'benchmarks'):
    return words[2], words[3:]
  return None


def understand(module, words):
  """What the program says, in the working directory."""
  result = programs.run('-c', UNDERSTAND, module, *words, cwd=Path.cwd(), environment={'PYTHONPATH': str(ROOT)})
  return result.stdout + result.stderr


@pytest.mark.slow
def test_commands_of_this_project_are_understood(checkout):
  """Their modes and flags exist, their values can be parsed, their recipes load with the fields that are set."""
  (ablation,) = [text for _, text in blocks(ROOT / 'docs/tutorials/ablation.md', 'python')]
  (checkout / 'my_ablation.py').write_text(ablation)
  found = {(page, *words): program_of(words) for page, words in all_commands()}
  found = {key: program for key, program in found.items() if program and '--help' not in key}
  assert len(found) > 30
  said = {key: understand(*program) for key, program in found.items()}
  for word, program in STALE.items():
    answer = understand(*program)
    assert 'UNDERSTOOD' not in answer
    assert word in answer
  assert {key: text for key, text in said.items() if 'UNDERSTOOD' not in text} == {}


def test_other_commands():
  """Targets of make, extras of the package, scripts of this project; of other programs the name."""
  targets = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  for page, words in all_commands():
    if program_of(words):
      continue
    match words:
      case ['make', target, *_]:
        assert target in targets, page
      case ['pip', 'install', what]:
        named = re.fullmatch(r'\.(?:\[([\w,]+)\])?', what)
        assert named, (page, what)
        assert set(filter(None, (named[1] or '').split(','))) <= set(extras), page
      case ['python', '-m', 'pytest', *arguments]:
        assert all((ROOT / one).exists() for one in arguments if not one.startswith('-')), page
      case ['python', script, *_]:
        assert (ROOT / script).is_file(), page
      case [program, *_]:
        assert program in OTHERS, (page, words)


def test_the_metadata_examples_are_read(tmp_path):
  page = ROOT / 'docs/tutorials/my_stack.md'
  for language in ('csv', 'json'):
    ((about, text),) = blocks(page, language)
    folder = tmp_path / language
    folder.mkdir()
    (folder / re.search(r'title="(.*)"', about)[1]).write_text(text)
    for name in ('IMG_1.jpg', 'IMG_2.jpg'):
      Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)).save(folder / name)
    stack = read_stack_folder(folder)
    assert stack.focus_unit == '1/m'
    np.testing.assert_allclose(stack.focus, [0, 2])
    assert stack.names == ['IMG_1.jpg', 'IMG_2.jpg']
    assert stack.fov[0] > stack.fov[1] == 1


@pytest.mark.parametrize('page', [*PAGES, ROOT / 'CHANGELOG.md'], ids=name_of)
def test_files_that_are_named_exist(page):
  text = page.read_text()
  named = re.findall(rf'`((?:{ROOMS})/[\w./]*)[`:]', text)
  missing = [name for name in named if not (ROOT / name).exists() and name not in INVENTED]
  if page.parent.name != 'docs' and page.parent.parent.name != 'docs':  # of the site mkdocs knows
    links = re.findall(r'\]\((?!http)([^)#]+)', text)
    missing += [link for link in links if not (page.parent / link).exists()]
  assert missing == []
  modules = re.findall(r'`((?:focal_jax|tfds_ddff|benchmarks)(?:\.\w+)+)', text)
  assert [name for name in modules if not exists(name)] == []


def exists(name):
  """A module, or a name in one."""
  for cut in range(name.count('.') + 1, 0, -1):
    parts = name.split('.')
    module = '.'.join(parts[:cut])
    try:
      found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
      continue
    if found:
      value = importlib.import_module(module) if parts[cut:] else None
      for part in parts[cut:]:
        value = getattr(value, part, None)
      return not parts[cut:] or value is not None
  return False


MAKE = (
  'import json, make_reference; print(json.dumps({str(path): text for path, text in make_reference.made().items()}))'
)


def test_what_is_made_from_the_sources_is_up_to_date():
  # In a separate process, because other tests register networks.
  result = programs.run('-c', MAKE, environment={'PYTHONPATH': str(ROOT / 'docs')})
  assert result.returncode == 0, result.stderr
  made = json.loads(result.stdout)
  assert len(made) == 4
  for path, text in made.items():
    assert Path(path).read_text() == text, f'{path} is stale: make reference'


def test_blocks_of_figures_are_copied():
  spec = importlib.util.spec_from_file_location('make_reference', ROOT / 'docs' / 'make_reference.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  changed = module.with_figures('> <!-- a: from x -->\n> old\n> <!-- end -->\n', _marked('a', 'new\n\nlines\n'))
  assert changed == '> <!-- a: from x -->\n> new\n>\n> lines\n> <!-- end -->\n'
  with pytest.raises(ValueError, match="no block 'b'"):
    module.with_figures('<!-- b: from x -->\n<!-- end -->\n', _marked('a', 'new\n'))


def _marked(name, text):
  return f'before\n<!-- --8<-- [start:{name}] -->\n{text}<!-- --8<-- [end:{name}] -->\nafter\n'


def test_ci_runs_the_versions_that_the_package_allows():
  workflow = (ROOT / '.github/workflows/ci.yml').read_text()
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  versions = [one.rpartition(' ')[2] for one in project['classifiers'] if re.search(r'Python :: 3\.\d', one)]
  assert re.search(r'python: \[(.*)\]', workflow)[1] == ', '.join(map(repr, versions))
  assert project['requires-python'] == f'>={versions[0]}'
  for package in ('jax', 'flax'):
    (oldest,) = [one.partition('>=')[2] for one in project['dependencies'] if one.startswith(f'{package}>=')]
    assert re.search(rf'^ +{package}: ([\d.]+)', workflow, re.MULTILINE)[1] == oldest
  assert 'bash .ci/run' in workflow
