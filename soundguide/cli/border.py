"""The one border between the package's errors and the shell: a clear message, an exit code, no traceback."""

from typing import Any

from typer.core import TyperGroup

from soundguide.errors import SoundGuideError

BAD_INPUT = 2  # the exit code for bad arguments and for input that cannot be used
UNMET = 3  # the exit code where work was done but came out short, and --strict asked to be told


class ErrorBorder(TyperGroup):
    """A group of commands that tells `SoundGuideError` on stderr and exits with 2; all other errors are bugs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        from soundguide.cli.console import fail

        try:
            return super().invoke(ctx)
        except SoundGuideError as error:
            fail(str(error))
            ctx.exit(BAD_INPUT)


def examples(*lines: tuple[str, str]) -> str:
    """Return the epilog of a command: each example is a comment, empty where it goes on, and a command line."""
    from rich.markup import escape

    shown = ["[bold]Examples[/]"]
    for comment, command in lines:
        shown += [f"[dim]# {escape(comment)}[/]"] if comment else []
        shown += [f"[green]soundguide {escape(command)}[/]"]
    return "\n".join(shown)
