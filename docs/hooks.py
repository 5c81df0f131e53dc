"""Changes to the site that mkdocs.yml and stylesheets cannot make."""

import re


def on_page_content(html: str, **_) -> str:
  """Browsers break lines behind the dashes of a flag; the class `flag` keeps its first letter beside them."""
  return re.sub(r'<code>(--\w)', r'<code><span class="flag">\1</span>', html)
