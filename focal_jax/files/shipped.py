"""Files included in the package: weights, examples and recipes."""

from pathlib import Path

from focal_jax import recipes
from focal_jax.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder(name: str) -> Path:
  """`weights`, `examples` or `configs`: inside the installed package, or next to it in a checkout."""
  if name == 'configs':
    return Path(next(iter(recipes.__path__)))
  inside = _PACKAGE / name
  return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_file(path: str) -> Path:
  """`path`; or the shipped file with that name ('weights/simulated.npz') if `path` does not exist."""
  given = Path(path)
  if given.exists() or given.is_absolute() or len(given.parts) < 2:
    return given
  shipped = shipped_folder(given.parts[0]).joinpath(*given.parts[1:])
  return shipped if shipped.is_file() else given


def recipe_names() -> list[str]:
  """Names that `find_recipe` accepts: 'simulated', 'baselines/dfv' and so on."""
  folder = shipped_folder('configs')
  paths = (path.relative_to(folder).with_suffix('') for path in folder.rglob('*.py') if path.stem != '__init__')
  return sorted(path.as_posix() for path in paths)


def find_recipe(text: str) -> str:
  """The config file that --config names, with its variant: 'FILE', or 'FILE:VARIANT'.

  Args:
    text: a file, seen from the working directory; or else a recipe that ships, by its path in a checkout
      ('configs/baselines/dfv.py') or by its name ('baselines/dfv'). A variant may follow: 'simulated:smoke'.

  Raises:
    InputError: there is no such file, and no recipe of that name.
  """
  file, colon, variant = text.partition(':')
  if Path(file).is_file():
    return text
  name = file.removeprefix('configs/').removesuffix('.py')
  if name not in recipe_names():
    raise InputError(
      f"--config: found no file '{file}', expected one, or an included recipe: {', '.join(recipe_names())}"
    )
  return f'{shipped_folder("configs") / name}.py{colon}{variant}'
