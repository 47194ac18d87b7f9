"""Commands that take INPUT themselves and have subcommands besides."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class InputGroup(TyperGroup):
    """Takes INPUT itself, unless its first word is the name of a subcommand."""

    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Return the subcommand's own context, or that of the command which takes INPUT."""
        if args and args[0] in self.commands:
            name = f"{info_name} {args[0]}"
            return self.commands[args[0]].make_context(name, args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)
