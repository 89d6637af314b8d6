"""How commands end: an error of the user's is one line on stderr and its exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from underlay.errors import BirdhouseError


class Commands(TyperGroup):
    """The group of all commands."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except typer.TyperException as error:
            raise _misused(error) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            raise _misused(error) from error
        except BirdhouseError as error:
            print(f"birdhouse: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError as error:  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except KeyboardInterrupt as error:
            print("birdhouse: interrupted; nothing is left behind", file=sys.stderr)
            raise typer.Exit(130) from error


def _misused(error: Any) -> Exception:
    """An unknown option, a missing argument, a wrong value: Typer's words on one line, as of other errors."""
    words = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if words:  # without any, the help was asked for and has been printed
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        print(f"birdhouse: {words[0].lower()}{words[1:]}{hint}", file=sys.stderr)
    return typer.Exit(error.exit_code)
