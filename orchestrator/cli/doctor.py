"""`aib doctor`."""

from __future__ import annotations

import click

from orchestrator.cli.common import print_json


@click.command("doctor")
@click.option("--prove", is_flag=True, help="Boot a kernel under KVM now to see whether it works (5 s at most).")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(*, prove: bool, as_json: bool) -> int:
    """Can this machine build? Says what is missing and the exact commands that mend it.

    Exit codes: 0 it can; 3 something is missing.
    """
    from orchestrator.verbs.doctor import examine
    from orchestrator.views.text import safe, table

    report = examine(prove=prove)
    if as_json:
        print_json(report.to_json())
        return report.exit_code
    click.echo(report.host.system)
    rows = [(finding.status, finding.check, safe(finding.found)) for finding in report.findings]
    for line in table(("STATUS", "CHECK", "FOUND"), rows):
        click.echo(line)
    _what_to_do(report.install, [(f.check, f.fix) for f in report.findings if f.status != "ok" and f.fix])
    can = "This machine can build." if report.exit_code == 0 else "This machine cannot build yet."
    click.echo(f"\n{can}")
    return report.exit_code


def _what_to_do(install: str, fixes: list[tuple[str, str]]) -> None:
    if fixes:
        click.echo("\nWhat to do:")
    for check, fix in fixes:
        click.echo(f"  {check}: {fix}")
    if install and len(fixes) > 1:
        click.echo(f"\nAll packages at once:\n  {install}")
