"""The console's page, which is committed as it was built."""

import re
from hashlib import sha256

from tests.running import ROOT

_SOURCES = ROOT / "console"
_BUILT = ROOT / "gateway" / "console"


def test_the_page_was_built_of_the_sources() -> None:
    digest = sha256()
    for path in (*sorted((_SOURCES / "src").iterdir()), _SOURCES / "package-lock.json"):
        digest.update(f"{path.relative_to(_SOURCES)}\0".encode() + path.read_bytes())
    built = (_BUILT / "console.js").read_text()
    assert f"sources sha256:{digest.hexdigest()};" in built[:200], "run `make console`"


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    page = (_BUILT / "index.html").read_text()
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
    assert not re.search(r"<style| style=|https?:", page)
