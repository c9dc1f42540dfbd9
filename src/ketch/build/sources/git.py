"""Commits of git repositories (``git://HOST/PATH#REF:DIRECTORY``), fetched by the program git.

A branch or tag is looked up at the remote each time, and counts by its commit.  Of a commit no more is fetched than its
files, where the remote allows that, into a repository that is kept here.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ketch import threads
from ketch.build.cache.maps import Checkout, git_map
from ketch.build.sources import git_remote
from ketch.build.sources.git_program import Git, GitFailed, GitSettings
from ketch.build.sources.git_remote import GitRemote, is_commit
from ketch.build.sources.threads import drafted
from ketch.build.tree import Tree
from ketch.errors import Conflict, InvalidArgument, NotFound, Unavailable
from ketch.storage import removal
from ketch.storage.contexts.lookup import move_entries, named
from ketch.storage.contexts.receive import PrivateDirectory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots
    from ketch.build.sources.kept.repositories import GitRepositories

SCHEME = "git://"
_BRANCH = re.compile(r"^ref: (refs/heads/\S+)\tHEAD$", re.MULTILINE)
_HEX = re.compile(r"[0-9a-fA-F]{1,64}\Z")


class ResolvedCommit(NamedTuple):
    """A commit, and the reference at the remote that leads to it; empty where the source names the commit itself.

    ``tag``: the digest of the annotated tag that the reference means.
    """

    commit: str
    reference: str
    tag: str = ""


class GitObjects(NamedTuple):
    """A commit and the annotated tag that leads to it, as git keeps them; empty where there is none."""

    commit: bytes
    tag: bytes


class GitSource:
    """The operation of a commit."""

    def __init__(
        self,
        identifier: str,
        attrs: Mapping[str, str],
        snapshots: BuildSnapshots,
        repositories: GitRepositories,
        temporary: str,
    ) -> None:
        """``temporary``: a directory on one file system with layers (InvalidArgument)."""
        address, _, part = identifier.removeprefix(SCHEME).partition("#")
        self._ref, _, directory = part.partition(":")
        self._directory = posixpath.normpath(f"/{directory}").lstrip("/")
        self._remote = GitRemote.of(attrs.get("git.fullurl") or address)
        self._keep = attrs.get("git.keepgitdir") == "true"
        self._submodules = attrs.get("git.skipsubmodules") != "true"
        self._checksum = attrs.get("git.checksum", "").lower()
        if self._checksum and not _HEX.match(self._checksum):
            raise InvalidArgument(f"invalid checksum {self._checksum[:100]!r} for a git source: it is no commit")
        self._secrets = ((attrs.get("git.authheadersecret", ""), False), (attrs.get("git.authtokensecret", ""), True))
        self._agent, self._known_hosts = attrs.get("git.mountsshsock", ""), attrs.get("git.knownsshhosts", "")
        self._snapshots, self._repositories, self._temporary = snapshots, repositories, temporary
        self._found: ResolvedCommit | None = None

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The map, by the commit."""
        found = await self.resolved(work)
        work.pin(found.commit)
        return [git_map(Checkout(found.commit, self._directory, self._keep, found.reference, self._submodules))]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Fetch the commit and make a layer of its files."""
        del inputs
        found = await self.resolved(work)
        async with drafted(self._snapshots, work.lease) as draft:
            async with self._git(work) as git, self._repositories.of(self._remote, git) as repository:
                await self._fetch(git, repository, found)
                await _Checkout(git, repository, found, self._remote, self._temporary).make(
                    draft.directory, self._directory, keep=self._keep, submodules=self._submodules
                )
            layer = await threads.run_to_end(draft.commit)
        return [Tree((layer,))]

    async def objects(self, work: Work) -> GitObjects:
        """The commit itself, and the tag (KetchError)."""
        found = await self.resolved(work)
        async with self._git(work) as git, self._repositories.of(self._remote, git) as repository:
            await self._fetch(git, repository, found)
            at = ("--git-dir", repository, "cat-file")
            commit = await git.run(*at, "commit", found.commit)
            tag = await git.run(*at, "tag", found.tag) if found.tag else ""
        return GitObjects(commit.encode(errors="surrogateescape"), tag.encode(errors="surrogateescape"))

    @asynccontextmanager
    async def _git(self, work: Work) -> AsyncIterator[Git]:
        """The program with the credentials that the clients give."""
        password = self._remote.password.encode()

        def output(piece: bytes) -> None:
            work.log.write(2, piece.replace(password, b"xxxxx") if password else piece)

        async with AsyncExitStack() as stack:
            hosts = ""
            if self._known_hosts:
                hosts = stack.enter_context(_in_memory(self._known_hosts))
            settings = GitSettings(
                config=await git_remote.authorization(self._remote, self._secrets, work.sessions),
                agent=await git_remote.agent(self._agent, work.sessions),
                known_hosts=hosts,
                owner=self._repositories.root,
            )
            yield Git(settings, output)

    async def resolved(self, work: Work) -> ResolvedCommit:
        """The commit, which is looked for once (InvalidArgument: it is not what the source promises)."""
        if self._found is None:
            if is_commit(self._ref):
                found = ResolvedCommit(self._ref, "")
            else:
                async with self._git(work) as git:
                    found = await self._ask(git)
            if not found.commit.startswith(self._checksum):
                raise InvalidArgument(f"expected checksum to match {self._checksum}, got {found.commit}")
            self._found = found
        return self._found

    async def _ask(self, git: Git) -> ResolvedCommit:
        """The commit that the remote has under a name, or under its default branch."""
        url, ref, shown = self._remote.url, self._ref, self._remote.shown
        if not ref:
            try:
                told = await git.run("ls-remote", "--symref", "--", url, "HEAD")
            except GitFailed as e:
                raise Unavailable(f"error fetching default branch for repository {shown}: {e.message}") from e
            match = _BRANCH.search(told)
            if match is None:
                raise NotFound(f"could not find default branch for repository: {shown}")
            ref = match[1]
        try:
            listed = await git.run("ls-remote", "--", url, ref, f"{ref}^{{}}")
        except GitFailed as e:
            raise Unavailable(f"failed to fetch remote {shown}: {e.message}") from e
        rows = (line.partition("\t") for line in listed.splitlines())
        there = {name: commit for commit, _, name in rows}
        partial = f"refs/{ref.removeprefix('refs/')}"
        tag = f"refs/tags/{ref.removeprefix('refs/tags/')}"
        for name in (partial, f"refs/heads/{ref.removeprefix('refs/heads/')}", tag):
            found = there.get(name, "")
            commit = there.get(f"{name}^{{}}") or found
            if is_commit(commit):
                return ResolvedCommit(commit, name, found if found != commit else "")
        raise NotFound(f"repository does not contain ref {ref}: {self._remote.shown}")

    async def _fetch(self, git: Git, repository: str, found: ResolvedCommit) -> None:
        """Have a commit in the repository."""
        if await _has(git, repository, found.commit):
            return
        wanted = f"+{found.reference}:refs/kept/{found.commit}" if found.reference else found.commit
        at = ("--git-dir", repository, "fetch", "--no-tags")
        try:
            try:
                await git.run(*at, "--depth=1", "--", self._remote.url, wanted)
            except GitFailed as e:
                if found.reference and not re.search("--depth|shallow", e.told):
                    raise
                shallow = os.path.exists(os.path.join(repository, "shallow"))
                everything = ("+refs/heads/*:refs/kept/heads/*", "+refs/tags/*:refs/kept/tags/*")
                await git.run(*at, *(["--unshallow"] if shallow else []), "--", self._remote.url, *everything)
        except GitFailed as e:
            raise Unavailable(f"failed to fetch remote {self._remote.shown}: {e.message}") from e
        if not await _has(git, repository, found.commit):
            if found.reference:
                raise Conflict(
                    f"{found.reference} of {self._remote.shown} moved while it was fetched", hint="build again"
                )
            raise NotFound(f"repository does not contain ref {found.commit}: {self._remote.shown}")


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file in memory with a text, as long as the context lasts."""
    with open(os.memfd_create("known_hosts", os.MFD_CLOEXEC), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


async def _has(git: Git, repository: str, commit: str) -> bool:
    try:
        await git.run("--git-dir", repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitFailed:
        return False
    return True


class _Checkout(NamedTuple):
    """The way of a commit's files from the repository that is kept to a layer."""

    git: Git
    repository: str
    found: ResolvedCommit
    remote: GitRemote
    temporary: str

    async def make(self, target: str, directory: str, *, keep: bool, submodules: bool) -> None:
        """Write a directory of the commit to ``target`` (NotFound: there is no such directory).

        To ``keep`` the repository is possible for the whole commit alone, as with BuildKit.
        """
        keep = keep and not directory
        modules = submodules and await self._is_file(".gitmodules")
        if not keep and not modules:
            await self._files(target, directory)
        elif not directory:
            await self._whole(target, keep=keep, modules=modules)
        else:
            with await asyncio.to_thread(PrivateDirectory, self.temporary) as whole:
                await self._whole(whole.path, keep=False, modules=modules)
                if not await asyncio.to_thread(move_entries, whole.fd, directory, target):
                    raise NotFound(f"failed to open subdir {directory}: no such directory in {self.remote.shown}")

    async def _is_file(self, path: str) -> bool:
        return bool(await self.git.run("--git-dir", self.repository, "ls-tree", self.found.commit, "--", path))

    async def _files(self, target: str, directory: str) -> None:
        """Write a directory's files, and nothing of the repository."""
        tree = f"{self.found.commit}:{directory}"
        at = ("--git-dir", self.repository)
        try:
            kind = await self.git.run(*at, "cat-file", "-t", tree)
        except GitFailed:
            kind = ""
        if kind.strip() != "tree":
            raise NotFound(f"failed to open subdir {directory}: no such directory in {self.remote.shown}")
        index = os.path.join(self.repository, f"index-{secrets.token_hex(8)}")
        try:
            await self.git.run(
                *at, "--work-tree", target, "read-tree", "--reset", "-u", tree, directory=target, index=index
            )
        finally:
            if os.path.exists(index):
                os.unlink(index)

    async def _whole(self, target: str, *, keep: bool, modules: bool) -> None:
        """Write all files with a repository of their own, which submodules need; it goes again unless it is kept."""
        commit, run = self.found.commit, self.git.run
        await run("init", "--quiet", directory=target)
        await run(
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            f"file://{self.repository}",
            commit,
            directory=target,
            local=True,
        )
        await run("remote", "add", "origin", self.remote.url, directory=target)
        branch = self.found.reference.removeprefix("refs/heads/")
        if branch != self.found.reference:
            await run("checkout", "--quiet", "-B", branch, commit, "--", directory=target)
        else:
            await run("checkout", "--quiet", "--detach", commit, "--", directory=target)
        if modules:
            await self._modules(target)
        if keep:
            await run("remote", "set-url", "origin", self.remote.shown, directory=target)
            await run("reflog", "expire", "--all", "--expire=now", directory=target)
            await asyncio.to_thread(removal.remove_tree, os.path.join(target, ".git", "FETCH_HEAD"))
        else:
            for path in await asyncio.to_thread(named, target, ".git"):
                await asyncio.to_thread(removal.remove_tree, path)

    async def _modules(self, target: str) -> None:
        update = ("submodule", "update", "--init", "--recursive")
        try:
            try:
                await self.git.run(*update, "--depth=1", directory=target)
            except GitFailed as e:
                if not re.search("--depth|shallow|unadvertised|did not contain", e.told):
                    raise
                await self.git.run(*update, directory=target)
        except GitFailed as e:
            raise Unavailable(f"failed to update submodules for {self.remote.shown}: {e.message}") from e
