"""Distributions with key plugins, as pip would leave them, in a folder for PYTHONPATH."""

from pathlib import Path


def install(folder: Path, distribution: str, source: str, *, version: str = "1.0", **points: str) -> None:
    """Install a distribution of one module, named as it is; `points` are its key plugins, "module:attribute"."""
    module = distribution.replace("-", "_")
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[ratelimitd.keys]\n{lines}", encoding="utf-8")
