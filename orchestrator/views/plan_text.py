"""A plan (the document of `aib plan --json`) for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.views.text import duration, safe, size

Json = Any
_DIGEST = 12
_COMMAND_INDENT = " " * 6


def render(document: Mapping[str, Json]) -> Iterator[str]:
    """Lines of text; what differs from run to run comes last, under a heading of its own."""
    template = document["template"]
    yield f"Template    {template['name']} ({template['apiVersion'] or 'no apiVersion'}, {template['location']})"
    yield from _source(document["source"])
    yield from _machine(document)
    yield "Steps"
    for step in document["steps"]:
        yield from _step(step)
    if document["sourceValidationOnly"]:
        yield "  (sourceValidationOnly: nothing is built or distributed)"
    yield from _listed("Downloads", (_download(each) for each in document["downloads"]))
    yield from _distribute(document["distribute"])
    yield from _listed("Warnings", map(safe, document["warnings"]))
    yield from _listed(
        "Differs from the service",
        (f"{each['code']} ({each['grade']}): {safe(each['message'])}" for each in document["deviations"]),
    )
    yield from _listed("Not emulated", map(safe, document["notEmulated"]))
    if "varies" in document:
        yield from _varies(document)


def _source(source: Mapping[str, Json]) -> Iterator[str]:
    digest = f"sha256 {source['sha256'][:_DIGEST]}" if source["stored"] else "not stored yet: a build brings it in"
    yield f"Source      {safe(source['requested'])}"
    yield f"            version {source['version']}, {source['os']}, generation {source['generation']}, {digest}"


def _machine(document: Mapping[str, Json]) -> Iterator[str]:
    machine, given = document["machine"], document["machine"]["given"]
    disk = f"{size(machine['osDiskSize'])} disk" if machine["osDiskSize"] else "disk as large as the source's"
    yield f"Machine     {machine['vmSize']}: {given['vcpus']} vCPUs, {given['memoryMiB']} MiB memory, {disk}"
    minutes = document["budgetSeconds"] / 60
    yield f"            {machine['firmware'].upper()}, network {machine['network']}, budget {minutes:g} minutes"


def _step(step: Mapping[str, Json]) -> Iterator[str]:
    yield (
        f"  {step['index']:>2}  {step['phase']:<12} {step['kind']:<14} {safe(step['name'])}  "
        f"[{step['digest'][:_DIGEST]}]{_what(step)}"
    )
    if destination := step["settings"].get("destination"):
        yield f"{_COMMAND_INDENT}-> {safe(destination)}"
    if step["command"]:
        yield f"{_COMMAND_INDENT}$ {safe(step['command'])}"


def _what(step: Mapping[str, Json]) -> str:
    script, inline = step["script"], step["settings"].get("inline")
    if step["download"]:
        said = f"  ({safe(step['download'])}"
        return said + (", CRLF becomes LF)" if script and script["lineEndsConverted"] else ")")
    if inline is not None and script:
        lines = f"{len(inline)} line{'' if len(inline) == 1 else 's'} inline"
        return f"  ({lines}, {safe(script['firstLine'])})" if script["firstLine"].startswith("#!") else f"  ({lines})"
    return ""


def _download(each: Mapping[str, Json]) -> str:
    return f"{safe(each['uri'])}: {each['size']} bytes, sha256 {each['sha256']}"


def _distribute(distributions: list[Mapping[str, Json]]) -> Iterator[str]:
    if distributions:
        yield "Distribute"
    for each in distributions:
        yield f"  {each['type']:<14} {safe(each['runOutputName'])}"
        open_version = each["type"] == "SharedImage" and each["version"] is None
        note = " (the version is chosen when it is distributed)" if open_version else ""
        yield f"      -> {safe(each['artifactId'])}{note}"


def _listed(title: str, lines: Iterator[str] | map[str]) -> Iterator[str]:
    found = [f"  - {line}" for line in lines]
    if found:
        yield title
        yield from found


def _varies(document: Mapping[str, Json]) -> Iterator[str]:
    varies, time = document["varies"], document["varies"]["time"]
    yield ""
    yield "Varies from run to run"
    yield f"  - {varies['scriptNames']}"
    for each in varies["versions"]:
        yield f"  - {safe(each['runOutputName'])} would get version {each['version']} (at {each['at']})"
    lines = list(_times(document, time))
    yield "  - time known from earlier runs (medians):" if lines else "  - time: nothing of this has run here before"
    yield from (f"      {line}" for line in lines)
    if lines:
        known = "" if time["complete"] else " at least: some parts have not run here before"
        share = f"{100 * time['budgetShare']:.0f} % of the budget of {duration(document['budgetSeconds'])}"
        yield f"      {duration(time['knownSeconds']):>12}  in all, {share}{known}"


def _times(document: Mapping[str, Json], time: Mapping[str, Json]) -> Iterator[str]:
    if time["boot"]:
        yield f"{duration(time['boot']['seconds']):>12}  boot ({_runs(time['boot'])})"
    for step, each in zip(document["steps"], time["steps"], strict=True):
        if each["seconds"] is not None:
            of = "the same step" if each["known"] == "digest" else "a step of this name"
            yield f"{duration(each['seconds']):>12}  {safe(step['name'])} ({of}, {_runs(each)})"
    if time["afterSteps"]:
        yield f"{duration(time['afterSteps']['seconds']):>12}  after the last step ({_runs(time['afterSteps'])})"


def _runs(known: Mapping[str, Json]) -> str:
    return f"{known['runs']} run{'' if known['runs'] == 1 else 's'}"
