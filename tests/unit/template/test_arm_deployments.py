"""Deployments: parameters, variables, loops, conditions, nesting, and where their mistakes are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.diagnostics import Diagnostic, InvalidTemplate, Severity
from orchestrator.template.load import Loaded, inspect_templates, load_template
from orchestrator.template.parameter_file import read_parameters

FIXTURE = Path(__file__).parents[3] / "fixtures" / "templates" / "arm-gallery.json"


def deployment(**more: Any) -> dict[str, Any]:
    resource = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2019-05-01-preview",
        "name": "t",
        "location": "eastus",
        "properties": {
            "source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1"},
            "customize": [{"type": "Shell", "name": "n", "inline": ["true"]}],
            "distribute": [{"type": "VHD", "runOutputName": "out"}],
        },
    }
    resource.update(more.pop("resource", {}))
    return {"$schema": "x", "resources": [resource], **more}


def inspected(data: Any, **more: Any) -> Loaded:
    return inspect_templates(None, json.dumps(data), **more)


def errors(loaded: Loaded) -> list[Diagnostic]:
    return [d for d in loaded.diagnostics if d.severity is Severity.ERROR]


def test_the_fixture_expands_to_a_typed_template() -> None:
    template, _ = load_template(
        FIXTURE, parameters={"galleryName": "demo", "regions": '["eastus", "westus"]', "release": "true"},
        scope=Scope(subscription="s1", resource_group="g1", location="westus"),
    )  # fmt: skip
    assert template.name == "web-template"
    assert template.location == "westus"
    assert template.tags == {"stage": "release"}
    assert template.identities == (
        "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder",
    )
    packages, bracket = template.customize
    assert packages.script.inline == (  # type: ignore[union-attr] -- the fixture has Shell customizers only
        "cloud-init status --wait || true", "sudo apt-get update", "sudo apt-get install -y curl",
        "sudo apt-get install -y jq",
    )  # fmt: skip
    assert bracket.script.inline == ("[ -f /etc/os-release ]", "echo web")  # type: ignore[union-attr] -- as above
    target = template.distribute[0]
    assert target.run_output_name == "web-01"
    assert [region.name for region in target.regions] == ["eastus", "westus"]  # type: ignore[union-attr] -- SharedImage


def test_a_missing_parameter_is_reported_at_its_first_use_once() -> None:
    found = errors(inspect_templates(FIXTURE))
    assert [(d.rule, d.message) for d in found] == [("AIB004", "the parameter 'galleryName' has no value")]
    line = FIXTURE.read_text().splitlines()[found[0].position.line - 1]
    assert line[found[0].position.column - 1 :].startswith("parameters('galleryName')")


def test_a_missing_parameter_that_nothing_uses_is_an_error_too() -> None:
    found = errors(inspected(deployment(parameters={"x": {"type": "string"}})))
    assert [(d.rule, d.pointer) for d in found] == [("AIB004", "/parameters/x")]


@pytest.mark.parametrize(
    ("declared", "given", "good"),
    [
        ({"type": "int"}, "5", True), ({"type": "int"}, "x", False), ({"type": "int"}, True, False),
        ({"type": "bool"}, "true", True), ({"type": "array"}, '["a"]', True), ({"type": "array"}, "a", False),
        ({"type": "string"}, "5", True), ({"type": "string"}, 5, False), ({"type": "secureString"}, "x", True),
        ({"type": "string", "allowedValues": ["a"]}, "b", False), ({"type": "int", "maxValue": 3}, 4, False),
        ({"type": "string", "minLength": 3}, "ab", False),
    ],
)  # fmt: skip
def test_parameter_values_fit_their_declaration(declared: dict[str, Any], given: Any, good: bool) -> None:
    data = deployment(parameters={"p": declared}, resource={"tags": {"t": "[string(parameters('p'))]"}})
    assert (not errors(inspected(data, parameters={"P": given}))) is good


@pytest.mark.parametrize(
    "variables",
    [{"a": "[variables('b')]", "b": "[variables('a')]"}, {"a": "[variables('a')]"}],
)
def test_a_variable_that_depends_on_itself_is_an_error(variables: dict[str, str]) -> None:
    found = errors(inspected(deployment(variables=variables, resource={"location": "[variables('a')]"})))
    assert found
    assert all(d.rule == "AIB004" for d in found)
    assert "depends on itself" in found[0].message


def test_a_long_chain_of_variables_is_an_error_not_a_crash() -> None:
    variables = {f"v{i}": f"[variables('v{i + 1}')]" for i in range(5000)}
    found = errors(inspected(deployment(variables=variables, resource={"location": "[variables('v0')]"})))
    assert {d.rule for d in found} == {"AIB004"}
    assert "nested too deeply" in found[0].message
    short = {f"v{i}": f"[variables('v{i + 1}')]" for i in range(30)} | {"v30": "eastus"}
    assert not errors(inspected(deployment(variables=short, resource={"location": "[variables('v0')]"})))


def test_loops_of_nothing_run_into_the_budget() -> None:
    loops: Any = "x"
    for number in range(4):
        loops = {"copy": [{"name": f"l{number}", "count": 800, "input": loops}]}
    for data in (
        deployment(resource={"tags": loops}),
        deployment(variables={"v": loops}, resource={"tags": "[variables('v')]"}),
    ):
        assert errors(inspected(data))


@pytest.mark.parametrize(
    "call",
    [
        "map(range(0, 10000), lambda('i', range(0, 10000)))",
        "map(range(0, 10000), lambda('i', toUpper(variables('long'))))",
        "map(range(0, 10000), lambda('i', length(union(range(0, 1900), range(5, 1900)))))",
        "map(range(0, 10000), lambda('i', max(range(0, 10000))))",
    ],
)
def test_values_that_are_cheap_to_write_are_paid_for(call: str) -> None:
    data = deployment(
        variables={"long": "[padLeft('a', 10000, 'x')]"}, resource={"tags": f"[createObject('a', {call})]"}
    )
    assert any("too much work" in d.message for d in errors(inspected(data)))


def test_doubling_variables_run_into_the_budget() -> None:
    variables = {f"v{i}": f"[createArray(variables('v{i + 1}'), variables('v{i + 1}'))]" for i in range(25)}
    variables["v25"] = "x"
    data = deployment(variables=variables, resource={"tags": "[variables('v0')]"})
    assert any("too much work" in d.message for d in errors(inspected(data)))


def test_a_copy_loop_makes_one_template_per_turn() -> None:
    data = deployment(resource={"name": "[concat('t', copyIndex())]", "copy": {"name": "c", "count": 3}})
    assert [t.name for t in inspected(data).templates] == ["t0", "t1", "t2"]
    too_many = deployment(resource={"copy": {"name": "c", "count": 100_000}})
    assert "800" in errors(inspected(too_many))[0].message


def test_loops_in_loops_end_at_what_arm_allows() -> None:
    inner = deployment(resource={"copy": {"name": "d", "count": 800}})
    nested = {
        "type": "Microsoft.Resources/deployments", "name": "n", "copy": {"name": "c", "count": 800},
        "properties": {"template": inner},
    }  # fmt: skip
    found = errors(inspected({"resources": [nested]}, typed=False))
    assert [d.message for d in found] == ["more than 800 resources are made"]


def test_a_false_condition_leaves_the_resource_out() -> None:
    data = deployment(parameters={"on": {"type": "bool"}}, resource={"condition": "[parameters('on')]"})
    assert len(inspected(data, parameters={"on": True}).templates) == 1
    off = inspected(data, parameters={"on": False})
    assert not off.templates
    assert not errors(off)
    assert any("condition is false" in d.message for d in off.diagnostics)


@pytest.mark.parametrize(("scope", "name"), [("inner", "inner-value"), ("outer", "outer-value")])
def test_nested_deployments_see_their_scope(scope: str, name: str) -> None:
    inner = deployment(resource={"name": "[variables('v')]"}, variables={"v": "inner-value"})
    nested = {
        "type": "Microsoft.Resources/deployments", "name": "n", "resourceGroup": "other",
        "properties": {"expressionEvaluationOptions": {"scope": scope}, "template": inner},
    }  # fmt: skip
    result = inspected({"variables": {"v": "outer-value"}, "resources": [nested]})
    assert [t.name for t in result.templates] == [name]


def test_parameters_reach_an_inner_deployment() -> None:
    inner = deployment(parameters={"p": {"type": "string"}}, resource={"name": "[parameters('p')]"})
    nested = {
        "type": "Microsoft.Resources/deployments", "name": "n",
        "properties": {
            "expressionEvaluationOptions": {"scope": "Inner"}, "template": inner,
            "parameters": {"p": {"value": "[concat('a', 'b')]"}},
        },
    }  # fmt: skip
    assert [t.name for t in inspected({"resources": [nested]}).templates] == ["ab"]


def test_symbolic_names_and_existing_resources() -> None:
    resource = deployment()["resources"][0]
    data = {"languageVersion": "2.0", "resources": {"a": resource, "b": {**resource, "existing": True}}}
    assert len(inspected(data).templates) == 1


def test_values_only_azure_knows_are_noted_and_not_judged() -> None:
    data = deployment(resource={"location": "[reference('x').location]"})
    data["resources"][0]["properties"]["buildTimeoutInMinutes"] = "[reference('x').outputs.minutes.value]"
    result = inspected(data)
    assert not errors(result)
    assert any("known only to a deployment" in d.message for d in result.diagnostics)
    assert result.templates[0].location == "<reference('x').location>"


def test_the_target_version_stands_in_for_an_api_version_nobody_gave() -> None:
    data = deployment(
        parameters={"api-version": {"type": "string"}}, resource={"apiVersion": "[parameters('api-version')]"}
    )
    assert errors(inspected(data))
    given = inspected(data, parameters={"api-version": "2019-05-01-preview"})
    assert given.templates[0].api_version == "2019-05-01-preview"


def test_an_expression_of_the_wrong_type_is_reported_at_the_expression() -> None:
    data = deployment(resource={"tags": "[createArray('a')]"})
    assert [(d.rule, d.pointer) for d in errors(inspected(data))] == [("AIB071", "/resources/0/tags")]


def test_both_shapes_of_parameter_files(tmp_path: Path) -> None:
    content = {"a": {"value": [1]}, "s": {"reference": {"keyVault": {"id": "x"}, "secretName": "pw"}}}
    for shape in (content, {"$schema": "x", "contentVersion": "1.0.0.0", "parameters": content}):
        file = tmp_path / "p.json"
        file.write_text(json.dumps(shape))
        assert read_parameters(file) == {"a": [1], "s": "<secret pw>"}
    file.write_text('{"parameters": {"a": 1}}')
    with pytest.raises(InvalidTemplate):
        read_parameters(file)


def test_an_array_may_hold_deployments_and_bare_resources() -> None:
    bare = deployment()["resources"][0]
    data = [deployment(resource={"name": "[concat('a', 'b')]"}), {**bare, "name": "c"}]
    assert [t.name for t in inspected(data).templates] == ["ab", "c"]
