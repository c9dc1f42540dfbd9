"""Build graphs: digests that BuildKit gives to the same operations, what is read, what is refused."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.definition import define, load
from ketch.build.llb.operations import (
    Action,
    MountInput,
    difference,
    execute,
    files,
    merge,
    output_at,
    source,
)
from ketch.build.llb.vertex import Edge, in_order, vertex
from ketch.errors import InvalidArgument

PLATFORM = pb.Platform(Architecture="amd64", OS="linux")
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b"]
# The graph of this Dockerfile, from the provenance (mode=max) that buildx 0.29 and dockerd 28.5.2 gave of its build:
#     FROM b:1 AS one
#     WORKDIR /w
#     ENV A=b
#     COPY --from=b:1 /bin/sh x
#     COPY --chmod=755 --chown=me:1 <<"EOT" y
#     $a
#     EOT
#     RUN echo hi > /w/f
#     RUN --mount=type=cache,target=/c,sharing=locked,uid=5 --mount=type=bind,from=b:1,target=/m,source=bin
#         --mount=type=secret,id=s,env=S --mount=type=ssh --mount=type=tmpfs,target=/t,size=1m --network=none ls /m
#     FROM scratch
#     COPY --from=one --chown=1:root --chmod=644 /w/f /g/
DIGESTS = {
    "image": "7f91ded7234b1563bb72748d2131cdaf7a0a4f4838fa5c86d43564cdf91b8a56",
    "workdir": "8701755fae76bee6d571f284061aa06fef03484d943ff161d0274f505cb41a9a",
    "copy": "8fa51e39198a9c692ad6b0252da9268a8dcff8465da079b825f3287357d225cd",
    "document": "e296357d51adcf4c4f1bd7583f7be9fc844f5829a4b860dfd09be444df0b9901",
    "owned": "6e32c4a9e44487c480fb1308b0a8ed838eb602526c8d2243750d0f0b01128a76",
    "run": "d4d4e3fb864875a22bc82414df8b6e9dd055c63d574dcb33e0fbc2ef4d9c6360",
    "cache": "7fb29cd964882eb95af9f3bd2f840dca6c2367a41d606c313e609142f2f26bd7",
    "mounts": "0bf25ba5977c61b288fb029de672c5a9317c8c9c1c6e8d29377694e5180e2a4e",
    "result": "cd36e04541b6d6f96641686308f7599665e0ddede2cb86679ef79fd9e74201bb",
    "end": "9a31c436e8602ac6b6ce31a4800544b015f3e304b543283e054e703414659c91",
}


def made(path: str, **more: object) -> Action:
    return Action(pb.FileAction(mkdir=pb.FileActionMkDir(path=path, mode=0o755, timestamp=-1, **more)))


def copied(of: Edge, src: str, dest: str, **more: object) -> Action:
    flags = dict.fromkeys(
        ("followSymlink", "dirCopyContents", "createDestPath", "allowWildcard", "allowEmptyWildcard"), True
    )
    options = {"mode": -1, "timestamp": -1, **flags, **more}
    return Action(pb.FileAction(copy=pb.FileActionCopy(src=src, dest=dest, **options)), of)


def run(script: str, base: Edge, *mounts: MountInput, env: tuple[str, ...] = (), **more: object) -> Edge:
    meta = pb.Meta(args=["/bin/sh", "-c", script], env=[*ENV, *env], cwd="/w")
    command = execute(pb.ExecOp(meta=meta, **more), [*mounts, MountInput(pb.Mount(dest="/"), base)], PLATFORM)
    return output_at(command, "/")


def owner(user: pb.UserOpt, group: int) -> pb.ChownOpt:
    return pb.ChownOpt(user=user, group=pb.UserOpt(byID=group))


def graph() -> dict[str, Edge]:
    """The steps of the Dockerfile above."""
    found: dict[str, Edge] = {}
    image = found["image"] = source("docker-image://docker.io/library/b:1", {"image.resolvemode": "local"}, PLATFORM)
    found["workdir"] = files(image, [made("/w", makeParents=True)], None)
    found["copy"] = files(found["workdir"], [copied(image, "/bin/sh", "/w/x")], None)
    text = pb.FileActionMkFile(path="/EOT", mode=0o644, data=b"$a\n", timestamp=-1)
    document = found["document"] = files(None, [Action(pb.FileAction(mkfile=text))], None)
    me = owner(pb.UserOpt(byName=pb.NamedUserOpt(name="me")), 1)
    plain = pb.FileActionCopy(src="/EOT", dest="/w/y", owner=me, mode=0o755, createDestPath=True, timestamp=-1)
    found["owned"] = files(found["copy"], [Action(pb.FileAction(copy=plain), document)], None)
    found["run"] = run("echo hi > /w/f", found["owned"])
    found["cache"] = files(None, [made("/cache", owner=owner(pb.UserOpt(byID=5), 0))], None)
    socket = "/run/buildkit/ssh_agent.0"
    locked = pb.CacheOpt(ID="//c", sharing=pb.LOCKED)
    found["mounts"] = run(
        "ls /m",
        found["run"],
        MountInput(pb.Mount(dest=socket, mountType=pb.SSH, SSHOpt=pb.SSHOpt(mode=0o600, optional=True))),
        MountInput(pb.Mount(dest="/t", mountType=pb.TMPFS, TmpfsOpt=pb.TmpfsOpt(size=1 << 20))),
        MountInput(pb.Mount(dest="/m", selector="/bin", readonly=True), image),
        MountInput(pb.Mount(dest="/c", selector="/cache", mountType=pb.CACHE, cacheOpt=locked), found["cache"]),
        env=(f"SSH_AUTH_SOCK={socket}",),
        network=pb.NONE,
        secretenv=[pb.SecretEnv(ID="s", name="S", optional=True)],
    )
    numbers = owner(pb.UserOpt(byID=1), 0)
    found["result"] = files(None, [copied(found["mounts"], "/w/f", "/g/", mode=0o644, owner=numbers)], None)
    return found


def test_digests_are_buildkits():
    steps = graph()
    shown = {name: edge.vertex.digest.removeprefix("sha256:") for name, edge in steps.items()}
    definition = define(steps["result"])
    shown["end"] = hashlib.sha256(getattr(definition, "def")[-1]).hexdigest()
    assert shown == DIGESTS


def test_a_definition_is_read_as_it_was_written():
    steps = graph()
    read = load(pb.Definition.FromString(define(steps["result"]).SerializeToString()))
    assert read.vertex.digest == steps["result"].vertex.digest
    assert [one.digest for one in in_order([read.vertex])] == [one.digest for one in in_order([steps["result"].vertex])]
    assert [one.kind for one in in_order([read.vertex])].count("exec") == 2


def test_fields_of_later_versions_keep_their_digest():
    """A vertex is its bytes: what this version does not know of them counts."""
    later = graph()["image"].vertex.data + b"\xa2\x06\x03new"  # field 100
    end = pb.Op(inputs=[pb.Input(digest="sha256:" + hashlib.sha256(later).hexdigest())]).SerializeToString()
    definition = pb.Definition(metadata={})
    getattr(definition, "def").extend([later, end])
    assert load(definition).vertex.data == later


def test_deep_and_wide_graphs():
    edge = source("local://context")
    for number in range(2000):
        edge = files(edge, [made(f"/{number}"), copied(edge, "/", f"/c{number}")], PLATFORM)
    found = load(define(edge))
    assert len(list(in_order([found.vertex]))) == 2001


def test_merge_and_difference():
    one, two = source("local://one"), source("local://two")
    assert merge([None, one], PLATFORM) == one
    assert merge([], PLATFORM) is None
    both = merge([one, None, two], PLATFORM)
    assert [item.input for item in both.vertex.op.merge.inputs] == [0, 1]
    assert difference(None, two, PLATFORM) == two
    removed = difference(one, None, PLATFORM).vertex.op.diff
    assert (removed.lower.input, removed.upper.input) == (0, -1)


def test_what_is_not_kept_cannot_be_used():
    scratch = MountInput(pb.Mount(dest="/out", output=-1))
    command = execute(
        pb.ExecOp(meta=pb.Meta(args=["true"], cwd="/")), [scratch, MountInput(pb.Mount(dest="/"))], PLATFORM
    )
    assert output_at(command, "/").output == 0
    with pytest.raises(ValueError, match="/out is not kept"):
        output_at(command, "/out")
    with pytest.raises(KeyError):
        output_at(command, "/other")


EXEC = {"meta": pb.Meta(args=["true"]), "mounts": [pb.Mount(dest="/", input=-1)]}


def with_mount(**mount):
    return pb.ExecOp(meta=EXEC["meta"], mounts=[*EXEC["mounts"], pb.Mount(dest="/x", input=-1, **mount)])


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (pb.Op(), "invalid nil op"),
        (pb.Op(source=pb.SourceOp()), "invalid source op with no source"),
        (pb.Op(exec=pb.ExecOp()), "invalid exec op with no meta"),
        (pb.Op(exec=pb.ExecOp(meta=pb.Meta())), "invalid exec op with no args"),
        (pb.Op(exec=pb.ExecOp(meta=EXEC["meta"])), "invalid exec op with no mounts"),
        (pb.Op(exec=pb.ExecOp(meta=EXEC["meta"], mounts=[pb.Mount(dest="/x")])), "invalid exec op with no rootfs"),
        (pb.Op(exec=pb.ExecOp(meta=EXEC["meta"], mounts=[pb.Mount(dest="/", input=3)])), "invalid input 3 of mount /"),
        (pb.Op(exec=pb.ExecOp(network=77, **EXEC)), "unknown network mode 77"),
        (pb.Op(exec=with_mount(mountType=77)), "mount type 77 not implemented"),
        (pb.Op(exec=with_mount(mountType=pb.CACHE)), "missing cache mount options"),
        (pb.Op(exec=with_mount(mountType=pb.CACHE, cacheOpt={"sharing": 9})), "unknown sharing 9 of cache mount /x"),
        (pb.Op(exec=with_mount(mountType=pb.SECRET)), "invalid secret mount options"),
        (pb.Op(file=pb.FileOp()), "invalid file op with no actions"),
        (pb.Op(file=pb.FileOp(actions=[pb.FileAction(input=-1)])), "invalid nil action 0"),
        (pb.Op(file=pb.FileOp(actions=[made("/a").action])), "invalid input 0 of action 0"),
        (pb.Op(merge=pb.MergeOp()), "invalid merge op with no inputs"),
        (pb.Op(merge=pb.MergeOp(inputs=[pb.MergeInput(input=-1)])), "invalid input -1 of merge"),
        (pb.Op(diff=pb.DiffOp(upper=pb.UpperDiffInput(input=1))), "invalid input 0 of diff's lower side"),
        (pb.Op(build=pb.BuildOp(inputs={"a": pb.BuildInput(input=1)})), "invalid input 1 of build's a"),
    ],
)
def test_refused_operations(op, why):
    with pytest.raises(InvalidArgument, match="^failed to load LLB: " + re.escape(why)):
        load(define(Edge(vertex(op))))


def test_refused_definitions():
    whole = define(graph()["result"])
    parts = list(getattr(whole, "def"))
    for texts, why in (
        ([], "invalid empty definition"),
        ([b"\xff"], "failed to parse llb proto op"),
        (parts[:1], "invalid LLB with 1 vertexes"),
        (parts[1:], "invalid missing input digest sha256:7f91ded7"),
        ([*parts, parts[0]], "invalid LLB with no inputs on last vertex"),
    ):
        definition = pb.Definition()
        getattr(definition, "def").extend(texts)
        with pytest.raises(InvalidArgument, match=why):
            load(definition)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_read_or_refused(texts):
    definition = pb.Definition()
    getattr(definition, "def").extend(texts)
    with pytest.raises(InvalidArgument):
        load(definition)


@given(st.dictionaries(st.text(), st.text(), max_size=5), st.text())
def test_the_order_in_which_attributes_are_given_is_no_matter(attrs, identifier):
    turned = dict(reversed(attrs.items()))
    assert source(identifier, attrs).vertex.digest == source(identifier, turned).vertex.digest
