"""The page of `--html`: one file with pictures, for a browser, a phone, a printer and a screen reader.

The answer of a verb becomes the content of a page (`replayed`, with `limits` and `days`), content becomes HTML
(`render`), and that a file (`file`). The page loads nothing and asks nobody: its policy (CSP) forbids it everything but
the one style and the one script that are in it, by their hashes.

Libraries: jinja2 (extra `report`) fills the templates, because it escapes whatever it is not told to leave alone: log
files are written by strangers. The pictures are SVG of our own: matplotlib's are a hundred kilobytes each, know neither
dark nor light nor a screen reader, and need numpy to draw forty bars.
"""
