"""Dockerfiles as graphs and configurations, beside what dockerd 28.5.2 made of the same files."""

from __future__ import annotations

import asyncio
import json
import pathlib

import msgspec
import pytest

from ketch.build import entitlements
from ketch.build.cache.maps import exec_map
from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import (
    ConvertOptions,
    ImageContext,
    LocalContext,
    ResolvedImage,
    SourceContext,
)
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.errors import SolveError
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.definition import define, load
from ketch.build.llb.vertex import Edge, in_order, vertex
from ketch.oci import platform as platforms
from ketch.oci.config import ImageConfig, RootFS, RunConfig
from tests.support.recordings import conversions
from tests.support.recordings.converting import AMD64, Images, converted

ROWS = conversions.rows()


def as_recorded(result, row):
    """The digests of a graph, its local sources with the digests that BuildKit gave to those with the same options."""
    local = {}
    for digest, _, _, attrs in row["vertices"]:
        if attrs is not None:
            local[msgspec.json.encode(attrs, order="deterministic")] = digest
    made, digests = {}, []
    for one in in_order([vertex(pb.Op(), [result.edge])]):
        inputs = [Edge(made[edge.vertex.digest], edge.output) for edge in one.inputs]
        again = vertex(pb.Op.FromString(one.data), inputs, one.metadata)
        source = one.op.source
        if source.identifier.startswith("local://"):
            again.digest = local[msgspec.json.encode(dict(source.attrs), order="deterministic")]
        made[one.digest] = again
        digests.append((one, again.digest))
    return digests


RIGHT = [row for row in ROWS if "error" not in row]
WRONG = [row for row in ROWS if "error" in row]


@pytest.mark.parametrize("row", RIGHT, ids=[row["name"] for row in RIGHT])
def test_graphs_and_configurations_are_buildkits(row):
    result = converted(row)
    digests = as_recorded(result, row)
    recorded = {digest: (name, spans) for digest, name, spans, _ in row["vertices"]}
    assert [one.op for one, digest in digests if digest not in recorded] == []
    assert {digest for _, digest in digests} == set(recorded)
    for one, digest in digests[:-1]:
        name, spans = recorded[digest]
        found = [list(span) for span in result.places.of(one.digest)]
        assert sorted(found) == sorted(map(list, {tuple(span) for span in spans}))
        if len(spans) < 2:  # of several that are one, BuildKit shows any
            assert one.name == name or one.kind == "source"
    config = msgspec.json.decode(msgspec.json.encode(result.image.config))
    assert {key: value for key, value in config.items() if value} == row["config"]
    assert (result.image.author or "") == row["author"]
    assert [step.created_by for step in result.image.history or ()] == row["history"]
    own = platforms.Platform(os=result.image.os, architecture=result.image.architecture, variant=result.image.variant)
    assert platforms.text(own) == row["platform"]
    assert sum(not step.empty_layer for step in result.image.history or ()) == row["layers"]


@pytest.mark.parametrize("row", WRONG, ids=[row["name"] for row in WRONG])
def test_errors_are_buildkits(row):
    line, message = row["error"]
    with pytest.raises(DockerfileError) as caught:
        converted(row)
    assert caught.value.message == message
    assert (caught.value.span.start if caught.value.span else None) == line


# What other front ends refuse, and what is said by a check and not by the conversion.
ELSEWHERE = ("unknown flag: --", "lint violation found", "failed to parse check options")
CHECKED = json.loads((pathlib.Path(__file__).parents[2] / "data" / "dockerfile-checks.json").read_text())


class EveryImage(Images):
    async def image(self, name, platform):
        image = ImageConfig(architecture="amd64", os="linux", config=RunConfig(), rootfs=RootFS(diff_ids=["x"]))
        return ResolvedImage(reference=name, config=image)


@pytest.mark.parametrize("row", CHECKED, ids=[row["dockerfile"] for row in CHECKED])
def test_what_a_check_accepts_is_converted(row):
    message = row["error"][1] if row["error"] else ""
    if any(part in message for part in ELSEWHERE):
        return
    found = ""
    try:
        asyncio.run(convert(row["dockerfile"], ConvertOptions(build_platform=AMD64), EveryImage()))
    except DockerfileError as e:
        found = e.message
    assert found == message


def converted_text(text, **options):
    return asyncio.run(convert(text, ConvertOptions(build_platform=AMD64, **options), Images()))


def steps(result):
    """The names of a graph's vertices, inputs first."""
    return [one.name for one in in_order([result.edge.vertex])]


def test_linked_files_are_a_layer_of_their_own():
    text = "FROM b:1\nCOPY --link --chown=me f /f\nCOPY --link --chmod=600 f /g\n"
    result = converted_text(text, merges=True)
    assert steps(result) == [
        "[1/3] FROM docker.io/library/b:1",
        "[internal] load build context",
        "[2/3] COPY --link --chown=me f /f",
        "[2/3] LINK COPY --link --chown=me f /f",
        "[3/3] COPY --link --chmod=600 f /g",
    ]
    both = result.edge.vertex.inputs[0].vertex
    layer = both.inputs[1].vertex
    assert (both.kind, both.op.HasField("platform")) == ("merge", False)
    assert (layer.op.file.actions[0].input, layer.op.file.actions[0].secondaryInput) == (-1, 0)
    assert layer.metadata.progress_group.weak
    assert not both.metadata.progress_group.weak
    assert [list(span) for span in result.places.of(both.digest)] == [[2, 2]]


def test_parents_of_files_are_kept():
    text = "FROM scratch\nCOPY --parents ./d/./e/*.txt d/a /to/\n"
    first, second = (action.copy for action in converted_text(text).edge.vertex.op.file.actions)
    assert (first.src, list(first.include_patterns), list(first.required_paths)) == ("/d", ["e/*.txt"], [])
    assert (second.src, list(second.include_patterns), list(second.required_paths)) == ("/", ["d/a"], ["/d/a"])


def test_only_images_that_are_needed_are_asked_for():
    images = Images()
    text = "FROM b:1 AS one\nFROM nosuch AS other\nRUN --mount=from=nosuch,target=/m ls\nFROM one\n"
    text += "COPY --from=b:2 / /\nCOPY --from=library/b:1 / /\n"
    asyncio.run(convert(text, ConvertOptions(build_platform=AMD64), images))
    assert sorted(images.asked) == [("docker.io/library/b:1", "linux/amd64"), ("docker.io/library/b:2", "linux/amd64")]


def test_platforms_in_names_and_sources():
    text = "FROM --platform=$BUILDPLATFORM b:1 AS one\nARG TARGETARCH\nRUN x\nFROM b:1\nCOPY --from=one /x /x\n"
    result = converted_text(text, platform=platforms.parse("linux/arm64"), many_platforms=True)
    assert steps(result) == [
        "[linux/arm64 stage-1 1/2] FROM docker.io/library/b:1",
        "[linux/amd64 one 1/2] FROM docker.io/library/b:1",
        "[linux/amd64->arm64 one 2/2] RUN x",
        "[linux/arm64 stage-1 2/2] COPY --from=one /x /x",
    ]
    assert (result.image.os, result.image.architecture) == ("linux", "arm64")


def test_what_is_not_to_come_from_the_cache():
    text = "FROM b:1 AS one\nRUN x\nFROM b:1 AS two\nWORKDIR /w\nCOPY --from=one / /\nRUN y\n"
    for names, expected in ((None, 0), ([], 3), (["one"], 1), (["two"], 2)):
        result = converted_text(text, no_cache=names)
        ignored = [one for one in in_order([result.edge.vertex]) if one.metadata.ignore_cache]
        assert len(ignored) == expected
        assert result.ignore_cache == (expected >= 2)


def test_a_definition_has_the_lines():
    text = "FROM b:1\nRUN a \\\n  b\n"
    result = converted_text(text)
    definition = define(result.edge, result.places.message(result.edge, "Dockerfile", text.encode()))
    read = load(pb.Definition.FromString(definition.SerializeToString()))
    assert read.vertex.digest == result.edge.vertex.digest
    (location,) = definition.Source.locations[read.vertex.digest].locations
    assert [line.start.line for line in location.ranges] == [2, 3]
    assert definition.Source.infos[0].data == text.encode()


@pytest.mark.parametrize(
    ("source", "identifier", "attrs"),
    [
        ("https://x.org/a/b.git", "git://x.org/a/b.git", {"git.fullurl": "https://x.org/a/b.git"}),
        ("https://u@x.org/b.git#v1", "git://x.org/b.git#v1", {"git.fullurl": "https://u@x.org/b.git"}),
        ("git@x.org:a/b.git#v1:sub", "git://x.org/a/b.git#v1:sub", {"git.fullurl": "git@x.org:a/b.git"}),
        ("ssh://git@x.org/b.git", "git://x.org/b.git", {"git.mountsshsock": "default"}),
        ("https://x.org/b.git/x", "https://x.org/b.git/x", {"http.filename": "x"}),
        ("https://x.org", "https://x.org", {"http.filename": "__unnamed__"}),
    ],
)
def test_sources_elsewhere(source, identifier, attrs):
    vertex = converted_text(f"FROM scratch\nADD {source} /to/\n").edge.vertex
    found = vertex.inputs[0].vertex.op.source
    assert found.identifier == identifier
    assert attrs.items() <= dict(found.attrs).items()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the Dockerfile cannot be empty"),
        ("FROM b:1\nCOPY git@x.org:a/b.git /x\n", 2, "source can't be a git ref for COPY"),
        ("FROM b:1\nRUN --mount=type=ssh,source=x ls\n", 2, "ssh does not support source"),
        ("FROM b:1\nCOPY --from=7 / /\n", 2, "invalid stage index 7"),
        ("FROM b:1\nCOPY --from=${ / /\n", 2, "failed to process \"${\": syntax error: missing '}'"),
        (
            "FROM b:1\nCOPY --chmod=17777 f /\n",
            2,
            "invalid chmod parameter: '17777'. it should be octal string and between 0 and 07777",
        ),
        (
            "FROM b:1\nCOPY --chmod=9 f /\n",
            2,
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        (
            "FROM b:1 AS a\nCOPY --from=b / /\nFROM a AS b\n",
            2,
            'cannot copy from stage "b", it needs to be defined before current stage "a"',
        ),
        (
            "FROM b:1 AS a\nRUN --mount=from=b,target=/m x\nFROM a AS b\n",
            2,
            'cannot mount from stage "b" to "a", stage needs to be defined before current command',
        ),
    ],
)
def test_what_is_refused(text, line, message):
    with pytest.raises(DockerfileError) as caught:
        converted_text(text)
    assert (caught.value.span.start, caught.value.message) == (line, message)


def test_here_documents_keep_their_quotes():
    text = 'FROM scratch\nENV A=b\nCOPY <<E /f\n"$A" \'$A\' \\$A \\"\nE\n'
    (inline,) = converted_text(text).edge.vertex.inputs
    assert inline.vertex.op.file.actions[0].mkfile.data == b'"b" \'b\' $A "\n'


def test_paths_of_a_directory_beside_the_context():
    text = "FROM b:1\nCOPY --from=oth a b /x/\nCOPY --from=oth c /y\n"
    result = converted_text(text, contexts={"oth": LocalContext(name="oth", ignore=["*.o"])})
    sources = [
        dict(one.op.source.attrs) for one in in_order([result.edge.vertex]) if "local" in one.op.source.identifier
    ]
    hint = {"local.sharedkeyhint": "context:oth", "local.excludepatterns": '["*.o"]'}
    assert sources == [
        {**hint, "local.followpaths": '["a","b"]'},
        {**hint, "local.followpaths": '["c"]'},
    ]


def test_steps_are_shown_with_their_quotes_and_values():
    text = "FROM b:1\nENV A=b\nRUN --mount=type=secret,id=s,env=S echo \"$A\" 'x' ${B:-c} $S\n"
    assert steps(converted_text(text))[-1] == (
        "[stage-0 2/2] RUN --mount=type=secret,id=s,env=S echo \"b\" 'x' ${B:-c} ****"
    )


def test_bytes_that_are_no_text():
    result = converted_text("FROM b:1\nLABEL a=\udcff\nCOPY <<E /f\n\udcff\nE\n")
    assert result.image.config.labels == {"a": "\ufffd"}
    inline = result.edge.vertex.inputs[1].vertex
    assert inline.op.file.actions[0].mkfile.data == b"\xff\n"
    with pytest.raises(DockerfileError, match="string field contains invalid UTF-8") as caught:
        converted_text("FROM b:1\nRUN echo \udcff\n")
    assert caught.value.span.start == 2
    with pytest.raises(DockerfileError, match="failed to process"):
        converted_text("FROM b:1\nENV A=${B:-\udcff\n")


@pytest.mark.parametrize(("epoch", "created"), [("0", "1970-01-01T00:00:00Z"), ("-1", "1969-12-31T23:59:59Z")])
def test_a_time_that_is_given(epoch, created):
    result = converted_text("FROM b:1\nWORKDIR /w\n", args={"SOURCE_DATE_EPOCH": epoch})
    assert result.epoch == int(epoch)
    assert result.image.history[-1].created == created
    assert result.edge.vertex.op.file.actions[0].mkdir.timestamp == int(epoch) * 10**9
    with pytest.raises(DockerfileError, match="value out of range"):
        converted_text("FROM b:1\n", args={"SOURCE_DATE_EPOCH": "1" * 13})


def test_what_every_command_gets():
    text = "FROM b:1\nRUN --security=insecure --device=v/c=x,required --device=v/c=y --mount=target=/c,type=cache x\n"
    vertex = converted_text(
        text,
        devices=[("v/c=all", True)],
        resources=pb.LinuxResources(memory=5),
        hostname="box",
        hosts=[("a", "1.2.3.4")],
        cache_namespace="n",
        resolve_mode="pull",
        args={"https_proxy": "p", "ALL_PROXY": "q"},
    ).edge.vertex
    command = vertex.op.exec
    assert command.security == pb.INSECURE
    assert [(one.name, one.optional) for one in command.cdiDevices] == [
        ("v/c=all", True),
        ("v/c=x", False),
        ("v/c=y", True),
    ]
    assert vertex.metadata.linux_resources.memory == 5
    assert command.mounts[1].cacheOpt.ID == "n//c"
    assert (command.meta.hostname, command.meta.extraHosts[0].IP) == ("box", "1.2.3.4")
    assert (command.meta.proxy_env.https_proxy, command.meta.proxy_env.all_proxy) == ("p", "q")
    assert dict(vertex.inputs[0].vertex.op.source.attrs) == {"image.resolvemode": "pull"}


def test_contexts_in_the_place_of_the_directory():
    git = SourceContext(identifier="git://x.org/r.git", attrs={"git.fullurl": "https://x.org/r.git"})
    text = "FROM scratch\nCOPY f /\nCOPY --from=arm / /\n"
    image = ImageContext(reference="b:2")
    contexts = {"arm::linux/arm/v7": image, "arm": LocalContext(name="other")}
    result = converted_text(text, context=git, contexts=contexts, platform=platforms.parse("linux/arm/v7"))
    sources = [one.op.source.identifier for one in in_order([result.edge.vertex]) if one.kind == "source"]
    assert sources == ["git://x.org/r.git", "docker-image://docker.io/library/b:2"]


def test_a_secret_with_a_path_and_a_variable_of_the_stage():
    text = (
        "FROM b:1\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh --mount=type=ssh,id=b --mount=type=secret,id=/a/b x\n"
    )
    command = converted_text(text).edge.vertex.op.exec
    assert [mount.dest for mount in command.mounts] == [
        "/",
        "/run/secrets/b",
        "/run/buildkit/ssh_agent.0",
        "/run/buildkit/ssh_agent.1",
    ]
    assert [item for item in command.meta.env if "SSH" in item] == ["SSH_AUTH_SOCK=/mine"]


def test_a_network_of_the_engines_has_to_be_allowed():
    """It is another vertex, with the same key; RUN --network=none does without; no graph may name one by itself."""
    text = "FROM scratch\nRUN one\nRUN --network=none two\n"
    named = asyncio.run(convert(text, ConvertOptions(build_platform=AMD64, network_name="back"), Images()))
    plain = asyncio.run(convert(text, ConvertOptions(build_platform=AMD64), Images()))
    found = [one.op.exec for one in in_order([named.edge.vertex]) if one.kind == "exec"]
    assert [(one.network, one.network_name) for one in found] == [(pb.UNSET, "back"), (pb.NONE, "")]
    keys = [
        [exec_map(one.op, None).digest for one in in_order([result.edge.vertex]) if one.kind == "exec"]
        for result in (named, plain)
    ]
    assert keys[0] == keys[1] and named.edge.vertex.digest != plain.edge.vertex.digest
    entitlements.check(named.edge, {entitlements.of_network("back")})
    with pytest.raises(SolveError, match="network:back is not allowed"):
        entitlements.check(named.edge, {entitlements.of_network("front"), "network.host"})
