"""How the command line is read: argparse, with help as wide as the terminal and errors of one line."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from proxy.errors import SettingsError
from proxy.settings_reference import further
from proxy.usages import EXAMPLES
from proxy.values import suggestion


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, with ``PATH ...`` for a list where argparse writes ``PATH [PATH ...]``."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=width())

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{action.metavar or default_metavar} ..."
        return super()._format_args(action, default_metavar)


def width() -> int:
    """Columns of the terminal, within bounds."""
    return max(60, min(shutil.get_terminal_size().columns, 120))


class Parser(argparse.ArgumentParser):
    """argparse, with one-line errors that come as `SettingsError`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.flags: Final[list[str]] = []
        self.lists_settings: tuple[str, ...] = ()  # sections whose settings without a flag its help lists
        self.lacks: Mapping[str, str] = {}  # flags of `serve` that it has not, and why
        options.setdefault("formatter_class", Formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)

    def flag(self, *names: str, into: argparse._ArgumentGroup | None = None, **options: Any) -> None:
        """Add a flag to this parser, or to a group of it, and remember its name for suggestions."""
        self.flags.extend(name for name in names if name.startswith("--"))
        (into or self).add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        if chosen := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            message = f"there is no command '{chosen[1]}'{suggestion(chosen[1], EXAMPLES)}"
        mark = "" if message.endswith("?") else ";"
        raise SettingsError(f"{message}{mark} '{self.prog} --help' shows how it is used")

    def format_help(self) -> str:
        """Help, with the settings that have no flag where ``lists_settings``."""
        text = super().format_help()
        return f"{text}\n{further(width(), self.lists_settings)}\n" if self.lists_settings else text
