"""Behaviours of the ARM endpoint that are not plainly the service's."""

from __future__ import annotations

from orchestrator.fidelity_behaviour import Behaviour

ENDPOINT: tuple[Behaviour, ...] = (
    Behaviour(
        "arm-state-conflict",
        "inferred",
        "What the state of a template or its run forbids is refused with 409 and OperationNotAllowed, in the words of "
        "public issues; `ready` stands for a template that never ran",
        "danielsollondon/azvmimagebuilder#79, #38; the status is nowhere said",
    ),
    Behaviour(
        "arm-second-put",
        "unknown",
        "A PUT that says what the template says already is answered with 200, every other one with the conflict",
        "TRBL has the conflict; what the same PUT gets is nowhere said",
    ),
    Behaviour(
        "arm-source-checked",
        "inferred",
        "A source image that nothing here knows fails the template at its submission, with the service's "
        "provisioningErrorCode; its version is looked for when a run is planned",
        "SDK's enumeration of the codes",
    ),
    Behaviour(
        "arm-run-errors",
        "inferred",
        "The operation of a failed run ends with PackerBuildFailed where a step failed, else with "
        "InternalOperationError",
        "azure-powershell#24244; azvmimagebuilder#50",
    ),
    Behaviour(
        "arm-partial-success",
        "unknown",
        "The operation of a run that succeeded in part ends as Failed, with the message of the run",
        "nothing public says it",
    ),
    Behaviour(
        "arm-run-sub-state",
        "unknown",
        "runSubState is left out of lastRunStatus when the run has ended",
        "choice",
    ),
    Behaviour(
        "arm-unknown-field",
        "inferred",
        "Since 2024-02-01 an unknown field is refused as ValidationFailed with the service's unmarshalling sentence, "
        "of which only the parts that were published are known",
        "NOTES May 2024",
    ),
    Behaviour(
        "arm-error-details",
        "different",
        "A refused template's error has all findings in `details`, by the ids of our rules; the service tells of one",
        "choice",
    ),
    Behaviour(
        "arm-trigger-off",
        "unknown",
        "A trigger is switched off when three of its runs in a row have failed, with the status Disabled",
        "TRIG says `repeated failures`; number and word are not known",
    ),
    Behaviour(
        "arm-roles",
        "different",
        "Role assignments are kept and shown, and nobody is refused anything for want of one, nor for a provider that "
        "is not registered",
        "choice",
    ),
    Behaviour(
        "arm-any-resource",
        "different",
        "Resources of types that the endpoint knows nothing of (networks, vaults) are kept as they were sent and do "
        "nothing; deployments of them succeed",
        "choice",
    ),
    Behaviour(
        "arm-deployment-links",
        "different",
        "A deployment fetches no linked template and reads no Key Vault: both are refused with the reason",
        "choice: a template must not make the server ask other addresses",
    ),
    Behaviour(
        "arm-deployment-order",
        "different",
        "A deployment makes its resources one after the other, parents before children; the service works in parallel, "
        "so a missing dependsOn can fail there and not here",
        "choice",
    ),
    Behaviour(
        "arm-deployment-preflight",
        "inferred",
        "An image template that breaks a rule is refused as InvalidTemplateDeployment when the deployment is validated "
        "and when it is created, before anything is made",
        "ARM's preflight validation; that the image builder takes part in it is not documented",
    ),
    Behaviour(
        "arm-deployment-failures",
        "inferred",
        "A failed image template is told as ResourceDeploymentFailure within DeploymentFailed, refused requests with "
        "the provider's own code",
        "azvmimagebuilder#50; ARM's troubleshooting pages",
    ),
    Behaviour(
        "arm-what-if",
        "inferred",
        "What-if compares what the template says with what is there; what only a run could know is shown as "
        "<reference(x)>",
        "what-if documentation; its noise of read-only properties is not imitated",
    ),
    Behaviour(
        "arm-image-import",
        "different",
        "An image or a version made from a VHD of the endpoint is there when its operation has succeeded, not before, "
        "and no other blob address is fetched",
        "choice",
    ),
    Behaviour(
        "arm-platform-versions",
        "different",
        "A platform image of the catalogue that is not stored yet is listed with the version `latest`",
        "its exact version is known when it is fetched",
    ),
)
