"""`aib gc`."""

from __future__ import annotations

import re

import click

from orchestrator.cli.common import default_store, print_json

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def _bytes(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """`500M` or `2G` (powers of 1024) in bytes."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 2G", ctx=ctx, param=option)
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _shown(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--artifacts", is_flag=True, help="Also the exported disks of ended runs; distributed ones stay.")
@click.option("--fetched-max", metavar="SIZE", callback=_bytes, help="Keep at most this much of fetched files.")
@click.option("--checkpoints-max", metavar="SIZE", callback=_bytes, help="Keep at most this much of checkpoints.")
@click.option("--unused-for", metavar="DAYS", type=click.FloatRange(min=0), default=30.0, show_default=True,
              help="Drop fetched files that were not used for so long.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    dry_run: bool,
    artifacts: bool,
    fetched_max: int | None,
    checkpoints_max: int | None,
    unused_for: float,
    as_json: bool,
) -> None:
    """Reclaim space: leftovers of dead runs, disks that no image refers to, old fetched files,
    checkpoints above a size.

    Never touches what a running aib uses.
    """
    from orchestrator.verbs import gc

    limits = gc.Limits(
        unused_for=unused_for * gc.DAY,
        fetched_bytes=fetched_max,
        checkpoint_bytes=checkpoints_max,
        artifacts=artifacts,
    )
    reclaimed = []
    for item in gc.collect(default_store(), limits, dry_run=dry_run):
        reclaimed.append(item)
        if not as_json:
            click.echo(f"{_shown(item.size):>10}  {item.what}: {item.name}", err=True)
    total = sum(item.size for item in reclaimed)
    if as_json:
        items = [{"what": item.what, "name": item.name, "bytes": item.size} for item in reclaimed]
        print_json({"dryRun": dry_run, "bytes": total, "items": items})
    else:
        click.echo(f"{_shown(total)} {'would be freed' if dry_run else 'freed'}", err=True)
