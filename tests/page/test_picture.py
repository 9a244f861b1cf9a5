"""README's picture is what the program draws, and stands alone."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path(__file__).parents[2] / "contrib" / "doc"
PICTURE = FOLDER / "which-quota.svg"


def test_the_picture_is_what_the_program_draws() -> None:
    """If this fails: python contrib/doc/picture.py contrib/doc/which-quota.svg"""
    assert PICTURE.read_text(encoding="utf-8") == runpy.run_path(str(FOLDER / "picture.py"))["picture"]()


def test_the_picture_is_xml_of_modest_size_that_loads_nothing_and_knows_the_dark() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(text) < 20_000
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"url\(|href|@import|<script", text) == []
    assert re.findall(r"https?:[^\"]*", text) == ["http://www.w3.org/2000/svg"]
