"""A shallow view of shell scripts: commands with their words, and where each stands in the template.

Good enough for advice, not a parser: what it cannot split it leaves alone, and no rule that builds on it is an error
unless the command is plain. Here-documents, comments and quoted text are not taken for commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.template.node import Node
from orchestrator.template.subject import Subject

Memo = dict[Any, Any]
"""What rules share about one template (`Subject.memo`)."""
MAX_SCRIPT = 200_000  # characters that advice looks at
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_][\w.-]*)\1")
_SPLIT = re.compile(r"&&|\|\||[;|&](?!\d)|\bthen\b|\bdo\b|\belse\b|[(){}](?=\s|$)")
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"")
_WORD = re.compile(r"(?:[^\s'\"\\]++|'[^']*+'|\"(?:[^\"\\]++|\\.)*+\"|\\.|['\"\\])++")
_PIECE = re.compile(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"|\\(.)")
_COMMENT = re.compile(r"(?:^|\s)#")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=\S*")
_WRAPPERS = frozenset({"sudo", "env", "nohup", "time", "exec", "command", "if", "while", "until", "!", "nice"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a script: the inline element it came from and its text."""

    node: Node
    text: str
    step: Node
    in_heredoc: bool = False


class Command(NamedTuple):
    """A simple command: `words` without sudo and assignments in front; `assigned` holds those assignments.

    `name` is the program's name without its folder.
    """

    name: str
    words: tuple[str, ...]
    assigned: tuple[str, ...]
    sudo: bool
    line: Line

    @property
    def text(self) -> str:
        return " ".join(self.words)


def inline_lines(step: Node, memo: Memo) -> list[Line]:
    """The lines of a step's inline script (empty for other steps); `memo` keeps them for the next rule."""
    found: list[Line] | None = memo.get(("lines", step))
    if found is None:
        found = memo["lines", step] = _lines(step)
    return found


def has_any(step: Node, memo: Memo, marks: tuple[str, ...]) -> bool:
    """Whether one of the lower-case `marks` stands in a step's script: spares most scripts the look at each line."""
    text: str | None = memo.get(("text", step))
    if text is None:
        text = memo["text", step] = "\n".join(line.text for line in inline_lines(step, memo)).lower()
    return any(mark in text for mark in marks)


def commands(step: Node, memo: Memo) -> list[Command]:
    """The simple commands of a Shell step's inline script; `memo` keeps them for the next rule."""
    found: list[Command] | None = memo.get(("commands", step))
    if found is None:
        lines = inline_lines(step, memo)
        found = [command for line in lines if not line.in_heredoc for command in _commands_of(line)]
        memo["commands", step] = found
    return found


def _lines(step: Node) -> list[Line]:
    inline = step.get("inline")
    lines: list[Line] = []
    size, ending = 0, ""
    for element in inline.items() if inline is not None else ():
        if not isinstance(element.value, str):
            continue
        size += len(element.value)
        if size > MAX_SCRIPT:
            break
        for text in element.value.split("\n"):
            if ending:
                lines.append(Line(element, text, step, in_heredoc=True))
                ending = "" if text.strip() == ending else ending
                continue
            lines.append(Line(element, text, step))
            started = _HEREDOC.search(_QUOTED.sub("", text) if "<<'" not in text and '<<"' not in text else text)
            ending = started[2] if started else ""
    return lines


def shell_steps(subject: Subject) -> Iterator[Node]:
    """Shell customizers and validators."""
    return (step for step in subject.steps if step.string("type") == "Shell")


def powershell_steps(subject: Subject) -> Iterator[Node]:
    """PowerShell customizers and validators."""
    return (step for step in subject.steps if step.string("type") == "PowerShell")


def _commands_of(line: Line) -> Iterator[Command]:
    text = line.text.strip()
    if not text or text.startswith("#"):
        return
    masked = _QUOTED.sub(lambda found: "\x00" * len(found[0]), text) if "'" in text or '"' in text else text
    comment = _COMMENT.search(masked) if "#" in masked else None
    end = comment.start() if comment else len(text)
    start = 0
    for mark in [*_SPLIT.finditer(masked[:end]), None]:
        stop = mark.start() if mark else end
        yield from _command(text[start:stop], line)
        start = mark.end() if mark else end


def _unquoted(word: str) -> str:
    """A word as the shell would pass it, without expansions."""
    if "'" not in word and '"' not in word and "\\" not in word:
        return word
    return _PIECE.sub(lambda piece: piece[1] or piece[2] or piece[3] or "", word)


def _command(text: str, line: Line) -> Iterator[Command]:
    words = [_unquoted(word) for word in _WORD.findall(text)]
    assigned: list[str] = []
    sudo = False
    while words:
        if _ASSIGNMENT.fullmatch(words[0]):
            assigned.append(words.pop(0))
        elif words[0] in _WRAPPERS:
            sudo = sudo or words[0] == "sudo"
            words.pop(0)
            while words and words[0].startswith("-"):  # options of the wrapper, such as sudo -E
                words.pop(0)
        else:
            break
    if words:
        yield Command(words[0].rpartition("/")[2], tuple(words), tuple(assigned), sudo, line)
