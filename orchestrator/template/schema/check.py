"""Checks one imageTemplates resource against the fields of its api-version, and makes its canonical form.

The canonical form holds only fields the tables know, under their right names, with discriminators rightly spelt. What
was renamed, refused or dropped on the way is reported: field of another version (AIB007), unknown field (AIB008),
wrong case (AIB009), unknown or miswritten discriminator (AIB010), missing and mistyped values (the field's own rule).
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.template import fixes
from orchestrator.template.arm.values import Unresolved
from orchestrator.template.diagnostics import Edit, Severity
from orchestrator.template.node import UNKNOWN, Node, kind_of
from orchestrator.template.report import Report
from orchestrator.template.schema.tables import Field, Tables, Variant, VariantType, is_strict, tables

ISO_RETIRED = (
    "the ISO source is retired: no new templates since 2020-03-31, none processed since 2020-04-30; "
    "use PlatformImage (RHEL bring-your-own-subscription images) or ManagedImage"
)
MAX_SUGGESTIONS = 200  # looking for the name that was meant takes time; a file of nonsense gets no further ones
_REVIEW = (
    "Please review  http://aka.ms/azvmimagebuildertmplref  for details on fields requirements in the Image Builder "
    "Template."
)


def check_resource(resource: Node, version: str, report: Report) -> Node:
    """The canonical form of `resource`, judged by api-version `version`."""
    return _Checker(version, report).object(resource, tables().objects["resource"], "resource")


class _Checker:
    def __init__(self, version: str, report: Report) -> None:
        self.version = version
        self.report = report
        self.strict = is_strict(version)
        self.tables: Tables = tables()
        self.suggestions = MAX_SUGGESTIONS

    @property
    def for_names(self) -> Severity:
        """How much a wrong name matters: old versions dropped it silently, strict ones refuse it."""
        return Severity.ERROR if self.strict else Severity.WARNING

    def object(self, node: Node, fields: Mapping[str, Field], what: str) -> Node:
        """An object with known fields."""
        if not node.is_known:
            return node
        if not node.is_object:
            self.report.error("AIB071", node, f"{what} must be an object, not {kind_of(node)}", hint="write { ... }")
            return node.derive(UNKNOWN)
        members: dict[str, Node] = {}
        keys: dict[str, int] = {}
        for name, child in node.members():
            field = self._field(node, name, fields, what)
            if field is None or field.ro or child.value is None:
                continue
            target = field.alias or field.name
            if target in members:
                self.report.warning("AIB009", node, f"{name} stands beside {target}; one of them is lost", key=name)
                continue
            members[target] = self.value(child, field, what)
            if name in node.keys:
                keys[target] = node.keys[name]
        for field in fields.values():
            if field.is_required(self.version) and field.name not in members:
                self._missing(node, field, what)
        return node.derive(members, keys)

    def value(self, node: Node, field: Field, what: str) -> Node:
        """A field's value: type, range, allowed words."""
        if not node.is_known:
            return node
        if isinstance(node.value, Unresolved) and field.kind != "string":
            return node.derive(UNKNOWN)
        kind, _, of = field.kind.partition(":")
        if kind == "any":
            return node
        if kind == "object":
            return self.object(node, self.tables.objects[of], field.name)
        if kind == "variant":
            return self.variant(node, self.tables.variants[of], field)
        if kind in ("array", "strings", "ints"):
            return self._array(node, field, kind, of)
        if kind == "map":
            return self._map(node, field)
        return self._scalar(node, field, kind, what)

    def variant(self, node: Node, variant: Variant, field: Field | None = None) -> Node:
        """An object whose fields depend on its discriminator."""
        if not node.is_known:
            return node
        name = variant.discriminator
        if not node.is_object:
            rule = field.rule if field else "AIB071"
            self.report.error(rule, node, f"a {variant.what} must be an object, not {kind_of(node)}")
            return node.derive(UNKNOWN)
        key = next((k for k, child in node.members() if k.lower() == name and child.value is not None), "")
        if not key:
            known = ", ".join(t.spelling(self.version) for t in variant.types.values() if t.is_in(self.version))
            self.report.error(
                field.rule if field and variant.what == "source" else "AIB010", node,
                f"the {variant.what} has no {name}", hint=f"one of {known}", source="SWG",
            )  # fmt: skip
            return node.derive(UNKNOWN)
        chosen = self._choose(node, node.value[key], variant)
        if chosen is None:
            return node.derive(UNKNOWN)
        checked = self.object(node, chosen.fields, f"{variant.what} {chosen.name}")
        if name in checked.value:
            checked.value[name] = checked.value[name].derive(chosen.name)
        return checked

    def _choose(self, node: Node, given: Node, variant: Variant) -> VariantType | None:
        if not given.is_known:
            return None
        known = {t.spelling(self.version): t for t in variant.types.values()}
        usable = [spelling for spelling, t in known.items() if t.is_in(self.version)]
        if not isinstance(given.value, str):
            self.report.error("AIB010", given, f"{variant.discriminator} must be a string, not {kind_of(given)}")
            return None
        exact = known.get(given.value)
        if exact is not None and exact.rule == "AIB021":
            self.report.error("AIB021", given, ISO_RETIRED, source="SEED S14")
        elif exact is not None and not exact.is_in(self.version):
            self.report.error(
                "AIB007", given, f"{variant.what} {exact.name} does not exist in {self.version}",
                hint=_since_until(exact.since, exact.until), source="SWG",
            )  # fmt: skip
        if exact is not None:
            return exact
        near = _nearest(given.value, list(known))
        found = known.get(near) if near and near.lower() == given.value.lower() else None
        self.report.error(
            "AIB010", given, f"{given.value!r} is no {variant.what}{self._service_says(node, variant)}",
            hint=f"did you mean {near}?" if near else f"one of {', '.join(usable)}",
            source="azure-docs#71715" if variant.what == "distributor" else "SWG",
            fix=fixes.replace_value(given, fixes.quote(near)) if found is not None else (),
        )  # fmt: skip
        return found

    def _service_says(self, node: Node, variant: Variant) -> str:
        """E2, the text the service answers with when it does not know a distributor."""
        if variant.what != "distributor":
            return ""
        return (
            f"; the service: Validation failed: 'ImageTemplate.properties': Field 'distribute[{node.key}].type' has a "
            f"bad value: ''. {_REVIEW}"
        )

    def _array(self, node: Node, field: Field, kind: str, of: str) -> Node:
        if not node.is_array:
            hint, fix = _as_array(node, kind)
            message = f"{field.name} must be an array, not {kind_of(node)}"
            self.report.error(field.rule, node, message, hint=hint, fix=fix)
            return node.derive(UNKNOWN)
        if kind == "array":
            if of in self.tables.variants:
                variant = self.tables.variants[of]
                return node.derive([self.variant(item, variant) for item in node.items()])
            fields = self.tables.objects[of]
            return node.derive([self.object(item, fields, of) for item in node.items()])
        wanted = Field(f"each element of {field.name}", "string" if kind == "strings" else "int", rule=field.rule)
        return node.derive([self._scalar(item, wanted, wanted.kind, "") for item in node.items()])

    def _map(self, node: Node, field: Field) -> Node:
        if not node.is_object:
            self.report.error(field.rule, node, f"{field.name} must be an object of strings, not {kind_of(node)}")
            return node.derive(UNKNOWN)
        for key, child in node.members():
            if child.is_known and not isinstance(child.value, str):
                self.report.error(
                    field.rule, child, f"the value of {key!r} in {field.name} must be a string, not {kind_of(child)}",
                    hint="put it in quotes",
                )  # fmt: skip
        return node

    def _scalar(self, node: Node, field: Field, kind: str, what: str) -> Node:
        value = node.value
        if not node.is_known:
            return node
        if isinstance(value, Unresolved):  # only Azure knows it
            return node if kind == "string" else node.derive(UNKNOWN)
        right = {
            "string": isinstance(value, str),
            "bool": isinstance(value, bool),
            "int": isinstance(value, int) and not isinstance(value, bool),
        }[kind]
        words = {"string": "a string", "bool": "true or false", "int": "an integer"}
        if not right:
            self.report.error(
                field.rule,
                node,
                f"{field.name} must be {words[kind]}, not {kind_of(node)}",
                hint=_unquoted(value, kind),
                fix=_unquote_fix(node, kind),
            )
            return node.derive(UNKNOWN)
        if field.enum and value not in field.enum:
            near = _nearest(value, list(field.enum))
            hint = f"did you mean {near}?" if near else f"one of {', '.join(field.enum)}"
            same_word = near.lower() == value.lower()
            fix = fixes.replace_value(node, fixes.quote(near)) if same_word else ()
            message = f"{field.name} cannot be {value!r}"
            self.report.error(field.rule, node, message, hint=hint, source="SWG", fix=fix)
        low, high = field.min, field.max
        if kind == "int" and ((low is not None and value < low) or (high is not None and value > high)):
            span = f"between {low} and {high}" if high is not None else f"at least {low}"
            self.report.error(field.rule, node, f"{field.name} is {value}, it must be {span}", source="SWG")
        return node

    def _field(self, node: Node, name: str, fields: Mapping[str, Field], what: str) -> Field | None:
        """The field that `name` means here; reports every way in which it is not quite that field."""
        field = fields.get(name)
        if field is None:
            field = next((f for f in fields.values() if f.name.lower() == name.lower()), None)
            if field is None:
                self._unknown(node, name, fields, what)
                return None
            effect = "the service refuses it" if self.strict else "since 2024-02-01 the service refuses it"
            self.report.add(
                self.for_names, "AIB009", node, f"{name} is written {field.name}; {effect}",
                hint=f"did you mean {field.name}?", source="NOTES May 2024", key=name,
                fix=fixes.rename_key(node, name, field.name),
            )  # fmt: skip
        if field.alias and not field.is_in(self.version):
            self._unknown(node, name, fields, what, field.alias)
            return None
        if field.alias:
            self.report.warning(
                "AIB008", node, f"{name} of a {what} is really called {field.alias}; taken as such",
                hint=f"write {field.alias}", source="SEED S32", key=name,
                fix=fixes.rename_key(node, name, field.alias),
            )  # fmt: skip
        elif not field.is_in(self.version) and not field.ro:
            hint = _since_until(field.since, field.until)
            hint = f"{hint}; later it is called {field.renamed}" if field.renamed else hint
            self.report.error(
                field.rule if field.rule == "AIB066" else "AIB007", node,
                f"{name} of {what} does not exist in {self.version}", hint=hint, source="SWG", key=name,
            )  # fmt: skip
        return field

    def _unknown(self, node: Node, name: str, fields: Mapping[str, Field], what: str, meant: str = "") -> None:
        usable = [f.name for f in fields.values() if f.is_in(self.version) and not f.ro]
        self.suggestions -= 1
        near = meant or (_nearest(name, usable) if self.suggestions >= 0 else "")
        message = f"{what} has no field {name!r}"
        if self.strict:
            message += f'; the service: Unmarshalling entity encountered error: ... unknown field "{name}"'
        else:
            message += "; this version drops it silently, since 2024-02-01 it is refused"
        self.report.add(
            self.for_names, "AIB008", node, message, key=name, source="NOTES May 2024",
            hint=f"did you mean {near}?" if near else "remove it, or check the spelling",
            fix=fixes.rename_key(node, name, near) if meant or _is_surely(name, near) else (),
        )  # fmt: skip

    def _missing(self, node: Node, field: Field, what: str) -> None:
        message = f"{what} has no {field.name}"
        source = "SWG"
        if field.required == "AIB011":
            message = (
                "identity is required since 2020-02-14; the service: Validation failed: 'ImageTemplate': Missing "
                f"field 'identity'. {_REVIEW}"
            )
            source = "danielsollondon/azvmimagebuilder#39"
        elif field.required == "AIB059":
            message += (
                f"; the service: Validation failed: 'ImageTemplate.properties.distribute[{node.key}]': Missing field "
                f"{field.name}. {_REVIEW}"
            )
        self.report.error(field.required, node, message, hint=f"add {field.name}", source=source)


def _as_array(node: Node, kind: str) -> tuple[str, tuple[Edit, ...]]:
    """The hint and the fix for a lone value where an array belongs."""
    value = node.value
    if kind == "ints" and isinstance(value, str | int) and not isinstance(value, bool) and _is_int(str(value)):
        return f"write [{int(value)}]", fixes.replace_value(node, f"[{int(value)}]")
    if kind == "strings" and isinstance(value, str):
        shown = fixes.quote(value) if len(value) < 40 else '"..."'
        return f"write [{shown}]", fixes.replace_value(node, f"[{fixes.quote(value)}]")
    return "write [ ... ]", ()


def _unquoted(value: object, kind: str) -> str:
    """The fix for a quoted number or boolean, and for a bare one where a string belongs."""
    if kind == "int" and isinstance(value, str) and _is_int(value):
        return f"write {value.strip()} without quotes"
    if kind == "bool" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return f"write {value.strip().lower()} without quotes"
    if kind == "string" and isinstance(value, int | float):
        return f'write "{str(value).lower() if isinstance(value, bool) else value}" in quotes'
    return ""


def _unquote_fix(node: Node, kind: str) -> tuple[Edit, ...]:
    value = node.value
    if kind == "int" and isinstance(value, str) and _is_int(value):
        return fixes.replace_value(node, str(int(value)))
    if kind == "bool" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return fixes.replace_value(node, value.strip().lower())
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return fixes.replace_value(node, f'"{value}"')
    return ()


def _is_surely(name: str, near: str) -> bool:
    """Whether a misspelt name can be nothing else: the same letters, in another order or with underscores."""
    plain = name.lower().replace("_", "").replace("-", "")
    return bool(near) and sorted(plain) == sorted(near.lower())


def _is_int(text: str) -> bool:
    stripped = text.strip().removeprefix("-")
    return stripped.isascii() and stripped.isdigit() and len(stripped) < 20


def _since_until(since: str, until: str) -> str:
    if since and until:
        return f"only {since} has it" if since == until else f"from {since} to {until}"
    return f"since {since}; raise apiVersion or remove it" if since else f"gone after {until}"


def _nearest(name: str, known: list[str]) -> str:
    """The known name that `name` was probably meant to be, or nothing."""
    plain = {k.lower(): k for k in known}
    squeezed = name.lower().replace("_", "").replace("-", "")
    if squeezed in plain:
        return plain[squeezed]
    import difflib  # only misspelt templates pay for it

    close = difflib.get_close_matches(squeezed[:80], list(plain), n=1, cutoff=0.75)
    return plain[close[0]] if close else ""
