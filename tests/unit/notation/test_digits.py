"""Whole numbers in untrusted text: invalid ones are refused without an exception of int()."""

from __future__ import annotations

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api import query, server
from ketch.api.wire import filters
from ketch.build.dockerfile import changes
from ketch.cli.gotemplate import strings
from ketch.cli.options import network_flags, ports, quantities, value_types
from ketch.daemon.settings import config as daemon_config
from ketch.engine.containers import validate
from ketch.engine.logs import options as log_options
from ketch.engine.model.records import ContainerConfig, HostConfig, PortBinding
from ketch.engine.spec import bundle
from ketch.engine.stats import ps_options
from ketch.errors import KetchError
from ketch.notation import digits
from ketch.oci import platform
from ketch.oci.config import RunConfig
from ketch.oci.manifest import Platform
from ketch.registry import settings
from ketch.remote import headers
from ketch.runtime.security import seccomp_default
from tests.support.source.project import containing, parsed

NUMBERS = {
    "long": "9" * 25,
    "longer": "9" * 400,
    "longest": "9" * 5000,
    "arabic": "\u0663",
    "superscript": "\u00b2",
    "negative": "-1",
    "underscore": "1_000",
    "blank": " 5",
    "nothing": "",
    "hexadecimal": "0x1",
    "plus": "+1",
    "exponent": "1e9",
    "nan": "nan",
    "inf": "inf",
}
READERS = (
    lambda n: query.timestamp({"since": n}, "since"),
    lambda n: query.tail({"tail": n}),
    lambda n: server.parse_version(server.split_version(f"/v{n}.1/info")[0]),
    lambda n: server.parse_version(server.split_version(f"/v1.{n}/info")[0]),
    lambda n: filters._moment(n),
    lambda n: filters._moment(f"{n}h"),
    lambda n: filters._moment(f"1.{n}h"),
    lambda n: validate.check(ContainerConfig(image="i", exposed_ports={f"{n}/tcp": {}}), HostConfig()),
    lambda n: validate.check(
        ContainerConfig(image="i"), HostConfig(port_bindings={"1/tcp": [PortBinding(host_port=n)]})
    ),
    lambda n: validate.check(ContainerConfig(image="i"), HostConfig(cpuset_cpus=f"0-{n}")),
    lambda n: bundle.signal_number(n),
    lambda n: bundle.signal_number(f"RTMIN+{n}"),
    lambda n: bundle._cgroup_rule(f"c {n}:* rwm"),
    lambda n: log_options.size(f"{n}g", "max-size", 0),
    lambda n: log_options.facility(n),
    lambda n: log_options.address(f"udp://h:{n}"),
    lambda n: log_options._check_values("json-file", {"max-file": n}),
    lambda n: ps_options.parse(f"-p {n}"),
    lambda n: ps_options.parse(f"-o pid:{n}"),
    lambda n: changes.apply(RunConfig(), [f"HEALTHCHECK --retries={n} CMD x"]),
    lambda n: changes.apply(RunConfig(), [f"HEALTHCHECK --interval={n}h CMD x"]),
    lambda n: platform.rank(
        Platform(architecture="arm", os="linux", variant="v7"),
        Platform(architecture="arm", os="linux", variant=f"v{n}"),
    ),
    lambda n: daemon_config.tcp_address(f"tcp://h:{n}"),
    lambda n: settings.address(f"h:{n}"),
    lambda n: headers.range_of(f"0-{n}"),
    lambda n: headers.retry_after(n),
    lambda n: seccomp_default._version(f"{n}.{n}"),
    lambda n: value_types.restart_policy(f"on-failure:{n}"),
    lambda n: ports._range(f"1-{n}", "port"),
    lambda n: network_flags._parse(f"name=x,gw-priority={n}"),
    lambda n: strings.natural(f"web{n}x"),
    lambda n: quantities.duration(f"{n}h"),
    lambda n: quantities.size(f"{n}g"),
)


@given(st.text(max_size=30) | st.integers().map(str))
def test_whole_numbers(text):
    found = digits.whole(text)
    assert (found is not None) == bool(re.fullmatch(r"0*[0-9]{1,19}", text) and int(text) < 1 << 63)
    if found is not None:
        assert found == int(text)


def test_bounds():
    assert [digits.whole(text, 65535) for text in ("65535", "65536", "00080", "0", "")] == [65535, None, 80, 0, None]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_nobody_means(reader, number):
    try:
        reader(NUMBERS[number])
    except KetchError as e:
        assert len(e.message) < 20_000


def test_names_with_long_numbers_are_sorted():
    names = ["web10", "web9", "web" + "9" * 5000, "web010", "web"]
    assert sorted(names, key=strings.natural)[:2] == ["web", "web9"]
    assert sorted(names, key=strings.natural)[-1] == names[2]


UNBOUNDED = re.compile(r"(?:\\d|\[0-9\])[*+](?!\])")
# Of the kernel's own files, of our own files, or matched and never read as a number.
ALLOWED = {
    "oci/reference.py",
    "engine/logs/json_files.py",
    "cli/commands/containers/watch.py",
    "api/webpages.py",
    "cli/gotemplate/functions.py",
    "cli/gotemplate/parse.py",
    "network/links/interface_sysctls.py",
}


def test_expressions_bound_their_numbers():
    """``int`` refuses what ``\\d+`` takes."""
    found = set()
    for path in containing("re.compile", "src"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile":
                parts = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
                text = "".join(part for part in parts if isinstance(part, str))
                if UNBOUNDED.search(text):
                    found.add(path.removeprefix("src/ketch/"))
    assert found <= ALLOWED
