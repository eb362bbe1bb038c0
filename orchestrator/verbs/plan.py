"""Plan a template: resolve and check everything before the first side effect in a VM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hypervisor.deadline import Deadline
from orchestrator.plan import sizes, snapshot
from orchestrator.plan.catalogue import Catalogue
from orchestrator.plan.config import Config
from orchestrator.plan.credentials import Credentials
from orchestrator.plan.fetch import Fetcher, wanted_by
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.model import RunPlan
from orchestrator.plan.planner import PlanOptions, make_plan
from orchestrator.plan.sizes import HostCapacity
from orchestrator.plan.sources import resolve_source
from orchestrator.plan.versions import plan_distributions
from orchestrator.record.arm_ids import DEFAULT_SCOPE, Scope
from orchestrator.record.store import Store
from orchestrator.template.load import load_template
from orchestrator.template.model import Template

if TYPE_CHECKING:
    from orchestrator.build.job import Job
    from orchestrator.build.options import BuildOptions

Say = Callable[[str], None]


def plan_template(
    job: Job,
    store: Store,
    *,
    deadline: Deadline,
    say: Say,
    on_secret: Say = lambda _: None,
) -> RunPlan:
    """The plan of a job, with everything in place that it needs: payloads fetched, source image in the store.

    `say` gets one line per long thing that is done, `on_secret` every token that must not get into a log.
    Raises `InvalidTemplate`, `TemplateError`, `InputError`, `HostError`, or as the deadline says.
    """
    options = job.options
    template, _ = load_template(
        job.template_file,
        job.template_text,
        name=options.name,
        settings=options.settings,
        parameters=options.parameters,
        scope=options.scope,
    )
    return plan(
        template,
        job.template_file.parent,
        options,
        store,
        deadline=deadline,
        say=say,
        on_secret=on_secret,
        prepare=True,
        submitted=job.payloads,
    )


def plan(
    template: Template,
    folder: Path,
    options: BuildOptions,
    store: Store,
    *,
    deadline: Deadline,
    say: Say,
    prepare: bool,
    on_secret: Say = lambda _: None,
    submitted: Mapping[str, str] | None = None,
) -> RunPlan:
    """The plan of a checked template whose relative paths count from `folder`.

    `submitted`: the digests of its scripts and files, by pointer, when they were fetched at its submission.
    Without `prepare` a source image that is not stored yet is named only: the plan has no digest and no disk size.
    Cheap checks come first, so that nobody waits for a download to hear of a wrong size or a missing gallery.
    Raises as `plan_template` does.
    """
    config = Config.load(store.home)
    if template.vm_profile.vm_size:
        size = sizes.find(template.vm_profile.vm_size)
        sizes.grant(size, HostCapacity.measured(), strict=options.strict_size)
    now = datetime.now(UTC)
    validate_only = template.validate is not None and template.validate.source_validation_only
    if not validate_only:
        plan_distributions(template, store, now)
    if submitted is None:
        credentials = Credentials(template.identities, config, deadline, on_secret=on_secret)
        fetcher = Fetcher(FetchedStore(store.home), folder, credentials, deadline, offline=options.offline, say=say)
        payloads = fetcher.fetch_all(wanted_by(template))
    else:
        payloads = snapshot.payloads(FetchedStore(store.home), wanted_by(template), submitted)
    warnings: list[str] = []
    source = resolve_source(
        template.source,
        store=store,
        catalogue=Catalogue.of(store.home, Path(options.catalogue) if options.catalogue else None),
        location=template.location,
        offline=options.offline,
        deadline=deadline,
        say=say,
        prepare=prepare,
        warn=warnings.append,
    )
    return make_plan(
        template,
        source,
        payloads=payloads,
        host=HostCapacity.measured(),
        options=plan_options(options, config),
        distributions=() if validate_only else plan_distributions(template, store, now, source),
        warnings=tuple(warnings),
    )


def plan_options(options: BuildOptions, config: Config) -> PlanOptions:
    """What the options and the configuration file say together: scripts run as the login user when either says so."""
    login = options.script_user == "login" or config.script_user == "login"
    return PlanOptions(
        strict_size=options.strict_size,
        script_user="login" if login else "root",
        powershell=options.powershell_form,
        require_reboot=options.require_reboot,
        network=options.network,
        networks=config.networks,
        excused=frozenset(options.excused),
        on_error="cleanup" if options.on_error == "ask" else options.on_error,
        scope=Scope(
            options.subscription or DEFAULT_SCOPE.subscription, options.resource_group or DEFAULT_SCOPE.resource_group
        ),
    )
