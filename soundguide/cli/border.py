"""The one border between the package's errors and the shell: a clear message, an exit code, no traceback."""

from typing import Any

from typer import BadParameter
from typer.core import TyperGroup

from soundguide.errors import SoundGuideError

BAD_INPUT = 2  # the exit code for bad arguments and for input that cannot be used
INTERRUPTED = 130  # the exit code after Ctrl-C, as shells have it
UNMET = 3  # the exit code where work was done but came out short, and --strict asked to be told


class ErrorBorder(TyperGroup):
    """A group of commands that tells `SoundGuideError` on stderr and exits with 2; all other errors are bugs.

    An interrupt exits with 130. What it was raised with is told: how to go on, where there is something to go on.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        from soundguide.cli.console import err, fail

        try:
            return super().invoke(ctx)
        except BadParameter as error:
            raise _with_value(error) from None
        except KeyboardInterrupt as interrupt:
            err.print(" ".join(["Stopped.", *map(str, interrupt.args)]), soft_wrap=True, markup=False)
            ctx.exit(INTERRUPTED)
        except SoundGuideError as error:
            fail(str(error))
            ctx.exit(BAD_INPUT)


def _with_value(error: BadParameter) -> BadParameter:
    """Return the error with the value that was typed, which Typer leaves out where pydantic found it wrong."""
    from pydantic import ValidationError

    if not isinstance(error.__cause__, ValidationError):
        return error
    got = error.__cause__.errors()[0]["input"]
    return BadParameter(f"{error.message} (got {got!r:.80})", ctx=error.ctx, param=error.param)


def examples(*lines: tuple[str, str]) -> str:
    """Return the epilog of a command: each example is a comment, empty where it goes on, and a command line."""
    from rich.markup import escape

    shown = ["[bold]Examples[/]"]
    for comment, command in lines:
        shown += [f"[dim]# {escape(comment)}[/]"] if comment else []
        shown += [f"[green]soundguide {escape(command)}[/]"]
    return "\n".join(shown)
