"""What the commands of the documents find when they are run, and which of them are not run here, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

_FORM = "it is a command's form: words in it stand for others"
_INSTALLS = "it installs packages: scripts/bare and scripts/installed do that on bare machines"
_MINUTES = "it takes minutes, and a package archive"
_OTHER_MACHINE = "it needs another machine"
_TESTS = "it runs tests"


@dataclass(frozen=True)
class Prepared:
    """Of one page. ``before``: commands of the shell that its commands follow; ``elsewhere``: beginnings of commands
    that are not run, each with the reason; ``skipped``: how many these are, if there is not one of each; ``lasting``:
    beginnings of commands that do not end by themselves, each with a command that succeeds as soon as they do what they
    are for; what they print is in the file ``lasting``."""

    before: str = ""
    elsewhere: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    lasting: dict[str, str] = field(default_factory=dict)


_WEB = "ketch run -d --name web -p 80 -v data:/data busybox sh -c 'mkdir -p /var/log/app /srv; sleep 600'"

PAGES = {
    "README.md": Prepared(
        before="echo 'services: {one: {image: busybox, command: sleep 600}}' > compose.yaml",
        elsewhere={
            "make ": "scripts/bare and scripts/installed do, on bare machines",
            **dict.fromkeys(("apt ", "adduser "), _INSTALLS),
        },
        skipped=5,
    ),
    "docs/api.md": Prepared(elsewhere={"KETCH_": _TESTS}, skipped=2),
    "docs/benchmarks.md": Prepared(elsewhere={"make bench": _MINUTES, " ": "a comment goes on"}, skipped=5),
    "docs/build.md": Prepared(
        before="printf 'FROM busybox\\nRUN true\\n' > Dockerfile",
        elsewhere={
            "export": "it is for them",
            "docker buildx d": "they ask a person: tests/integration/buildkit has their protocol",
        },
        skipped=4,
    ),
    "docs/cgroups.md": Prepared(elsewhere={"ketch run -d --security-opt writable-cgroups=true": _FORM}),
    "docs/cli.md": Prepared(
        before=f"{_WEB}; mkdir site",
        elsewhere={
            "ketch completion": "it writes to /usr/share",
            "ketch manifest": _OTHER_MACHINE,
            "ketch context create ci": "it needs certificates",
            **dict.fromkeys(("ketch [", "ketch pull [", "ketch push [", "ketch login [", "ketch build ["), _FORM),
        },
        skipped=10,
    ),
    "docs/crash-safety.md": Prepared(elsewhere={"ketchd --repair": _FORM}),
    "docs/debugging.md": Prepared(
        before=f"{_WEB}; DATA=/var/lib/ketch EXEC=/var/run/ketch",
        elsewhere={
            ".venv/bin/python -m pytest": _TESTS,
            "(": "a debugger asks, and answers",
            "cat $EXEC/run/$ID/monitor.err": "normally there is no such file",
            "grep -E 'clone": "what is in it depends on when strace began",
            "nft ": "nftables' own program need not be here",
            "py-spy": "it is not among what setup installs",
        },
        skipped=11,
        lasting={"strace -f -p": "grep attached lasting"},
    ),
    "docs/files.md": Prepared(before=_WEB),
    "docs/install.md": Prepared(elsewhere=dict.fromkeys(("apt ", "adduser ", "pipx "), _INSTALLS), skipped=4),
    "docs/logging.md": Prepared(elsewhere={"docker run --log-driver": _FORM}),
    "docs/migrating.md": Prepared(
        elsewhere={"ketch import-docker": "tests/integration/cli has what is imported"}, skipped=4
    ),
    "docs/nested.md": Prepared(elsewhere={"ketch run --userns auto": _FORM}),
    "docs/networking.md": Prepared(
        before="ketch network create --ipv6 six",
        elsewhere=dict.fromkeys(("nft ", "iptables ", "ufw "), "it is about a firewall of the machine's"),
        skipped=5,
    ),
    "docs/registries.md": Prepared(
        before="ketch registry serve --root registry & until curl -sf 127.0.0.1:5000/v2/; do sleep 0.05; done",
        elsewhere={
            **dict.fromkeys(("docker pull alpine", "ketch search"), _OTHER_MACHINE),
            "ketch pull ghcr.io/org/app@": _FORM,
        },
    ),
    "docs/registry.md": Prepared(
        before="ketch tag busybox app",
        lasting={"ketch registry serve": "curl -sf 127.0.0.1:5000/v2/"},
    ),
    "docs/releasing.md": Prepared(
        elsewhere={
            "for suite": _MINUTES,
            "git clean": "there is a checkout only",
            "python -m build": _MINUTES,
            "unzip": "it follows python -m build",
            "scripts/bare": _MINUTES,
            "DEBFULLNAME": _MINUTES,
        }
    ),
    "docs/rootless.md": Prepared(
        elsewhere={
            "pip install": _INSTALLS,
            "ketch run": "tests/integration/rootless has a user do it",
            **dict.fromkeys(("mkdir", "cp ", "systemctl", "sudo", "docker context"), "it needs a user's systemd"),
        },
        skipped=8,
    ),
    "docs/runtime.md": Prepared(
        elsewhere=dict.fromkeys(("dockerd ", "podman ", "ctr ", "ketchd ", "docker run"), "it needs other runtimes"),
    ),
    "docs/stats.md": Prepared(before=_WEB, lasting={"curl -sN": "grep web lasting"}),
    "docs/storage.md": Prepared(elsewhere=dict.fromkeys(("ketchd --storage-driver", "docker run"), _FORM)),
    "docs/ui.md": Prepared(elsewhere={"ssh ": _OTHER_MACHINE}),
    "docs/updating.md": Prepared(before="ketch run -d --name web -p 80:80 busybox sleep 600"),
    "docs/volumes.md": Prepared(before="ketch volume create data"),
}

# Beginnings of the indented blocks that are no commands, but files, answers, forms and pictures.
OTHERS = {
    "CONTRIBUTING.md": ["src/ketch/"],
    "docs/images.md": ["content/"],
    "docs/metrics.md": ["scrape_configs:", "sum by"],
    "docs/nested.md": ["# config.toml", "# .gitlab-ci.yml", "jobs:"],
    "docs/networking.md": ["Bind for"],
    "docs/processes.md": ["ketchd ──", "time ns"],
    "docs/registry.md": ["blobs/"],
    "docs/rootless.md": ["# /etc/systemd"],
    "docs/runtime.md": ["RUNTIME"],
    "docs/stats.md": ["GET /ketch/stats", '{"read"'],
    "docs/storage.md": ["layers/"],
    "docs/updating.md": ['"Changes"'],
    "docs/volumes.md": ["-v SOURCE"],
}
