"""File operations: layers in overlay's form, links between layers, what may not be reached, and what is undone."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import pathlib
import random
import shutil
import stat
import tarfile
import threading

import pytest

from ketch import trees
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, difference, files, merge, source
from ketch.build.ops import modes
from ketch.build.ops.diff import DiffOperation
from ketch.build.ops.file import FileOperation
from ketch.build.ops.merge import MergeOperation
from ketch.build.ops.threads import in_thread
from ketch.build.tree import EMPTY, Tree
from ketch.errors import InvalidArgument, KetchError, NotFound, ResourceExhausted, Unavailable
from ketch.linux import mount
from ketch.runtime.rootfs.overlay import open_overlay
from tests.support import deep_trees
from tests.support.builds.layers import PlainSnapshots, listed, run

BASE, OTHER = source("docker-image://base"), source("docker-image://other")


@pytest.fixture
def snapshots(tmp_path):
    (tmp_path / "layers").mkdir()
    return PlainSnapshots(tmp_path / "layers")


def tree(snapshots, **files):
    """A layer with files: text, a link (``->target``), or a directory (None); ``__`` in a name is a slash."""

    def fill(directory):
        for name, content in files.items():
            path = os.path.join(directory, name.replace("__", "/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if content is None:
                os.makedirs(path, exist_ok=True)
            elif content.startswith("->"):
                os.symlink(content[2:], path)
            else:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(content)
                os.utime(path, (1, 1))

    return snapshots.add(fill)


def copy(src, dest, **fields):
    message = pb.FileActionCopy(
        src=src, dest=dest, mode=-1, timestamp=-1, createDestPath=True, allowWildcard=True, dirCopyContents=True
    )
    for name, value in fields.items():
        setattr(message, name, value)
    return pb.FileAction(copy=message)


def mkfile(path, data, **fields):
    return pb.FileAction(mkfile=pb.FileActionMkFile(path=path, data=data, mode=0o644, timestamp=-1, **fields))


def mkdir(path, **fields):
    return pb.FileAction(mkdir=pb.FileActionMkDir(path=path, mode=0o755, timestamp=-1, **fields))


def rm(path, **fields):
    return pb.FileAction(rm=pb.FileActionRm(path=path, **fields))


def link(target, path):
    return pb.FileAction(symlink=pb.FileActionSymlink(oldpath=target, newpath=path, timestamp=-1))


def done(snapshots, base, *actions, other=EMPTY):
    """The tree that actions make of a base; copies take from ``other``."""
    used = [Action(one, OTHER if one.WhichOneof("action") == "copy" else None) for one in actions]
    edge = files(BASE, used)
    inputs = [{BASE.vertex: base, OTHER.vertex: other}[one.vertex] for one in edge.vertex.inputs]
    return run(FileOperation(edge.vertex, snapshots, None), *inputs)[0]


def names(snapshots, one):
    return {path: content.decode() for path, _, content, _, _ in listed(snapshots, one)}


def seen(snapshots, one):
    """A tree as overlay shows it: (path, mode, owner, content)."""
    with snapshots.opened(one) as fd:
        return everything(f"/proc/self/fd/{fd}")


def everything(root):
    found = []
    for directory, inner, outer in os.walk(root):
        for name in inner + outer:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path).encode()
            found.append((os.path.relpath(path, root), status.st_mode, status.st_uid, content))
    return sorted(found)


def upper(snapshots, one):
    return everything(snapshots.directory(one.layers[-1]))


# -- layers --------------------------------------------------------------------------------------


def test_only_what_changes_is_in_the_layer_and_directories_have_what_those_below_have(snapshots):
    base = tree(snapshots, a__b__c="c", a__b__d="d", a__other__e="e", top="t")
    inner = os.path.join(snapshots.directory(base.layers[0]), "a/b")
    os.chmod(inner, 0o2750)
    os.chown(inner, 5, 6)
    os.setxattr(inner, "user.note", b"kept")
    os.utime(os.path.join(snapshots.directory(base.layers[0]), "a"), (7, 7))
    os.chmod(snapshots.directory(base.layers[0]), 0o711)
    one = done(snapshots, base, mkfile("/a/b/new", b"n"), rm("/a/b/c"))
    assert [path for path, *_ in upper(snapshots, one)] == ["a", "a/b", "a/b/c", "a/b/new"]
    made = os.path.join(snapshots.directory(one.layers[1]), "a/b")
    status = os.stat(made)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2750, 5, 6)
    assert os.getxattr(made, "user.note") == b"kept"
    assert os.stat(os.path.dirname(made)).st_mtime == 7  # nothing happened in there
    assert os.stat(snapshots.directory(one.layers[1])).st_mode & 0o777 == 0o711
    assert stat.S_ISCHR(os.lstat(os.path.join(made, "c")).st_mode)
    assert names(snapshots, one).keys() == {"a", "a/b", "a/b/d", "a/b/new", "a/other", "a/other/e", "top"}


def test_random_operations_are_those_of_a_mounted_overlay(snapshots, tmp_path):
    rng = random.Random(7)
    paths = ["a", "a/b", "a/b/c", "a/d", "e", "e/f", "e/f/g"]
    for number in range(60):
        base = Tree(tuple(one for _ in range(rng.randrange(3)) for one in tree_of(snapshots, rng, paths).layers))
        actions = [random_action(rng, paths) for _ in range(rng.randrange(1, 9))]
        place = tmp_path / f"mounted{number}"
        (place / "upper").mkdir(parents=True)
        (place / "work").mkdir()
        with snapshots.opened(base) as fd:
            expected = mounted(fd, snapshots, base, place, actions)
        try:
            result = done(snapshots, base, *actions)
        except KetchError:
            assert expected is None, actions
            continue
        assert seen(snapshots, result) == expected, actions
        assert sorted(names(snapshots, result)) == [path for path, *_ in expected]


def tree_of(snapshots, rng, paths):
    """A layer of some actions upon nothing; what fails is left out."""
    while True:
        try:
            return done(snapshots, EMPTY, *[random_action(rng, paths) for _ in range(4)])
        except KetchError:
            continue


def random_action(rng, paths):
    path = "/" + rng.choice(paths)
    return rng.choice(
        [
            lambda: mkfile(path, rng.choice([b"1", b"two"])),
            lambda: mkdir(path, makeParents=True),
            lambda: rm(path, allowNotFound=True),
            lambda: rm(path, allowNotFound=True),
        ]
    )()


def mounted(_, snapshots, base, place, actions):
    """What the same actions make of a mounted overlay; None: one of them fails."""
    lowers = [snapshots.directory(one) for one in reversed(base.layers)] or [str(place)]
    if not base.layers:
        (place / "nothing").mkdir()
        lowers = [str(place / "nothing")]
    options = [f"lowerdir={':'.join(lowers)}", f"upperdir={place}/upper", f"workdir={place}/work"]
    fd = open_overlay(options)
    root = f"/proc/self/fd/{fd}"
    try:
        for action in actions:
            plain(root, action)
        return everything(root)
    except OSError:
        return None
    finally:
        os.close(fd)


def plain(root, action):
    kind = action.WhichOneof("action")
    message = getattr(action, kind)
    path = root + message.path
    if kind == "mkdir":
        os.makedirs(path, 0o755, exist_ok=True)
    elif kind == "mkfile":
        with open(path, "wb") as file:
            file.write(message.data)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


def test_a_directory_made_anew_or_in_the_place_of_another_thing_hides_the_old_one(snapshots):
    base = tree(snapshots, dir__old="o", file="f")
    again = done(snapshots, base, rm("/dir"), mkdir("/dir"), mkfile("/dir/new", b""))
    assert names(snapshots, again).keys() == {"dir", "dir/new", "file"}
    assert seen(snapshots, again) == seen(snapshots, again)
    other = tree(snapshots, dir="a file now", file__below="b")
    replaced = done(snapshots, base, copy("/", "/", alwaysReplaceExistingDestPaths=True), other=other)
    assert names(snapshots, replaced) == {"dir": "a file now", "file": "", "file/below": "b"}
    assert [path for path, *_ in seen(snapshots, replaced)] == ["dir", "file", "file/below"]
    with pytest.raises(InvalidArgument, match=r"cannot replace to directory /dir with file"):
        done(snapshots, base, copy("/", "/"), other=other)


# -- links between layers ------------------------------------------------------------------------


def inode(snapshots, one, path, layer=-1):
    return os.lstat(os.path.join(snapshots.directory(one.layers[layer]), path)).st_ino


def test_files_that_stay_as_they_are_are_links_and_no_others(snapshots):
    other = tree(snapshots, a="a", d__b="b", l="->a")
    same = done(snapshots, EMPTY, copy("/", "/"), other=other)
    for path in ("a", "d/b", "l"):
        assert inode(snapshots, same, path) == inode(snapshots, other, path)
    owned = copy("/", "/")
    owned.copy.owner.user.byID = 5
    for action in (owned, copy("/", "/", mode=0o600), copy("/", "/", timestamp=3_000_000_000)):
        changed = done(snapshots, EMPTY, action, other=other)
        assert inode(snapshots, changed, "a") != inode(snapshots, other, "a")
    assert inode(snapshots, changed, "l") != inode(snapshots, other, "l")
    for path in ("", "a", "d", "d/b", "l"):
        assert os.lstat(os.path.join(snapshots.directory(changed.layers[0]), path)).st_mtime == 3


def test_one_file_copied_to_two_names_becomes_no_hard_link(snapshots):
    other = tree(snapshots, a="a")
    twice = done(snapshots, EMPTY, copy("/a", "/x"), copy("/a", "/y"), other=other)
    assert inode(snapshots, twice, "x") != inode(snapshots, twice, "y")
    once, again = (done(snapshots, EMPTY, copy("/a", path), other=other) for path in ("/x", "/y"))
    both = Tree((*once.layers, *again.layers))
    third = done(snapshots, EMPTY, copy("/", "/"), other=both)
    assert inode(snapshots, third, "x") != inode(snapshots, third, "y")


@pytest.mark.parametrize("owner", [None, 5])
def test_hard_links_of_a_source_stay_hard_links(snapshots, owner):
    other = tree(snapshots, a="a", d__b="b")
    directory = snapshots.directory(other.layers[0])
    os.link(f"{directory}/a", f"{directory}/d/again")
    action = copy("/", "/to")
    if owner:
        action.copy.owner.user.byID = owner
    found = {path: first for path, _, _, _, first in listed(snapshots, done(snapshots, EMPTY, action, other=other))}
    assert found["to/d/again"] == "to/a"
    assert not found["to/d/b"]


def test_what_a_later_action_writes_does_not_reach_the_layer_that_a_file_is_linked_from(snapshots):
    other = tree(snapshots, a="a")
    one = done(snapshots, EMPTY, copy("/a", "/a"), mkfile("/a", b"changed"), other=other)
    assert names(snapshots, one) == {"a": "changed"}
    assert names(snapshots, other) == {"a": "a"}


def test_actions_use_what_others_made_and_intermediate_results(snapshots):
    op = pb.Op()
    for action, ins, second, output in (
        (mkfile("/one", b"1"), -1, -1, 0),
        (mkfile("/two", b"2"), 0, -1, -1),
        (copy("/one", "/copied"), 1, 0, 1),
        (mkfile("/unused", b""), 2, -1, -1),
    ):
        one = op.file.actions.add()
        one.CopyFrom(action)
        one.input, one.secondaryInput, one.output = ins, second, output

    class Vertex:
        pass

    vertex = Vertex()
    vertex.op = op
    first, second = run(FileOperation(vertex, snapshots, None))
    assert names(snapshots, first) == {"one": "1"}
    assert names(snapshots, second) == {"one": "1", "two": "2", "copied": "1"}
    assert len(second.layers) == 2  # not one for each action


def test_patterns_make_only_the_directories_that_they_need(snapshots):
    other = tree(snapshots, a__b__one="1", a__c__two="2", a__b__skip__x="x", d__e=None, top="t")
    inner = os.path.join(snapshots.directory(other.layers[0]), "a/b")
    os.chmod(inner, 0o751)
    os.chown(inner, 5, 6)
    os.utime(inner, (9, 9))

    def chosen(include, *exclude, base=EMPTY):
        action = copy("/", "/to")
        action.copy.include_patterns.extend(include)
        action.copy.exclude_patterns.extend(exclude)
        return done(snapshots, base, action, other=other)

    one = chosen(["a/b/*", "none/*"], "a/b/skip")
    assert names(snapshots, one).keys() == {"to", "to/a", "to/a/b", "to/a/b/one"}
    status = os.stat(os.path.join(snapshots.directory(one.layers[0]), "to/a/b"))
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid, status.st_mtime) == (0o751, 5, 6, 9)
    assert names(snapshots, chosen(["d"])).keys() == {"to", "to/d", "to/d/e"}
    assert names(snapshots, chosen(["**/two", "top"])).keys() == {"to", "to/a", "to/a/c", "to/a/c/two", "to/top"}
    assert names(snapshots, chosen([], "**", "!a/c")).keys() == {"to", "to/a", "to/a/c", "to/a/c/two"}
    in_the_way = tree(snapshots, to__a="a file", to__d="d")
    assert names(snapshots, chosen(["top"], base=in_the_way))["to/a"] == "a file"
    with pytest.raises(InvalidArgument, match="^cannot copy to non-directory: /to/a$"):
        chosen(["a/b/one"], base=in_the_way)


# -- attacks -------------------------------------------------------------------------------------


def test_links_never_lead_out(snapshots, tmp_path):
    (tmp_path / "secret").write_text("out")
    out = f"{'../' * 30}{tmp_path}"
    other = tree(snapshots, up=f"->{out}", absolute=f"->{tmp_path}", d__x="x")
    for path in ("/up/secret", "/absolute/secret", f"/{out}/secret", "/d/../../../../secret"):
        with pytest.raises(NotFound):
            done(snapshots, EMPTY, copy(path, "/found", followSymlink=True), other=other)
    base = tree(snapshots, up=f"->{out}", absolute=f"->{tmp_path}")
    for path in ("/up/d", "/absolute/d", f"/{out}/d"):
        one = done(snapshots, base, copy("/d", path), other=other)
        assert names(snapshots, one)[f"{tmp_path}/d/x".lstrip("/")] == "x"
    assert sorted(os.listdir(tmp_path)) == ["layers", "secret"]


def archive(*members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        for name, kind, target_name in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target_name
            made.addfile(member)
    return target.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("../../out", tarfile.REGTYPE, "")],
        [("null", tarfile.CHRTYPE, "")],
        [("a", tarfile.LNKTYPE, "../../../etc/passwd")],
        [("a", tarfile.LNKTYPE, "nothing")],
    ],
)
def test_archives_that_lead_out_or_speak_for_overlay_are_refused(snapshots, members):
    other = snapshots.add(lambda directory: pathlib.Path(directory, "t").write_bytes(archive(*members)))
    before = os.listdir(snapshots.root)
    with pytest.raises(InvalidArgument):
        done(snapshots, EMPTY, copy("/t", "/", attemptUnpackDockerCompatibility=True), other=other)
    assert os.listdir(snapshots.root) == before


def test_links_in_an_archive_lead_within_the_directory_that_it_is_unpacked_to(snapshots, tmp_path):
    data = archive(("l", tarfile.SYMTYPE, str(tmp_path)), ("l/file", tarfile.REGTYPE, ""))
    other = snapshots.add(lambda directory: pathlib.Path(directory, "t").write_bytes(data))
    one = done(snapshots, EMPTY, copy("/t", "/to", attemptUnpackDockerCompatibility=True), other=other)
    assert f"to{tmp_path}/file" in names(snapshots, one)
    assert os.listdir(tmp_path) == ["layers"]


def test_trees_of_three_thousand_levels_are_copied(snapshots):
    draft = snapshots.begin(None)
    os.rmdir(draft.directory)
    deep_trees.make(pathlib.Path(draft.directory), 3000)
    other = Tree((draft.commit(),))
    one = done(snapshots, tree(snapshots, d__d__file="f"), copy("/", "/"), other=other)
    expected = deep_trees.census(snapshots.directory(other.layers[0]), files_only=True)
    assert deep_trees.census(snapshots.directory(one.layers[1]), files_only=True) == expected
    for layer in (other.layers[0], one.layers[1]):  # pytest cannot
        trees.remove_path(snapshots.directory(layer))


@pytest.fixture
def small():
    """Layers on a file system of 1 MiB."""
    context_fd = mount.fsopen("tmpfs")
    mount.fsconfig(context_fd, "size", "1m")
    mount.fscreate(context_fd)
    fd = mount.fsmount(context_fd)
    os.close(context_fd)
    yield PlainSnapshots(pathlib.Path(f"/proc/self/fd/{fd}"))
    os.close(fd)


def test_a_full_disk_is_one_sentence_and_nothing_stays(small):
    other = tree(small, a="a" * 700_000)
    assert names(small, done(small, EMPTY, copy("/", "/"), other=other)).keys() == {"a"}
    before = os.listdir(small.root)
    with pytest.raises(ResourceExhausted, match="^copy /x: no space left on device$"):
        done(small, EMPTY, copy("/", "/x", mode=0o600), other=other)
    assert os.listdir(small.root) == before


def test_a_bomb_in_an_archive_ends_while_there_is_room_for_others(small):
    data = gzip.compress(archive(("zeros", tarfile.REGTYPE, "")) + bytes(1 << 20))
    other = small.add(lambda directory: pathlib.Path(directory, "t.tgz").write_bytes(data))
    before = os.listdir(small.root)
    with pytest.raises(ResourceExhausted, match="no space left on device"):
        done(small, EMPTY, copy("/t.tgz", "/", attemptUnpackDockerCompatibility=True), other=other)
    assert os.listdir(small.root) == before


def test_files_of_another_file_system_are_copied_with_all_that_they_have(small, snapshots):
    other = tree(snapshots, a="a", d__b="b", l="->a")
    directory = snapshots.directory(other.layers[0])
    os.chown(f"{directory}/a", 5, 6)
    os.chmod(f"{directory}/a", 0o4751)
    os.setxattr(f"{directory}/a", "trusted.note", b"kept")
    os.mkfifo(f"{directory}/fifo", 0o640)
    os.mknod(f"{directory}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.utime(f"{directory}/l", (2, 2), follow_symlinks=False)
    os.rename(directory, f"{directory}-elsewhere")
    small.directory = lambda layer: f"{directory}-elsewhere" if layer == "there" else str(small.root / layer)
    one = done(small, EMPTY, copy("/", "/"), other=Tree(("there",)))
    assert seen(small, one) == everything(f"{directory}-elsewhere")
    copied = f"{small.root}/{one.layers[0]}"
    assert os.getxattr(f"{copied}/a", "trusted.note") == b"kept"
    assert os.lstat(f"{copied}/a").st_mtime == 1
    assert os.lstat(f"{copied}/l").st_mtime == 2
    assert os.lstat(f"{copied}/null").st_rdev == os.makedev(1, 3)


# -- the end -------------------------------------------------------------------------------------


def test_a_cancelled_operation_ends_its_thread_before_it_returns():
    begun, ended = threading.Event(), threading.Event()

    def work(check):
        begun.set()
        try:
            while True:
                check()
        except Unavailable:
            ended.set()
            raise

    async def main():
        task = asyncio.ensure_future(in_thread(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (mkdir("/no/where"), "mkdir /no/where: no such file or directory"),
        (mkfile("/no/where", b""), "open /no/where: no such file or directory"),
        (mkfile("/d", b""), "open /d: is a directory"),
        (mkdir("/f/x", makeParents=True), "mkdir /f: not a directory"),
        (link("f", "/d"), "symlink f /d: file exists"),
        (rm("/none"), "stat /none: no such file or directory"),
        (rm("/"), "rmPath: invalid empty path"),
        (copy("/none", "/x"), "lstat /none: no such file or directory"),
        (copy("/none*", "/x"), "/none* not found"),
        (
            copy("/d", "/no/where", createDestPath=False),
            "failed to stat /no/where: lstat /no: no such file or directory",
        ),
        (copy("/d", "/f"), "cannot copy to non-directory: /f"),
        (copy("/f", "/x", modeStr="u+q"), "invalid mode 'u+q': invalid syntax"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_stays(snapshots, action, message):
    base = tree(snapshots, d__a="a", f="f")
    before = os.listdir(snapshots.root)
    with pytest.raises(KetchError) as caught:
        done(snapshots, base, mkfile("/before", b""), action, other=base)
    assert caught.value.message == message
    assert os.listdir(snapshots.root) == before


def test_owners_and_modes_of_directories_on_the_way(snapshots):
    other = tree(snapshots, f="f")
    action = copy("/f", "/a/b/f", mode=0o4710, timestamp=5_000_000_000)
    action.copy.owner.user.byID = 3
    one = snapshots.directory(done(snapshots, EMPTY, action, other=other).layers[0])
    for path, mode in (("a", 0o710), ("a/b", 0o710), ("a/b/f", 0o4710)):
        status = os.stat(f"{one}/{path}")
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (mode, 3, 3, 5), path


@pytest.mark.parametrize(
    ("text", "mode", "kind", "expected"),
    [
        ("u+x", 0o644, stat.S_IFREG, 0o744),
        ("+X", 0o644, stat.S_IFREG, 0o644),
        ("+X", 0o744, stat.S_IFREG, 0o755),
        ("a=rX", 0o600, stat.S_IFDIR, 0o555),
        ("go-rwx,u+s", 0o755, stat.S_IFREG, 0o4700),
        ("=", 0o6755, stat.S_IFREG, 0),
        ("o=u", 0o640, stat.S_IFREG, 0o646),
        ("g-u", 0o664, stat.S_IFREG, 0o604),
        ("u=rw-r+x", 0o000, stat.S_IFREG, 0o300),
        ("+t", 0o777, stat.S_IFDIR, 0o1777),
    ],
)
def test_symbolic_modes(text, mode, kind, expected):
    assert modes.symbolic(text)(kind | mode) == expected


def test_wildcards_of_removals_and_links_themselves(snapshots):
    base = tree(snapshots, d__a1="", d__a2="", d__b="", l="->d", dangling="->none")
    one = done(snapshots, base, rm("/d/a*", allowWildcard=True), rm("/l"), rm("/dangling"))
    assert names(snapshots, one).keys() == {"d", "d/b"}


# -- merges and differences ----------------------------------------------------------------------


def merged(snapshots, *trees):
    edges = [source(f"docker-image://{number}") for number in range(len(trees))]
    return run(MergeOperation(merge(edges).vertex, snapshots), *trees)[0]


def diff(snapshots, lower, upper_tree):
    edge = difference(BASE, OTHER)
    inputs = [{BASE.vertex: lower, OTHER.vertex: upper_tree}[one.vertex] for one in edge.vertex.inputs]
    return run(DiffOperation(edge.vertex, snapshots), *inputs)[0]


def test_merges_stack_layers_and_deletions_count(snapshots):
    a, b = tree(snapshots, x="a", d__a="a"), tree(snapshots, x="b", d__b="b")
    assert merged(snapshots, a, b).layers == (*a.layers, *b.layers)
    assert names(snapshots, merged(snapshots, a, b)) == {"x": "b", "d": "", "d/a": "a", "d/b": "b"}
    less = done(snapshots, a, rm("/x"))
    assert names(snapshots, merged(snapshots, b, less)).keys() == {"d", "d/a", "d/b"}
    assert merged(snapshots, a, less).layers == less.layers  # what comes again below is left out


def test_an_opaque_directory_hides_only_what_it_was_made_upon(snapshots):
    base = tree(snapshots, d__old="o", d__sub__deep="x")
    anew = done(snapshots, base, rm("/d"), mkdir("/d/sub", makeParents=True), mkfile("/d/new", b"n"))
    other = tree(snapshots, d__other="k", d__sub__kept="k")
    stacked = merged(snapshots, other, anew)
    expected = {"d": "", "d/new": "n", "d/other": "k", "d/sub": "", "d/sub/kept": "k"}
    assert names(snapshots, stacked) == expected
    assert {path for path, *_ in seen(snapshots, stacked)} == expected.keys()
    changes = diff(snapshots, base, anew)
    assert names(snapshots, merged(snapshots, other, base, changes)) == expected
    assert inode(snapshots, changes, "d/new") == inode(snapshots, anew, "d/new")


def test_differences_are_layers_between_or_computed(snapshots):
    base = tree(snapshots, a="a", b="b")
    more = done(snapshots, base, mkfile("/c", b"c"))
    assert diff(snapshots, base, more).layers == more.layers[1:]
    assert diff(snapshots, more, more) == EMPTY
    assert diff(snapshots, EMPTY, more) == more
    computed = diff(snapshots, more, tree(snapshots, a="a", z="z"))
    assert names(snapshots, merged(snapshots, more, computed)) == {"a": "a", "z": "z"}
