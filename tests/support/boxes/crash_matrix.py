"""The crash matrix: each failpoint of docs/crash-safety.md, with its action and its checks."""

from __future__ import annotations

from tests.support.boxes import crash_cases as c
from tests.support.boxes.crash_cases import Case

CASES = [
    *(
        Case(f"create.{p}", c.create, c.whole_or_gone)
        for p in ("volumes-made", "volume-copied", "snapshot-made", "row-written")
    ),
    Case("volume.directory-made", c.create, c.whole_or_gone),
    *(
        Case(p, c.start, c.startable, c.created)
        for p in (
            "volume.mounted",
            "start.volumes-attached",
            "start.bundle-written",
            "start.launcher-asked",
            "start.created",
            "network.ports-held",
            "network.endpoint-written",
            "network.veth-made",
            "network.addresses-set",
            "network.wired",
            "network.published",
            "start.names-served",
            "start.wired",
        )
    ),
    *(Case(p, c.start, c.runs, c.created) for p in ("start.running", "start.saved")),
    Case("launcher.asked", c.start, c.failed, c.created, dies="launcher"),
    Case("launcher.forked", c.start, c.runs, c.created, dies="launcher"),
    *(
        Case(f"monitor.{p}", c.start, c.failed, c.created, dies="monitor")
        for p in ("begun", "forked", "listening", "created-sent", "go-given", "program-runs")
    ),
    *(
        Case(f"init.{p}", c.start, c.failed, c.created, dies="child")
        for p in (
            "namespaces",
            "cgroup-made",
            "cgroup-joined",
            "root-attached",
            "root-entered",
            "mounted",
            "identity-set",
        )
    ),
    # Behind "go" nobody can tell it from a program that is killed at once.
    Case("init.go-received", c.start, c.ended, c.created, dies="child"),
    *(
        Case(f"monitor.{p}", c.end, c.ended, c.up, dies="monitor")
        for p in ("pid1-ended", "outputs-read", "exit-recorded", "cgroup-removed", "exit-sent")
    ),
    *(
        Case(f"monitor.{p}", c.exec_start, c.monitor_gone, c.up, dies="monitor")
        for p in ("exec-forked", "exec-runs", "exec-ended")
    ),
    *(
        Case(p, c.end, c.ended, c.up)
        for p in ("exit.received", "network.unpublished", "network.link-going", "exit.unwired")
    ),
    Case("exit.saved", c.end, c.back, c.up_always),
    Case("exit.saved", c.end, c.removed, c.up_rm),
    Case("restart.pending", c.end, c.back, c.up_always),
    Case("stop.signalled", c.post("stop"), c.stoppable, c.up_always),
    Case("kill.signalled", c.post("kill"), c.ended, c.up),
    Case("restart.stopped", c.post("restart"), c.startable, c.up),
    Case("pause.frozen", c.post("pause"), c.unpaused, c.up),
    Case("unpause.thawed", c.post("unpause"), c.unpaused, c.paused),
    Case("rename.saved", c.post("rename", name="newer"), c.renamed, c.up),
    *(Case(f"update.{p}", c.limit, c.limited, c.up) for p in ("saved", "applied")),
    *(Case(f"remove.{p}", c.remove, c.gone, c.stopped_with_volume) for p in ("row-deleted", "snapshot-gone")),
    Case("remove.row-deleted", c.prune("containers"), before=c.many, passage=2),
    *(Case(f"exec.{p}", c.exec_start, c.runs, c.up) for p in ("started", "ended")),
    *(
        Case(f"network.{p}", c.network_create, c.network_whole_or_gone)
        for p in ("row-written", "link-made", "admitted")
    ),
    *(Case(f"network.{p}", c.bay_remove, c.network_whole_or_gone, c.bay) for p in ("dismissed", "link-removed")),
    Case("connect.wired", c.connect, c.joined_or_not, c.up_beside_bay),
    *(Case(f"disconnect.{p}", c.disconnect, c.joined_or_not, c.up_in_bay) for p in ("saved", "unwired")),
    *(Case(f"volume.{p}", c.volume_remove, c.no_hold, c.hold) for p in ("removal-begun", "files-removed")),
    Case("volume.files-removed", c.prune("volumes"), before=c.two_holds, passage=2),
    Case("volume.restore-noted", c.volume_restore, c.hold_as_before, c.hold),
    *(
        Case(f"volume.restore-{p}", c.volume_restore, c.hold_restored, c.hold)
        for p in ("aside", "moving", "moved", "done")
    ),
    *(
        Case(f"image.{p}", c.load, c.loadable)
        for p in ("blob-written", "blob-named", "layer-unpacked", "layer-named", "synced", "rows-written")
    ),
    Case("image.file-arrived", c.load_cargo, c.cargo),
    Case("image.layer-named", c.load_cargo, c.cargo),
    *(Case(f"pull.{p}", c.pull, c.pullable) for p in ("write", "blob-verified", "blob-named")),
    *(Case(f"image.{p}", c.pull, c.pullable) for p in ("layer-unpacked", "layer-named", "synced", "rows-written")),
    *(Case(f"image.{p}", c.import_, c.loadable) for p in ("layer-named", "rows-written")),
    *(
        Case(p, c.commit, c.committed, c.up_with_chest)
        for p in (
            "layer.built",
            "layer.built-named",
            "layer.hashed",
            "layer.linked",
            "image.synced",
            "image.rows-written",
        )
    ),
    Case("image.layers-unlinked", c.hulk_remove, c.committed, c.hulk),
    Case("image.content-unnamed", c.hulk_remove, c.committed, c.hulk),
    Case("image.tagged", c.tag, c.tagged_or_not, c.raft),
    Case("database.sync", c.tag, c.tagged_or_not, c.raft),
    Case("image.sync", c.load, c.loadable),
    Case("image.rows-deleted", c.image_remove, c.loadable, c.raft),
    Case("image.content-unnamed", c.image_remove, c.loadable, c.raft),
    *(
        Case(f"daemon.{p}", lambda _box: 0, c.ended_seen, c.ended_unseen, at_start=True)
        for p in ("database-open", "networks-up", "container-restored", "swept", "reconciled", "restored")
    ),
    *(
        Case(f"database.{p}", lambda _box: 0, c.ended_seen, c.ended_unseen, at_start=True, passage=6)
        for p in ("commit", "committed")
    ),
    Case("daemon.stopping", c.terminate, c.runs, c.up),
    Case("database.log-put-back", lambda _box: 0, c.ended_seen, c.ended_unseen, at_start=True),
    *(Case(f"database.{p}", c.terminate, c.runs, c.up) for p in ("checkpointed", "closed")),
]

# Of a repair, in test_lost.py.
REPAIRS = (
    "repair.content-back",
    "repair.containers-back",
    "repair.old-kept",
    "repair.ready",
    "repair.old-log-gone",
    "repair.exchanged",
)

# Of a build's command, in integration/build/commands/test_exec_crash.py.
BUILDS = tuple(f"build.{p}" for p in ("prepared", "launcher-asked", "wired", "running", "ended", "layer-taken"))

# Of builds as a whole, in integration/build_faults/test_build_crash.py.
WHOLE_BUILDS = (
    *(f"build.{p}" for p in ("begun", "read", "solved", "exported", "caches-exported", "recorded")),
    *(f"build.cache-mount-{p}" for p in ("filled", "named", "unnamed")),
    *(f"context.{p}" for p in ("received", "copied", "list-written", "list-named")),
    *(f"source.{p}" for p in ("version-written", "repository-made")),
    *(f"layout.{p}" for p in ("file-written", "file-named")),
    *(f"push.{p}" for p in ("blobs-sent", "manifest-sent")),
    "image.base-written",
)

# Points with a test of their own: with other flags, without containers, of builds, of a repair, of the registry.
ELSEWHERE = (
    "overlay.owners-mapped",  # test_copied_roots.py
    "monitor.log-rotated",
    "daemon.networks-down",
    "vfs.copied",
    "registry.upload-sync",
    "build.cache-layers-synced",
    "build.cache-written",
    *BUILDS,
    *WHOLE_BUILDS,
    *REPAIRS,
)
