"""Coverage-guided fuzzing of the expression evaluator: every input is one expression, used all over a deployment.

    .venv/bin/pip install -e '.[fuzz]'
    .venv/bin/python tests/fuzz/fuzz_expressions.py -max_total_time=300 -max_len=2048 CORPUS_FOLDER

Whatever the expression is: diagnostics, no exception, no single input over a second. The corpus starts with
expressions that use many functions; libFuzzer also gets the functions' names as its dictionary.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["orchestrator"]):
    from orchestrator.template.arm.evaluate import PURE, SCOPED
    from orchestrator.template.load import inspect_templates
    from orchestrator.views import diagnostics_text, github

SLOW = 1.0  # seconds of processor time
SEEDS = (
    "[concat('a-', parameters('p'), '-', uniqueString(resourceGroup().id))]",
    "[format('{0,5:D3} {{x}}', add(1, mul(2, 3)))]",
    "[map(range(0, 3), lambda('i', substring('abcdef', lambdaVariables('i'), 2)))]",
    "[if(equals(variables('v').b[0], json('{\"b\":[1,2]}').b[0]), createArray(1, 'x'), split('a,b', ','))]",
    "[reduce(createArray(1,2,3), 0, lambda('a','b', add(lambdaVariables('a'), lambdaVariables('b'))))]",
    "[filter(sort(createArray(3,1), lambda('a','b', less(lambdaVariables('a'), 2))), lambda('x', true()))]",
    "[reference(resourceId('Microsoft.X/y', 'z'), '2020-01-01').outputs.o.value]",
    "[dateTimeAdd('2020-01-01T00:00:00Z', 'P1Y2M3DT4H5M6S', 'yyyy-MM-dd')]",
    "[base64ToString(base64(toUpper(trim(replace('  x ', 'x', 'yy')))))]",
    "[union(createObject('a', 1), variables('v')).?a[?0]]",
    "[cidrSubnet('10.0.0.0/8', 24, 3)]",
    "[toObject(groupBy(items(variables('v')), lambda('i', lambdaVariables('i').key)), lambda('k', 'x'))]",
    "[my.twice(parameters('p'))]",
    "[tryGet(deployment(), 'name')]",
    "[[not an expression]",
)  # fmt: skip
WORDS = (
    "parameters", "variables", "lambda", "lambdaVariables", "copyIndex", "map", "filter", "reduce", "sort", "toObject",
    "groupBy", "mapValues", "if", "and", "or", "coalesce", "utcNow", "newGuid", "fail", "tryGet", "reference",
    "my.twice", "'p'", "'v'", "'q'", "'loop'", "[?", ".?", "{0}", "{0,9999:D99}", "9223372036854775807",
)  # fmt: skip


def document(text: str) -> str:
    """A deployment in which `text` is a variable, a loop's input, a function's output, a name, a key and a script."""
    function = {"parameters": [{"name": "n", "type": "string"}], "output": {"type": "string", "value": text}}
    template = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2024-02-01",
        "name": text,
        "tags": {"w": "[variables('w')]", "v": "[variables('v')]", text: "[my.twice('x')]"},
        "copy": {"name": "loop", "count": 2},
        "properties": {"customize": [{"type": "Shell", "name": "x", "inline": [text, "[copyIndex('loop')]"]}]},
    }
    return json.dumps({
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "parameters": {"p": {"type": "string", "defaultValue": "given"}, "q": {"type": "object", "defaultValue": {}}},
        "variables": {"v": {"a": text, "b": [1, "two", None]}, "copy": [{"name": "w", "count": 2, "input": text}]},
        "functions": [{"namespace": "my", "members": {"twice": function}}],
        "resources": [template],
    })  # fmt: skip


def one_input(data: bytes) -> None:
    """Checks one expression and shows what was found."""
    text = document(data.decode("utf-8", errors="replace"))
    began = time.process_time()
    result = inspect_templates(None, text)
    list(diagnostics_text.render(result.diagnostics, result.sources))
    for item in result.diagnostics:
        if "\n" in github.annotation(item):
            raise AssertionError(f"an annotation of two lines: {item!r}")
    taken = time.process_time() - began
    if taken > SLOW:
        raise AssertionError(f"{taken:.1f} s for {len(data)} bytes")


def main() -> None:
    """Starts libFuzzer with the command line's options; seeds and dictionary go beside the corpus."""
    argv = list(sys.argv)
    folders = [argument for argument in argv[1:] if not argument.startswith("-")]
    if folders:
        corpus = Path(folders[0])
        corpus.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(SEEDS):
            (corpus / f"seed-{number}").write_text(text)
        words = corpus.with_name(f"{corpus.name}.dict")
        words.write_text("".join(f"{json.dumps(word)}\n" for word in (*WORDS, *PURE, *SCOPED)))
        argv.append(f"-dict={words}")
    atheris.Setup(argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
