"""One request to deploy, read and placed."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from orchestrator.record.arm_ids import Scope as GroupScope
from orchestrator.service import groups
from orchestrator.service.context import Context
from orchestrator.service.deployments import body as bodies
from orchestrator.service.deployments.body import Asked
from orchestrator.service.deployments.errors import InvalidDeployment
from orchestrator.service.deployments.facts import Facts, refuse
from orchestrator.service.deployments.world import ServerWorld
from orchestrator.service.entra import TENANT, origin
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.engine import DEPLOYMENT
from orchestrator.template.arm.functions_azure import Scope


@dataclass(frozen=True, slots=True)
class Requested:
    """What is to be deployed, where, and for whom. `level` is the id of the group or the subscription."""

    name: str
    level: str
    body: Asked
    scope: Scope
    world: ServerWorld
    facts: Facts
    api_version: str
    result_format: str = ""

    @property
    def id(self) -> str:
        """The id of the deployment."""
        return f"{self.level}/providers/{DEPLOYMENT}/{self.name}"


def requested(context: Context, request: Request, level: str, name: str, data: bytes) -> Requested:
    """Read a request. Raises `ArmError` 400."""
    try:
        asked = bodies.read(data)
    except InvalidDeployment as error:
        raise refused(error) from None
    parts = level.split("/")
    group = parts[4] if len(parts) > 4 else ""
    if not group and not asked.location:
        raise ArmError(
            400,
            "InvalidDeployment",
            f"The 'location' property must be specified for deployment '{name}'.",
        )
    if not group and asked.mode == "Complete":
        raise ArmError(400, "InvalidDeployment", "Deployments to a subscription have no mode 'Complete'.")
    world = ServerWorld(context, origin(request))
    location = asked.location or str(groups.form(context, GroupScope(parts[2], group))["location"])
    scope = Scope(parts[2], group, location, name, TENANT)
    facts = Facts(world, name, refuse, caller=request.state.caller.name)
    return Requested(name, level, asked, scope, world, facts, request.state.api_version, asked.result_format)


def refused(error: InvalidDeployment) -> ArmError:
    """400 with what is wrong and where."""
    made = ArmError(400, error.code, error.message, target=error.target, details=error.details)
    if error.info is not None:
        made.additional = [{"type": "TemplateViolation", "info": dict(error.info)}]
    return made
