"""`aib explain`."""

from __future__ import annotations

from dataclasses import asdict

import click

from orchestrator.cli.common import print_json
from orchestrator.verbs.explain import Explanation, explain


@click.command("explain")
@click.argument("what", default="deviations")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(what: str, *, as_json: bool) -> None:
    """Explain WHAT: `deviations` (emulated behaviours, how well each is known), `rules`, or a code such as AIB046."""
    found = explain(what)
    if as_json:
        print_json([asdict(each) for each in found])
    elif len(found) == 1:
        _show(found[0])
    else:
        width = max(len(each.grade) for each in found)
        for each in found:
            click.echo(f"{each.grade:<{width}}  {each.code}: {each.text}")


def _show(found: Explanation) -> None:
    click.echo(f"{found.code} ({found.grade})")
    click.echo(f"  {found.text.removesuffix('.')}.")
    click.echo(f"  Source: {found.source}")
