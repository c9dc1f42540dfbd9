"""Programs that tests build: their directories, what their builds are given, and what they say when they run.

Most are files of ``tests/data/projects``; the one of forty stages is written here.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.projects import index as indexes

if TYPE_CHECKING:
    from tests.support.projects.index import PackageIndex

_FILES = pathlib.Path(__file__).parents[2] / "data" / "projects"
STAGES = 40
LAST = STAGES - 3  # the number of packages: beside them there are the tools, the linker, and the image


@dataclass(frozen=True)
class Project:
    """A program; ``says``: what it prints or answers, for the one who has built it; ``port`` where it serves."""

    name: str
    says: str
    args: dict[str, str]
    port: int = 0


def make_projects(root: pathlib.Path, index: PackageIndex) -> dict[str, Project]:
    """Have the directories of all below ``root``."""
    shutil.copytree(_FILES, root, dirs_exist_ok=True)
    packages = {"": json.loads((root / "node" / "package.json").read_text()), **index.lock}
    lock = {"name": "signals", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}
    (root / "node" / "package-lock.json").write_text(json.dumps(lock, indent=2))
    (root / "monorepo").mkdir()
    write_monorepo(root / "monorepo")
    pip = {"PIP_INDEX_URL": f"{index.url}/simple", "PIP_TRUSTED_HOST": indexes.NAME}
    found = [
        Project("web", "tide at noon, built by {}, as 1000\n", pip, 8000),
        Project("node", "ahoy on a rope, built by {}\n", {"npm_config_registry": f"{index.url}/npm/"}, 8000),
        Project("c", "hail harbour, built by {}, as 7:8\n", {}),
        Project("debian", "keel with keel-data 1.4, built by {}, as keel\n", {"ARCHIVE": f"{index.url}/apt"}),
        Project("monorepo", f"{_total(LAST)} in all, built by {{}}\n", {}),
    ]
    return {one.name: one for one in found}


def needs(number: int) -> list[int]:
    """The packages that one is made with."""
    return sorted({number // 2, number // 3} - {0})


def _total(number: int) -> int:
    """What a package's function returns."""
    return number + sum(_total(one) for one in needs(number))


def write_monorepo(root: pathlib.Path) -> None:
    """Packages that need each other: a stage for each, as builds of Go's modules or of workspaces have them."""
    (root / "build").write_text(
        "#!/bin/sh\n# Compile the package in /src, unless an object of the same sources is in the cache.\nset -eu\n"
        "mkdir -p /packages\n"
        "object=$(cat /src/* /packages/*.h | sha256sum | cut -c1-24).o\n"
        'if [ ! -e "/objects/$object" ]; then\n'
        '    gcc -O1 -Wall -Werror -I/src -I/packages -c -o "/objects/$object.$$" /src/*.c\n'
        '    mv "/objects/$object.$$" "/objects/$object"\n'
        "    echo compiled /src/*.c\n"
        'fi\ncp "/objects/$object" /src/*.h /packages/\n'
    )
    (root / "build").chmod(0o755)
    lines = ["FROM projects AS tools", "ARG BUILDER", "ENV BUILDER=$BUILDER", "COPY build /usr/local/bin/"]
    lines += ["RUN mkdir /packages && touch /packages/empty.h"]
    for number in range(1, LAST + 1):
        _write_package(root / f"p{number}", number)
        lines += [f"FROM tools AS p{number}"]
        lines += [f"COPY --from=p{one} /packages /packages" for one in needs(number)]
        lines += [f"RUN --mount=type=bind,source=p{number},target=/src --mount=type=cache,target=/objects build"]
    (root / "main.c").write_text(
        f'#include <stdio.h>\n#include "p{LAST}.h"\n'
        f'int main(void) {{ printf("%d in all, built by %s\\n", p{LAST}(), BUILDER); return 0; }}\n'
    )
    lines += ["FROM tools AS linked", f"COPY --from=p{LAST} /packages /packages", "COPY main.c ."]
    lines += ['RUN gcc -static -DBUILDER="\\"$BUILDER\\"" -I/packages -o /main main.c /packages/*.o']
    # The packages that nothing needs are part of the image, so that all stages are.
    lines += ["FROM scratch", "COPY --from=linked /main /", 'CMD ["/main"]']
    lines += [f"COPY --from=p{number} /packages/p{number}.h /include/" for number in range(1, LAST + 1)]
    (root / "Dockerfile").write_text("\n".join(lines) + "\n")


def _write_package(place: pathlib.Path, number: int) -> None:
    place.mkdir()
    (place / f"p{number}.h").write_text(f"int p{number}(void);\n")
    includes = "".join(f'#include "p{one}.h"\n' for one in (number, *needs(number)))
    terms = " + ".join([str(number), *(f"p{one}()" for one in needs(number))])
    (place / f"p{number}.c").write_text(f"{includes}int p{number}(void) {{ return {terms}; }}\n")
