"""How the command line reads options: overrides of presets, mistakes, numbers, and what a shell may complete."""

import os
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from ouroloop.errors import ConfigError, did_you_mean, shown
from ouroloop.preset_files import described_presets

if TYPE_CHECKING:
    from ouroloop.config import LoopConfig
    from ouroloop.study.config import StudyConfig


class Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if args[0] not in names and not ctx.resilient_parsing:
            near = did_you_mean(args[0], names)
            raise ConfigError(f"no command {shown(args[0])}{near}; there are: {', '.join(names)}")
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """Explains unknown options, ends quietly when nobody reads its output any more, and raises what signals ask for."""

    def overridden(self) -> "type[LoopConfig | StudyConfig] | None":
        """The kind of preset whose fields may be given as options beside the command's own."""
        return None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        overrides: list[str] = []
        if not ctx.resilient_parsing:
            args, overrides = self._parted(args, [*ctx.help_option_names])
        rest = super().parse_args(ctx, args)
        ctx.args = overrides
        return rest

    def _parted(self, args: list[str], own: list[str]) -> tuple[list[str], list[str]]:
        """The command's own arguments, and the overrides as KEY=VALUE, whether they came in one word or two."""
        own += [name for param in self.params for name in (*param.opts, *param.secondary_opts) if name[:1] == "-"]
        kept, overrides, words = list[str](), list[str](), iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if equals and not name.startswith("-"):
                self._refuse_bare(word, name)
            if not name.startswith("--") or name in own:
                kept += [word, *(words if word == "--" else ())]
                continue
            self._require_known(name, [each for each in own if each.startswith("--")])
            value = value if equals else next(words, "--")
            if not equals and value.startswith("--"):
                raise ConfigError(f"{name} needs a value: {name}=VALUE")
            overrides.append(f"{name.removeprefix('--')}={value}")
        return kept, overrides

    def _refuse_bare(self, word: str, key: str) -> None:
        """An override without its dashes, as Python spells it."""
        kind = self.overridden()
        if kind is not None:
            from ouroloop.schema import is_key

            if is_key(kind, key):
                raise ConfigError(f"got {shown(word)}, allowed is --{word}")

    def _require_known(self, name: str, own: list[str]) -> None:
        kind = self.overridden()
        if kind is None:
            allowed = ", ".join(own)
            raise ConfigError(f"unknown option {shown(name)}{did_you_mean(name, own)}; allowed here: {allowed}")
        from ouroloop.config import LoopConfig
        from ouroloop.presets import current_key, unknown_key
        from ouroloop.schema import is_key
        from ouroloop.study.config import StudyConfig

        key = current_key(name.removeprefix("--"))
        if not any(is_key(each, key) for each in (LoopConfig, StudyConfig)):  # the preset may be of the other kind
            raise ConfigError(unknown_key(kind, key, own, "--"))

    def invoke(self, ctx: Any) -> Any:
        from ouroloop.record.liveness import catch_signals

        catch_signals()
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            if not _is_stdout_closed():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the very end
            return 128 + signal.SIGPIPE
        return code


def _is_stdout_closed() -> bool:
    """Whether nobody reads stdout any more; the broken pipe may have been that of a store."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class LoopCommand(Command):
    """Takes the preset of a loop, with any of its fields as options, and lists the presets that there are."""

    studies = methods = False

    def overridden(self) -> "type[LoopConfig | StudyConfig]":
        from ouroloop.config import LoopConfig

        return LoopConfig

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Presets"):
            formatter.write_dl(list(described_presets(self.studies, self.methods).items()))
        super().format_epilog(ctx, formatter)


class StudyCommand(LoopCommand):
    studies = True

    def overridden(self) -> "type[LoopConfig | StudyConfig]":
        from ouroloop.study.config import StudyConfig

        return StudyConfig


class BoardCommand(StudyCommand):
    """Takes the preset of a study that compares methods."""

    methods = True


def number_from(low: int, high: int = 999_999_999) -> Any:
    def parse(given: str | int) -> int:
        text = str(given)  # a default comes here too
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise typer.BadParameter(f"{shown(text)} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10:
        raise typer.BadParameter(f"{shown(text)} is not a number above 0, up to 10")
    return value


_LOOP, _STUDY, _BOARD = {"studies": False}, {"studies": True}, {"studies": True, "methods": True}


def _preset(*kinds: dict[str, bool], help: str = "A name below, or a path.") -> Any:
    """An argument that is a preset of one of these kinds; completion shows what each is."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        every = [item for kind in kinds for item in described_presets(**kind).items()]
        return [(name, said) for name, said in every if name.startswith(incomplete)]

    return typer.Argument(metavar="PRESET", help=help, autocompletion=complete)


def recorded(incomplete: str) -> list[str]:
    from ouroloop.record import stores

    with suppress(ConfigError):  # not a valid URL: the command itself says so
        return [name for name in stores.known("study") or [] if name.startswith(incomplete)]
    return []


LoopPreset = Annotated[str, _preset(_LOOP)]
StudyPreset = Annotated[str, _preset(_STUDY)]
BoardPreset = Annotated[str, _preset(_BOARD)]
AnyPreset = Annotated[
    str | None, _preset(_LOOP, _STUDY, help="The preset whose values are shown; without it, the defaults.")
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What the runs are kept under; by default the preset's name."),
]
Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study, or the preset of lone loops.", autocompletion=recorded)
]
Workers = Annotated[
    int | None,
    typer.Option(
        parser=number_from(1), metavar="N", help="Loops at a time; by default 1, or as many as a cluster takes."
    ),
]
Executor = Annotated[Literal["local", "ray"], typer.Option(help="In processes of this machine, or on a Ray cluster.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster; without it, Ray is started on this machine.")
]
Port = Annotated[int, typer.Option(parser=number_from(1, 65_535), metavar="N", help="Port on this machine.")]
Seed = Annotated[int, typer.Option(parser=number_from(0), metavar="N", help="The same seed gives the same texts.")]
Temperature = typer.Option(parser=_temperature, metavar="T", help="Sampling temperature: above 0, up to 10.")
Count = Annotated[int, typer.Option("-n", parser=number_from(1), metavar="N", help="How many texts.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
