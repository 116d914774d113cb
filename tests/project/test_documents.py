"""The documents are complete and true: every setting, route, event, metric and command is in the reference, and no link is dead.

A row of the reference is made from the code here; where one is missing, the failing test shows it, to be pasted.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import pytest

from zene.cli.app import app
from zene.domain.events import FLEETING
from zene.domain.events import TYPES as EVENTS
from zene.gateway.meters import Meters as Gateway
from zene.gateway.table import ROUTES
from zene.settings import OTHER_VARIABLES, TYPES, Model, Secret, Settings, variable
from zene.store.census import CensusMeters
from zene.telemetry.metrics import Registry
from zene.worker.meters import Meters as Worker

if TYPE_CHECKING:
    from zene.store.base import Store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def missing(rows: Iterator[str], page: str) -> str:
    """The rows that the page lacks, one a line."""
    lines = set((REFERENCE / page).read_text().splitlines())
    return "\n".join(row for row in rows if row not in lines)


def shown(default: object) -> str:
    match default:
        case None | () | "" | Secret():
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case _:
            return f"`{default}`"


def described(owner: type) -> dict[str, str]:
    """The sentence of each setting."""
    hints = get_type_hints(owner, include_extras=True)
    return {name: kind.__metadata__[-1].description for name, kind in hints.items()}


def setting_rows() -> Iterator[str]:
    for name in TYPES:
        if variable(name):
            default = shown(getattr(Settings(), name))
            yield f"| `{name}` | `{variable(name)}` | {default} | {described(Settings)[name]} |"


def model_rows() -> Iterator[str]:
    return (f"| `{name}` | {sentence} |" for name, sentence in described(Model).items())


def test_every_setting_is_documented() -> None:
    assert missing(setting_rows(), "settings.md") == ""


def test_every_field_of_a_model_is_documented() -> None:
    assert missing(model_rows(), "settings.md") == ""


@pytest.mark.parametrize("name", OTHER_VARIABLES)
def test_every_other_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in (REFERENCE / "settings.md").read_text()


def route_rows() -> Iterator[str]:
    for each in ROUTES:
        told = " ".join((inspect.getdoc(each.handler) or "").split())
        yield f"| `{each.method} {each.path}` | {each.access} | {told} |"


def test_every_route_is_documented() -> None:
    assert missing(route_rows(), "api.md") == ""


def event_rows() -> Iterator[str]:
    for name, body in EVENTS.items():
        told = " ".join((inspect.getdoc(body) or "").split())
        mark = " ~" if name in FLEETING else ""
        fields = ", ".join(f"`{field}`" for field in body.__struct_fields__)
        yield f"| `{name}`{mark} | {fields} | {told} |"


def test_every_event_is_documented() -> None:
    assert missing(event_rows(), "events.md") == ""


def metric_rows() -> Iterator[str]:
    """What a gateway and a worker register, as they do when they are built."""
    registry = Registry()
    Gateway(registry)
    Worker(registry)
    CensusMeters(registry, cast("Store", None), clock=lambda: 0)
    for each in registry.metrics:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"| `{each.name}` | {each.kind} | {labels} | {each.told} |"


def test_every_metric_is_documented() -> None:
    assert missing(metric_rows(), "metrics.md") == ""


def command_rows(command: Any, words: str) -> Iterator[str]:
    """Each command with its arguments and options, and the first sentence of its help."""
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if hasattr(each, "commands"):
            yield from command_rows(each, f"{words} {name}")
            continue
        told = (each.help or "").strip().split(". ")[0].replace("\n", " ").rstrip(".")
        given = [typed(parameter) for parameter in each.params if parameter.name != "help"]
        yield f"| `{' '.join([words, name, *given])}` | {told}. |"


def typed(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name or "").upper()
        return name if parameter.required else f"[{name}]"
    option = max(parameter.opts, key=len)
    return f"[{option}]" if parameter.is_flag else f"[{option} …]"


def test_every_command_is_documented() -> None:
    assert missing(command_rows(app, "zene"), "cli.md") == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    targets = [link.partition("#") for link in LINK.findall(text) if "://" not in link]
    dead = [path + mark + part for path, mark, part in targets if not is_there(page, path, part)]
    assert dead == []


def is_there(page: Path, path: str, heading: str) -> bool:
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not heading or heading in anchors(target))


def anchors(page: Path) -> set[str]:
    """Names that a heading can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("folder", ["how-to", "decisions", "reference"])
def test_every_page_is_listed(folder: str) -> None:
    index = (DOCS / "README.md").read_text()
    pages = [page.relative_to(DOCS).as_posix() for page in (DOCS / folder).glob("*.md")]
    assert [page for page in pages if f"({page})" not in index] == []
