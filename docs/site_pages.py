"""Hook of MkDocs (`make site`): pages from the whole project, and `commands.md`."""

from __future__ import annotations

import argparse
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pipelines import cli

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)#\s:]+)")  # to a file of the project
_BADGE = re.compile(r"^.*/badge[./].*\n", re.MULTILINE)  # a line with one


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the navigation, what they link to, and the generated page."""
    files.append(File.generated(config, "commands.md", content=commands()))
    waiting = list(_pages(config.nav))
    while waiting:
        name = waiting.pop()
        path = ROOT / name
        if files.get_file_from_path(name) or not path.is_file():
            continue
        site = config.site_dir, config.use_directory_urls
        files.append(File(name, str(ROOT), *site))
        if path.suffix == ".md":
            folder = posixpath.dirname(name)
            links = _LINK.findall(path.read_text("utf-8"))
            joined = (posixpath.join(folder, link) for link in links)
            waiting += map(posixpath.normpath, joined)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out the badges: their images load from the network."""
    return _BADGE.sub("", markdown)


def _pages(nav: Any) -> Iterator[str]:
    """Yield the file names in the navigation, which is nested."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(part)


def commands() -> str:
    """Return the help of every command from its parser, in Markdown."""
    os.environ["COLUMNS"] = "84"
    parser = cli._parser()
    (subcommands,) = (
        action for action in parser._actions if isinstance(action, cli._Commands)
    )
    helps: dict[str, argparse.ArgumentParser] = {"dscpp": parser}
    helps |= {f"dscpp {name}": action for name, action in subcommands.choices.items()}
    sections = [
        f"## {name}\n\n```text\n{action.format_help()}```\n"
        for name, action in helps.items()
    ]
    return "\n".join(["# Command line\n", *sections])
