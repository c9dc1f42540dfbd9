"""The documents agree with the tree: paths, links, names in the code, the map of the packages, the length of lines."""

from __future__ import annotations

import glob
import os
import re
import tomllib

import pytest

from tests.support.source.project import ROOT

PACKAGES = os.path.join(ROOT, "src", "ketch")
TOP = ("docs", "tests", "scripts", "bench", "contrib", "src")
DOCUMENTS = sorted(os.path.relpath(path, ROOT) for path in glob.glob(f"{ROOT}/docs/*.md") + glob.glob(f"{ROOT}/*.md"))
CITING = ["docs/architecture.md", "docs/where.md", "docs/glossary.md", "docs/design.md", "docs/processes.md"]
OF_THE_PRESENT = [document for document in DOCUMENTS if document != "CHANGELOG.md"]
_BLOCK = re.DOTALL | re.MULTILINE
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_PATH = re.compile(r"\.?\w[\w.-]*(/[\w.-]+)*/?")
_ROOM = re.compile(r" +([\w/]+(?:/|\.py)) ")


def text_of(document: str) -> str:
    with open(os.path.join(ROOT, document), encoding="utf-8") as f:
        return f.read()


def is_path(span: str) -> bool:
    """Whether a piece of code in a sentence means a file or a folder of the project."""
    if not _PATH.fullmatch(span):
        return False
    head, slash, _ = span.partition("/")
    return span.endswith((".py", ".toml")) or bool(
        slash and (head in TOP or os.path.isdir(os.path.join(PACKAGES, head)))
    )


def exists(path: str) -> bool:
    """Whether it is there: paths begin at the project or at the package; a folder is written with a slash."""
    places = (os.path.join(ROOT, path), os.path.join(PACKAGES, path))
    return any(os.path.isdir(p) if path.endswith("/") else os.path.isfile(p) for p in places)


@pytest.mark.parametrize("document", OF_THE_PRESENT)
def test_paths_exist(document):
    paths = {span for span in _SPAN.findall(text_of(document)) if is_path(span)}
    assert paths or document not in CITING, "no path was found: the document or this test has changed its form"
    assert sorted(path for path in paths if not exists(path)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    links = {link for link in _LINK.findall(text_of(document)) if "://" not in link}
    folder = os.path.dirname(os.path.join(ROOT, document))
    assert sorted(link for link in links if not os.path.exists(os.path.join(folder, link))) == []


def anchors(document: str) -> set[str]:
    """What a link may name in a document: its headings, as forges write them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text_of(document), flags=_BLOCK), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_headings_lead_there(document):
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text_of(document))
    folder = os.path.dirname(document)
    targets = [(os.path.normpath(os.path.join(folder, page)) if page else document, name) for page, name in links]
    assert [f"{page}#{name}" for page, name in targets if name not in anchors(page)] == []


def test_links_to_headings_are_found():
    found = sum(len(re.findall(r"\]\([^)\s:]*#[^)\s]+\)", text_of(document))) for document in DOCUMENTS)
    assert found > 15
    assert "under-another-kernel" in anchors("CONTRIBUTING.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_are_short(document):
    """All but the rows of tables, which cannot be wrapped."""
    lines = enumerate(text_of(document).splitlines(), 1)
    assert [f"{document}:{number}" for number, line in lines if len(line) > 120 and line[0] != "|"] == []


def test_the_map_shows_every_package():
    """In both directions: what docs/architecture.md lists is there, and what is there is listed."""
    block = text_of("docs/architecture.md").partition("```\nsrc/ketch/\n")[2].partition("```")[0]
    listed = {match[1] for line in block.splitlines() if (match := _ROOM.match(line))}
    folders = {
        os.path.relpath(folder, PACKAGES) + "/" for folder, _, files in os.walk(PACKAGES) if "__init__.py" in files
    }
    modules = {name for name in os.listdir(PACKAGES) if name.endswith(".py")}
    assert listed == (folders | modules) - {"./", "__init__.py"}


def test_the_layers_are_those_of_the_linter():
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as f:
        contracts = {contract["name"]: contract for contract in tomllib.load(f)["tool"]["importlinter"]["contracts"]}
    outer = contracts["arrows point down"]["layers"]
    inner = contracts["rooms of the engine"]["layers"]
    at = outer.index("engine")
    layers = [*outer[:at], f"engine {inner[0]}", *inner[1:], *outer[at + 1 :]]
    picture = text_of("docs/architecture.md").partition("Arrows point down only:\n\n```\n")[2].partition("```")[0]
    assert " ".join(picture.split()) == " ".join(layers)


def test_modules_in_the_picture_of_a_run_exist():
    picture = text_of("docs/processes.md").partition("## From `docker run`")[2].partition("\n## ")[0]
    modules = set(re.findall(r"\[(\w+(?:/\w+)+)\]", picture))
    assert len(modules) > 10
    assert sorted(name for name in modules if not exists(name + ".py")) == []


def test_endpoints_of_our_own_are_described():
    paths = set()
    for file in glob.glob(f"{PACKAGES}/api/routes/**/*.py", recursive=True):
        with open(file, encoding="utf-8") as f:
            paths |= {re.sub(r"\{\w+(:path)?\}", "", path) for path in re.findall(r'"/ketch(/[^"]*)"', f.read())}
    page = text_of("docs/api.md").replace("\n", " ")
    words = {word for path in paths for word in path.split("/") if word}
    assert len(paths) > 15
    assert sorted(word for word in words if not re.search(rf"\b{word}\b", page)) == []


def test_the_glossary_has_each_term_once_and_in_order():
    terms = re.findall(r"^\* \*\*(.+?)\*\*: ", text_of("docs/glossary.md"), re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(terms, key=str.lower)
    assert len({term.lower() for term in terms}) == len(terms)


def test_names_in_the_glossary_are_in_their_files():
    """`path` (`Name`): the file defines or has the name."""
    named = re.findall(r"`([\w/]+\.py)`\s+\(`(\w+)`\)", text_of("docs/glossary.md"))
    assert len(named) > 20
    missing = []
    for path, name in named:
        with open(os.path.join(PACKAGES, path), encoding="utf-8") as f:
            if not re.search(rf"\b{name}\b", f.read()):
                missing.append(f"{path}: {name}")
    assert missing == []
