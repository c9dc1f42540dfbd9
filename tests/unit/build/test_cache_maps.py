"""Digests of cache maps, beside the keys under which dockerd 28.5.2 exported its caches of the same builds."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil

import pytest

from ketch.build.cache import gojson, maps
from ketch.build.cache.contents import ContentDigests
from ketch.build.cache.exchange.config import CacheConfig, CacheConfigRecord, RecordInput
from ketch.build.cache.exchange.imports import ImportedCache
from ketch.build.cache.selections import Selection
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order
from ketch.build.operation import CacheMap, InputKey
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument
from tests.support.recordings import caches
from tests.support.recordings.converting import converted

RECORDED = caches.rows()
ROWS = RECORDED["rows"]
AMD64 = pb.Platform(OS="linux", Architecture="amd64")
KNOWN = ("context", "oth", "ignoring", "b:1", "b:2")
"""What the content of is known here."""


def root_key(digest, output):
    """The key under which an operation's output is exported."""
    return "sha256:" + hashlib.sha256(f"{digest}@{output}".encode()).hexdigest()


class Directories:
    """A keeper of layers, each of which is a directory."""

    def __init__(self, places):
        self._places = places

    @contextlib.contextmanager
    def opened(self, tree):
        fd = os.open(self._places[tree.layers[0]], os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Digests of what the recorded builds were made of; layers are named by what they are."""
    place = tmp_path_factory.mktemp("caches")
    caches.prepare_contexts(place)
    shutil.copytree(place / "ctx", place / "ignoring", symlinks=True)
    shutil.rmtree(place / "ignoring" / "d" / "e")
    for name in ("b:1", "b:2"):
        for path, data in caches.files_of_image(name).items():
            (place / name / path).parent.mkdir(parents=True, exist_ok=True)
            (place / name / path).write_bytes(data)
    names = {"context": "ctx", "oth": "other", **{name: name for name in KNOWN[2:]}}
    digests = ContentDigests(Directories({name: place / directory for name, directory in names.items()}))
    for name in ("context", "oth", "ignoring"):
        digests.from_client(Tree((name,)))
    return digests


class Keys:
    """The keys of a graph: of operations, of content, and how many there are of content that is not known here."""

    def __init__(self, row, contents):
        self.operations, self.steps, self.contents, self.selectors, self.unknown = set(), set(), set(), set(), 0
        self.images = {key for name in RECORDED["images"] for key in map(_key, _image(name, AMD64))}
        self._contents, self._name = contents, row["name"]
        self.edge = converted(row, merges=True).edge
        self.known = {}  # by vertex: its maps, each with the keys of its inputs' contents
        for one in in_order([self.edge.vertex]):
            self.known[one.digest] = [(found, self._take(one, found)) for found in self._maps(one)]

    def found_in(self, cache, edge):
        """The keys by which a look-up in a cache finds an edge."""
        keys = set()
        for found, contents in self.known[edge.vertex.digest]:
            step = root_key(found.digest, edge.output)
            ways = []
            for number, (one, key) in enumerate(zip(edge.vertex.inputs, found.inputs, strict=True)):
                sources = [(source, key.selector) for source in self.found_in(cache, one)]
                sources += [(contents[number], "")] if contents[number] else []
                ways.append(
                    {target for source, part in sources for target in cache.targets(source, number, step, part)}
                )
            keys |= set.intersection(*ways) if ways else {step}
        return keys

    def _maps(self, vertex):
        op = vertex.op
        match vertex.kind:
            case "exec":
                return [maps.exec_map(op, self._contents)]
            case "file":
                return [maps.file_map(op, self._contents)]
            case "merge":
                return [maps.merge_map(op)]
            case _:
                return self._source(op)

    def _source(self, op):
        scheme, _, rest = op.source.identifier.partition("://")
        match scheme:
            case "docker-image":
                return _image(rest.removeprefix("docker.io/library/"), op.platform)
            case "local":
                return [maps.local_map(rest, "session", maps.LocalPatterns())]
            case "git":
                place, _, ref = rest.partition("#")
                assert place == "127.0.0.1/r.git"
                branch, _, directory = ref.partition(":")
                keep = op.source.attrs.get("git.keepgitdir") == "true"
                full = f"refs/heads/{branch or 'main'}" if keep else ""
                return [maps.git_map(maps.Checkout(RECORDED["commit"], directory, keep, full))]
            case _:
                return [maps.http_map(self._download(op.source))]

    def _download(self, source):
        data = caches.archive() if "t.tar" in source.identifier else b"web"
        pinned = source.attrs.get("http.checksum")
        return maps.Download(
            source.attrs["http.filename"],
            "sha256:" + hashlib.sha256(data).hexdigest(),
            modified="" if pinned else "Sun, 09 Sep 2001 01:46:40 GMT",
        )

    def _take(self, vertex, found):
        """Take in a map; the keys of the contents of its inputs, as far as they are known here."""
        if found.digest.startswith("random:"):
            return []
        kept = [mount.output for mount in vertex.op.exec.mounts if mount.output >= 0] or [0]
        steps = {root_key(found.digest, output) for output in kept}
        self.operations |= steps
        if not vertex.op.source.identifier.startswith("docker-image"):
            self.steps |= steps
        self.selectors |= {key.selector for key in found.inputs}
        return [
            key.contents and self._content(edge.vertex.op.source.identifier, key.contents)
            for edge, key in zip(vertex.inputs, found.inputs, strict=True)
        ]

    def _content(self, identifier, digest):
        name = identifier.partition("://")[2].removeprefix("docker.io/library/")
        if name == "context" and self._name.startswith("ignore"):
            name = "ignoring"
        paths = [one.path for one in digest.keywords["selections"] or [Selection("/")] if "bin" not in one.exclude]
        programs = identifier.startswith("docker-image") and any(path == "/" or "/bin" in path for path in paths)
        if name not in KNOWN or programs:
            self.unknown += 1
            return None
        found = root_key(asyncio.run(digest(Tree((name,)))), -1)
        self.contents.add(found)
        return found


def _image(name, platform):
    manifest, diff_ids = RECORDED["images"][name]
    return maps.image_maps(manifest, platform, diff_ids)


def _key(found):
    return root_key(found.digest, 0)


@pytest.fixture(scope="module")
def keys(contents):
    """The keys of all rows, by their names."""
    return {row["name"]: Keys(row, contents) for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_keys_are_buildkits(row, keys):
    """Each key that was exported is one of ours, and all that look-ups need of ours was exported.

    What has the same content is linked with the results of other builds, which go along, then.
    """
    mine = keys[row["name"]]
    every = set().union(*(one.operations for one in keys.values()))
    recorded = {digest for digest, _ in row["records"]}
    assert (mine.steps | mine.contents) - recorded == set()
    assert len(recorded - every - mine.contents - mine.images) <= mine.unknown
    selectors = {selector for _, inputs in row["records"] for links in inputs for selector, _ in links}
    assert selectors - set().union(*(one.selectors for one in keys.values())) == set()
    assert mine.operations & recorded


def test_what_buildkit_exported_is_found(keys):
    """A look-up in each exported cache leads to the last step, but where files count that only commands made."""
    found, lost = [], []
    for row in ROWS:
        records = [
            CacheConfigRecord(digest, [[RecordInput(link, selector) for selector, link in links] for links in inputs])
            for digest, inputs in row["records"]
        ]
        mine = keys[row["name"]]
        hit = mine.found_in(ImportedCache(CacheConfig([], records), {}, None), mine.edge)
        (found if hit else lost).append(row["name"])
    assert [name for name in lost if not keys[name].unknown] == []
    assert len(found) > 70


def test_rows_are_many():
    assert len(ROWS) > 80
    assert sum(len(row["records"]) for row in ROWS) > 400


# -- what the recordings have not ----------------------------------------------------------------


class NoContents:
    async def digest(self, tree, selections):
        raise AssertionError


NONE = NoContents()


def json_of(value):
    return gojson.encoded(value).decode()


def test_json_is_gos():
    assert json_of({"a": '<>&\u2028\u2029\x7f\x1b\b\f\n\r\t"\\é😀'}) == (
        '{"a":"\\u003c\\u003e\\u0026\\u2028\\u2029\x7f\\u001b\\b\\f\\n\\r\\t\\"\\\\é😀"}'
    )
    assert json_of([b"\xff\xfe", None, True, -1]) == '["//4=",null,true,-1]'


def test_json_of_messages():
    """Fields in order, without those of no value; maps by their keys; a choice as BuildKit writes it."""
    mount = pb.Mount(dest="/c", readonly=True, cacheOpt=pb.CacheOpt(), output=-1)
    assert json_of(mount) == '{"dest":"/c","output":-1,"readonly":true,"cacheOpt":{}}'
    owner = pb.ChownOpt(user=pb.UserOpt(byID=0), group=pb.UserOpt(byName=pb.NamedUserOpt(name="g", input=1)))
    assert json_of(owner) == '{"user":{"User":{}},"group":{"User":{"byName":{"name":"g","input":1}}}}'
    build = pb.BuildOp(builder=-1, attrs={"b": "2", "a": "1"}, inputs={"x": pb.BuildInput()})
    assert json_of(build) == '{"builder":-1,"inputs":{"x":{}},"attrs":{"a":"1","b":"2"}}'


def command(*mounts):
    op = pb.Op(inputs=[pb.Input(), pb.Input()], exec=pb.ExecOp(meta=pb.Meta(args=["x"])), platform=AMD64)
    op.exec.mounts.extend(mounts)
    return op


ROOT = pb.Mount(dest="/", input=0, output=0)


def test_what_a_commands_key_does_not_depend_on():
    first, second = command(ROOT), command(ROOT)
    first.exec.meta.proxy_env.http_proxy = "p"
    first.exec.meta.extraHosts.add(Host="h", IP="1.2.3.4")
    second.exec.meta.extraHosts.add(Host="h", IP="5.6.7.8")
    assert maps.exec_map(first, NONE).digest == maps.exec_map(second, NONE).digest
    second.exec.meta.extraHosts[0].Host = "i"
    assert maps.exec_map(first, NONE).digest != maps.exec_map(second, NONE).digest


@pytest.mark.parametrize(
    ("mount", "counts"),
    [
        (pb.Mount(dest="/m", input=1, selector="d", output=-1), True),
        (pb.Mount(dest="/m", input=1, selector="d", output=1), False),
        (pb.Mount(dest="/m", input=1, selector="d", output=1, readonly=True), True),
        (pb.Mount(dest="/m", input=1, output=1), True),
        (pb.Mount(dest="/m", input=1, output=-1, contentCache=pb.OFF), False),
        (pb.Mount(dest="/m", input=1, mountType=pb.TMPFS), False),
    ],
)
def test_mounts_that_count_by_content(mount, counts):
    root, other = maps.exec_map(command(ROOT, mount), NONE).inputs
    assert (root.contents, other.contents is not None) == (None, counts)


def test_a_part_that_is_changed_cannot_count_by_content():
    wrong = pb.Mount(dest="/m", input=1, selector="d", output=1, contentCache=pb.ON)
    with pytest.raises(InvalidArgument, match="invalid mount cache content of /m"):
        maps.exec_map(command(ROOT, wrong), NONE)


def test_selections_within_others():
    found = [
        Selection("/b", follow=True),
        Selection("/a/x"),
        Selection("/a"),
        Selection("/b/c", follow=True),
        Selection("/a*", wildcard=True),
        Selection("/b"),
    ]
    assert maps.without_nested(found) == [
        Selection("/a"),
        Selection("/a*", wildcard=True),
        Selection("/b"),
        Selection("/b", follow=True),
    ]


def test_numbers_of_inputs_count_unless_they_are_usual():
    def copy(first, second, output):
        op = pb.Op(inputs=[pb.Input(), pb.Input(), pb.Input()])
        action = op.file.actions.add(input=first, secondaryInput=second, output=output)
        action.copy.src = "s"
        return maps.file_map(op, NONE).digest

    assert copy(0, 1, 0) == copy(0, -1, 0)
    assert len({copy(0, 1, 0), copy(0, 2, 0), copy(1, 0, 0), copy(0, 1, 1)}) == 4


def test_owners_by_name_are_looked_up_in_what_counts():
    op = pb.Op(inputs=[pb.Input(), pb.Input()])
    action = op.file.actions.add(input=-1, secondaryInput=0, output=0)
    action.copy.src, action.copy.owner.user.byName.input = "/s", 1
    first, second = maps.file_map(op, NONE).inputs
    assert [one.path for one in first.contents.keywords["selections"]] == ["/s"]
    assert [one.path for one in second.contents.keywords["selections"]] == ["/etc/passwd"]
    action.copy.owner.user.byName.input = 7
    with pytest.raises(InvalidArgument, match="invalid input index 7"):
        maps.file_map(op, NONE)


def test_differences_and_builds():
    op = pb.Op(inputs=[pb.Input()])
    op.diff.lower.input, op.diff.upper.input = -1, 0
    assert maps.diff_map(op) == CacheMap(maps._of({"Type": "buildkit.diff.v0", "Diff": op.diff}), [InputKey()])
    op = pb.Op(inputs=[pb.Input()], build=pb.BuildOp(builder=-1))
    assert maps.build_map(op).inputs == [InputKey()]


def test_local_directories_are_of_their_session():
    first, second = (maps.local_map("context", session, maps.LocalPatterns(["a"], None, [])) for session in "ab")
    assert first.digest.startswith("random:")
    assert first != second
