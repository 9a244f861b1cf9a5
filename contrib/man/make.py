"""Makes the man pages: `python contrib/man/make.py FOLDER` writes man8/ratelimitd.8, man8/ratelimitctl.8 and
man5/ratelimitd.toml.5 there.

Options and verbs come from the programs themselves, settings from conf/ratelimitd.toml, what `ratelimitctl --json`
prints from the types of its answers; the rest is in the *.roff files here. A setting, a verb or a field of an answer
without a description is an error.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import msgspec
from fields import answers, arguments, described, is_struct, undescribed

from ratelimitd import __version__, settings
from ratelimitd.ctl import main as ctl
from ratelimitd.daemon import main as cli

HERE = Path(__file__).parent
REFERENCE = HERE.parents[1] / "conf" / "ratelimitd.toml"

_HEADER = re.compile(r"#?(\[\[?[a-z_]+\]\]?)")
_SETTING = re.compile(r"#?([a-z_]+) = (.*)")


@dataclass
class Entry:
    """Settings that are explained together; each as (name, default)."""

    settings: list[tuple[str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


@dataclass
class Section:
    """A table of the file; the first one has no header."""

    header: str
    text: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


def parse(reference: str) -> list[Section]:
    """The sections of conf/ratelimitd.toml."""
    sections = [Section("")]
    prose: list[str] = []
    for line in reference.splitlines():
        header, setting = _HEADER.fullmatch(line), _SETTING.fullmatch(line)
        if header:
            sections.append(Section(header[1], prose))
            prose = []
        elif setting:
            entries = sections[-1].entries
            if prose or not entries:
                entries.append(Entry(text=prose))
                prose = []
            entries[-1].settings.append((setting[1], setting[2]))
        elif line.startswith("#"):
            prose.append(line.removeprefix("#").removeprefix(" "))
        elif prose and (sections[-1].entries or sections[-1].header):
            raise SystemExit(f"{REFERENCE}: belongs to no setting and no section: {' '.join(prose)}")
        else:
            sections[-1].text += prose  # the introduction
            prose = []
    sections[-1].text += prose
    return sections


def undocumented(sections: list[Section]) -> list[str]:
    """The settings that the reference lacks, or does not describe."""
    said = {
        f"{section.header.strip('[]')}.{name}".lstrip(".")
        for section in sections
        for entry in section.entries
        for name, _ in entry.settings
        if entry.text
    }
    return sorted(set(paths(settings.Settings)) - said)


def paths(table: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Every setting of a table, as `table.name`."""
    for each in msgspec.structs.fields(table):
        inner = [kind for kind in (each.type, *arguments(each.type)) if is_struct(kind)]
        if inner:
            yield from paths(inner[0], f"{prefix}{each.encode_name}.")
        else:
            yield prefix + each.encode_name


# -- roff --------------------------------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Text for roff, lines that begin with a control character included."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", text)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def prose(lines: list[str]) -> str:
    """Paragraphs; lines indented by two blanks stay as they are."""
    out = ""
    example = False
    for line in lines:
        if line.startswith("  ") != example:
            example = not example
            out += ".nf\n" if example else ".fi\n"
        out += escape(line) + "\n"
    return out + (".fi\n" if example else "")


def title(name: str, section: int) -> str:
    """The header of a page."""
    return f'.TH "{name.upper()}" {section} "" "ratelimitd {__version__}" "ratelimitd"\n'


def part(name: str) -> str:
    """The part of a page that is written by hand."""
    return (HERE / f"{name}.roff").read_text(encoding="utf-8")


class _Asked(Exception):
    """Carries the parser that a program reads its arguments with."""


def parser_of(program: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """The parser of a program, wherever the program makes it."""

    def caught(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _Asked(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", caught):
        try:
            program(["--help"])
        except _Asked as asked:
            found: argparse.ArgumentParser = asked.args[0]
            return found
    raise SystemExit(f"{program.__module__} reads no arguments")


def options(parser: argparse.ArgumentParser) -> str:
    """The options and positional arguments of a parser."""
    out = ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(f"\\fB{escape(name)}\\fP" for name in action.option_strings)
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        if not action.help and not action.option_strings:
            continue  # the heading has it
        if not action.help:
            raise SystemExit(f"{parser.prog}: {names or action.dest}: without help")
        expanded = action.help % {**vars(action), "prog": parser.prog}
        head = f"{names} \\fI{escape(value)}\\fP" if value else names
        out += f".TP\n{head.strip()}\n{escape(expanded)}\n"
    return out


def verbs(parser: argparse.ArgumentParser) -> str:
    """The verbs of a parser, with their arguments."""
    out = ""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, sub in action.choices.items():
            text = sub.description or helps.get(name)
            if not text:
                raise SystemExit(f"{parser.prog} {name}: without help")
            takes = [each for each in sub._actions if not each.option_strings and each.metavar]
            words = [f"[{each.metavar}]" if each.nargs == "?" else str(each.metavar) for each in takes]
            out += f'.SS "{escape(" ".join([name, *words]))}"\n{escape(text)}\n' + options(sub) + verbs(sub)
    return out


def objects() -> str:
    """The types of answers with their fields."""
    found = answers()
    if missing := undescribed(found):
        raise SystemExit(f"ratelimitctl --json: says nothing about {', '.join(missing)}")
    out = ""
    for kind, printed_by in found.items():
        by = f" ({', '.join(printed_by)})" if printed_by else ""
        out += f'.SS "{kind.__name__}{by}"\n{escape((kind.__doc__ or "").strip())}\n'
        if kind.__base__ in found:
            out += f"It has the fields of {kind.__base__.__name__}, and:\n"
        for name, of_type, text in described(kind):
            out += f".TP\n\\fB{escape(name)}\\fP: {escape(of_type)}\n{escape(text[0].upper() + text[1:])}.\n"
    return out


def ratelimitd_8() -> str:
    """The daemon's page."""
    return title("ratelimitd", 8) + part("ratelimitd.8").replace("@OPTIONS@\n", options(parser_of(cli.main)))


def ratelimitctl_8() -> str:
    """The page of ratelimitctl."""
    parser = parser_of(ctl.main)
    text = part("ratelimitctl.8").replace("@OPTIONS@\n", options(parser))
    return title("ratelimitctl", 8) + text.replace("@VERBS@\n", verbs(parser)).replace("@OBJECTS@\n", objects())


def ratelimitd_toml_5() -> str:
    """The page of the configuration file."""
    sections = parse(REFERENCE.read_text(encoding="utf-8"))
    if missing := undocumented(sections):
        raise SystemExit(f"{REFERENCE}: says nothing about {', '.join(missing)}")
    out = ""
    for section in sections:
        if section.header:
            out += f'.SH "{escape(section.header)}"\n' + prose(section.text)
        for entry in section.entries:
            heads = [f"\\fB{escape(name)}\\fP = {escape(default)}\n" for name, default in entry.settings]
            out += ".TP\n" + ".TQ\n".join(heads) + prose(entry.text)
    return title("ratelimitd.toml", 5) + part("ratelimitd.toml.5").replace("@SETTINGS@\n", out)


PAGES = {
    "man8/ratelimitd.8": ratelimitd_8,
    "man8/ratelimitctl.8": ratelimitctl_8,
    "man5/ratelimitd.toml.5": ratelimitd_toml_5,
}


def main(folder: Path) -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: make.py FOLDER")
    main(Path(sys.argv[1]))
