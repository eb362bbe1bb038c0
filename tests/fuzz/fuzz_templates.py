"""Coverage-guided fuzzing of the template loader and the expression evaluator.

    .venv/bin/pip install -e '.[fuzz]'
    .venv/bin/python tests/fuzz/fuzz_templates.py -max_total_time=300 -max_len=4096 CORPUS_FOLDER

Whatever the bytes are: no exception, no single input over a second, diagnostics that can be shown, fixes that can be
applied. The seeds are the fixtures of the repository.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["orchestrator"]):
    from orchestrator.template import fixes
    from orchestrator.template.load import inspect_templates
    from orchestrator.views import diagnostics_text, github, sarif

SLOW = 1.0  # seconds of processor time
FIXTURES = Path(__file__).parents[2] / "fixtures" / "templates"


def one_input(data: bytes) -> None:
    """Checks one text: as it is, and as the text of an expression."""
    text = data.decode("utf-8", errors="replace")
    began = time.process_time()
    result = inspect_templates(None, text)
    list(diagnostics_text.render(result.diagnostics, result.sources))
    [github.annotation(item) for item in result.diagnostics]
    sarif.log(result.diagnostics, {}, "0")
    fixes.apply(text, fixes.fixable(result.diagnostics))
    taken = time.process_time() - began
    if taken > SLOW:
        raise AssertionError(f"{taken:.1f} s for {len(data)} bytes")


def main() -> None:
    """Starts libFuzzer with the command line's options; the fixtures join the corpus."""
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        corpus = Path(folders[0])
        corpus.mkdir(parents=True, exist_ok=True)
        for fixture in FIXTURES.rglob("*.*"):
            if fixture.is_file():
                (corpus / f"seed-{fixture.name}").write_bytes(fixture.read_bytes())
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
