"""Shipped files are found from any folder, unless the user has a file with that name."""

from pathlib import Path

import pytest

from focal_jax.errors import InputError
from focal_jax.files.shipped import find_recipe, recipe_names, shipped_file, shipped_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def test_folders_of_a_checkout():
  for name in ('weights', 'examples', 'configs'):
    assert shipped_folder(name).samefile(ROOT / name)


@pytest.mark.parametrize(
  ('text', 'file', 'variant'),
  [
    ('simulated', 'simulated.py', ''),
    ('simulated.py', 'simulated.py', ''),
    ('configs/simulated.py', 'simulated.py', ''),
    ('configs/shipped.py:depth_first', 'shipped.py', ':depth_first'),
    ('baselines/dfv:smoke', 'baselines/dfv.py', ':smoke'),
    ('configs/ablations/stem.py:smoke', 'ablations/stem.py', ':smoke'),
  ],
)
def test_recipes_by_path_and_by_name(text, file, variant):
  found, colon, rest = find_recipe(text).partition(':')
  assert Path(found).samefile(ROOT / 'configs' / file)
  assert colon + rest == variant


def test_a_file_of_the_user_comes_first(tmp_path):
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'simulated.py').write_text('')
  assert find_recipe('configs/simulated.py:smoke') == 'configs/simulated.py:smoke'
  (tmp_path / 'weights').mkdir()
  (tmp_path / 'weights' / 'simulated.npz').write_text('')
  assert shipped_file('weights/simulated.npz') == Path('weights/simulated.npz')


@pytest.mark.parametrize('text', ['none', 'configs/none.py', '../configs/simulated.py', '/configs/simulated.py', ''])
def test_other_recipes_are_refused(text):
  with pytest.raises(InputError, match=r'baselines/dfv.*simulated') as error:
    find_recipe(text)
  assert f"'{text}'" in str(error.value)


def test_recipe_names():
  assert {'default', 'shipped', 'ablations/networks', 'baselines/aifdepthnet'} <= set(recipe_names())
  assert not any('__' in name or '\\' in name for name in recipe_names())


def test_files_that_ship():
  assert shipped_file('weights/simulated.npz').samefile(ROOT / 'weights' / 'simulated.npz')
  for path in ('weights/none.npz', 'simulated.npz', '/weights/simulated.npz', 'runs/mine/best.npz'):
    assert shipped_file(path) == Path(path)  # whoever reads it says that it is not there
