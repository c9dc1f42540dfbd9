"""Changes of a container that wait for its next start: environment, published ports, mounts.

    update ──► change ──► container.pending ──► apply (at a start): the configuration is another one
                              ▲                     └──► take_back, when the start fails
                              └──────────────────────────────┘

What waits is kept as the values that the fields of the configuration will have, not as the steps that lead to them: a
change of the limits, or of the networks, in the meantime is not undone by it.  Labels have no bearing on a process and
change at once.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.engine.containers import snapshot_work, validate
from ketch.engine.model.namespace_mode import ModeKind
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, Mount, MountPoint, PortBinding, Wire
from ketch.engine.spec import bundle
from ketch.engine.volumes import container_volumes, idmaps, mount_plan
from ketch.engine.volumes.mount_spec import check_target, parse_bind
from ketch.errors import InvalidArgument, KetchError
from ketch.images.single_flight import run_uncancellable
from ketch.network.ports import requests

if TYPE_CHECKING:
    from ketch.engine.parts import Context
    from ketch.undo import AsyncUndo

Strings = list[str]
Points = list[MountPoint]
Ports = dict[str, list[PortBinding] | None]


class Changes(Wire):
    """``Changes`` in the body of ``update``: first things are taken away, then others are added.

    A variable or label replaces the one of its name, a mount the one at its place; a binding is one more binding of its
    port.  Ports to take away are ``80/tcp`` with the bindings meant, or with none: all of them.
    """

    env: Strings | None = None
    env_remove: Strings | None = None
    labels: dict[str, str] | None = None
    labels_remove: Strings | None = None
    port_bindings: Ports | None = None
    port_bindings_remove: Ports | None = None
    binds: Strings | None = None
    volumes: dict[str, Any] | None = None
    mounts: list[Mount] | None = None
    mounts_remove: Strings | None = None


class Pending(Wire):
    """The values that fields will have, None where nothing changes; ``mount_points`` are ``Container.mounts``."""

    env: Strings | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    port_bindings: Ports | None = None
    binds: Strings | None = None
    mounts: list[Mount] | None = None
    tmpfs: dict[str, str] | None = None
    mount_points: Points | None = None


_CONFIG = ("env", "exposed_ports", "volumes")
_HOST = ("port_bindings", "binds", "mounts", "tmpfs")


def of(container: Container) -> Pending:
    """What waits for the container's next start."""
    return msgspec.convert(container.pending or {}, Pending)


def mount_points(container: Container) -> Points:
    """The mounts that a container has or will have: what they need must stay."""
    return [*container.mounts, *(of(container).mount_points or ())] if container.pending else container.mounts


def shown(container: Container) -> dict[str, Any] | None:
    """``Pending`` in an inspect answer: the fields that will be others; None without any."""
    if not container.pending:
        return None
    names = {"MountPoints"}
    return {name: value for name, value in container.pending.items() if value is not None and name not in names}


def apply(ctx: Context, container: Container) -> Pending | None:
    """Give a container that is about to start what waits for it; returns what it had, for `take_back`.

    The record is saved as it will be: a daemon that dies in the middle of the start leaves the new configuration.
    """
    if not container.pending:
        return None
    waiting = container.pending
    before = _exchange(container, of(container))
    container.pending = None
    try:
        ctx.store.save(container)
    except BaseException:
        _exchange(container, before)
        container.pending = waiting
        raise
    return before


def take_back(ctx: Context, container: Container, before: Pending | None, why: BaseException) -> None:
    """The start failed: the old configuration stays, and what was to be waits again."""
    if before is None:
        return
    container.pending = stored(_exchange(container, before))
    ctx.store.save(container)
    if isinstance(why, KetchError) and why.hint is None:
        why.hint = f"changes wait for its start; drop them with: ketch update --pending-reset {container.name}"


def _exchange(container: Container, new: Pending) -> Pending:
    """Set the fields that ``new`` has; returns the values that they had."""
    old = Pending()
    for name in Pending.__struct_fields__:
        value = getattr(new, name)
        if value is None:
            continue
        owner: Any = container.config if name in _CONFIG else container.host if name in _HOST else container
        attribute = "mounts" if name == "mount_points" else name
        setattr(old, name, getattr(owner, attribute) or type(value)())
        setattr(owner, attribute, value)
    return old


def stored(pending: Pending) -> dict[str, Any] | None:
    """As the record of a container has it; None when nothing waits."""
    values: dict[str, Any] = msgspec.to_builtins(pending)
    return {name: value for name, value in values.items() if value is not None} or None


async def reset(ctx: Context, container: Container) -> None:
    """Forget what waits, with the anonymous volumes that were made for it."""
    points = of(container).mount_points or []
    container.pending = None
    kept = {point.name for point in container.mounts}
    await container_volumes.remove_anonymous(ctx, _with(container, mounts=[p for p in points if p.name not in kept]))


async def change(ctx: Context, container: Container, wanted: Changes, undo: AsyncUndo) -> None:
    """Check what is wanted and let it wait, or (labels) do it; ``undo`` takes it back (InvalidArgument, NotFound …)."""
    before, labels = container.pending, container.config.labels
    new = _copy(container)
    new.config.env = _environment(new.config.env or [], wanted)
    _publish(ctx, new, wanted)
    await _mount(ctx, new, wanted, undo)
    validate.check(new.config, new.host)
    requests.requests(_plain(new.host.port_bindings), new.config.exposed_ports, new.host.publish_all_ports)
    bundle.build(new, "/", "/", lambda _ref, _kind: "")
    undo.callback(setattr, container, "pending", before)
    container.pending = _difference(container, new)
    undo.callback(setattr, container.config, "labels", labels)
    container.config.labels = _labels(labels or {}, wanted)


def _copy(container: Container) -> Container:
    """The container as it will be after its next start; what changes in it changes nothing in the original."""
    new = _with(
        container, config=msgspec.structs.replace(container.config), host=msgspec.structs.replace(container.host)
    )
    new.mounts = list(container.mounts)
    _exchange(new, of(new))
    return new


def _with(container: Container, **values: Any) -> Container:
    return msgspec.structs.replace(container, **values)


def _difference(old: Container, new: Container) -> dict[str, Any] | None:
    result = Pending()
    for name in Pending.__struct_fields__:
        attribute = "mounts" if name == "mount_points" else name
        owners: tuple[Any, Any] = (old, new)
        if name in _CONFIG:
            owners = (old.config, new.config)
        elif name in _HOST:
            owners = (old.host, new.host)
        was, becomes = (getattr(owner, attribute) for owner in owners)
        if (was or None) != (becomes or None):
            setattr(result, name, becomes if becomes is not None else type(was)())
    return stored(result)


def _environment(env: Strings, wanted: Changes) -> Strings:
    result = list(env)
    for name in wanted.env_remove or ():
        if not any(item.partition("=")[0] == name for item in result):
            raise InvalidArgument(f"remove environment variable {name}: the container has none of this name")
        result = [item for item in result if item.partition("=")[0] != name]
    added: Strings = []  # in front of what the image brings, as at the creation
    for item in wanted.env or ():
        name, equals, _ = item.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"invalid environment variable: {item}", hint="write NAME=VALUE")
        places = [i for i, one in enumerate(result) if one.partition("=")[0] == name]
        if places:
            result = [one for i, one in enumerate(result) if i not in places[1:]]
            result[places[0]] = item
        else:
            added.append(item)
    return added + result


def _labels(labels: dict[str, str], wanted: Changes) -> dict[str, str]:
    removed = set(wanted.labels_remove or ())
    return {**{key: value for key, value in labels.items() if key not in removed}, **(wanted.labels or {})}


# -- ports ---------------------------------------------------------------------------------------


def _publish(ctx: Context, new: Container, wanted: Changes) -> None:
    bindings = {_port(port): list(bound or ()) for port, bound in (new.host.port_bindings or {}).items()}
    exposed = dict(new.config.exposed_ports or {})
    config = ctx.images.resolve(new.image_id).config.config
    for key, chosen in (wanted.port_bindings_remove or {}).items():
        port = _port(key)
        gone = [b for b in bindings.get(port, ()) if not chosen or b in chosen]
        if not gone or (chosen and len(gone) < len(chosen)):
            raise InvalidArgument(f"remove published port {key}: the container does not publish it so")
        bindings[port] = [b for b in bindings[port] if b not in gone]
        if not bindings[port]:
            del bindings[port]
            if port not in ((config.exposed_ports if config else None) or {}):
                exposed.pop(port, None)
    for key, chosen in (wanted.port_bindings or {}).items():
        first, last, proto = requests.parse_port_key(key)
        if first != last:
            raise InvalidArgument(f"publish {key}: give each port of a range by itself")
        port = f"{first}/{proto}"
        exposed.setdefault(port, {})
        bindings.setdefault(port, []).extend(b for b in chosen or [PortBinding()] if b not in bindings[port])
    if wanted.port_bindings and new.host.network.kind is not ModeKind.NETWORK:
        raise InvalidArgument(
            f"publish ports of `{new.name}`: it has no network of its own (--network {new.host.network_mode})"
        )
    if wanted.port_bindings or wanted.port_bindings_remove:
        new.host.port_bindings = dict(bindings)
        new.config.exposed_ports = exposed


def _port(key: str) -> str:
    first, last, proto = requests.parse_port_key(key)
    return f"{first}/{proto}" if first == last else f"{first}-{last}/{proto}"


def _plain(bindings: Ports | None) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(bindings or {})
    return plain


# -- mounts --------------------------------------------------------------------------------------


async def _mount(ctx: Context, new: Container, wanted: Changes, undo: AsyncUndo) -> None:
    """Plan the new mounts as a creation does; volumes that are made for them go when ``undo`` is called."""
    removed = [check_target(target, target) for target in wanted.mounts_remove or ()]
    tmpfs = dict(new.host.tmpfs or {})
    there = {point.destination for point in new.mounts} | {check_target(t, t) for t in tmpfs}
    for target in removed:
        if target not in there:
            raise InvalidArgument(f"remove mount {target}: nothing is mounted there", hint="see: ketch inspect")
    if not (removed or wanted.binds or wanted.volumes or wanted.mounts):
        return
    volumes: dict[str, Any] = {target: {} for target in wanted.volumes or ()}
    fresh = _with(new, mounts=[], config=ContainerConfig(volumes=volumes))
    # The volumes of a container that runs are in use under its own id.
    fresh.id = f"{new.id}-pending"
    fresh.host = HostConfig(binds=wanted.binds, mounts=wanted.mounts, volume_driver=new.host.volume_driver)
    known = {volume.name for volume in ctx.volumes.list()}
    undo.push_async_callback(_remove_made, ctx, fresh, known)
    view = functools.partial(container_volumes.image_view, ctx)
    mount_plan.plan(fresh.config, fresh.host, ctx.volumes, fresh.mounts, (), view, new.id)
    chains = ctx.images.resolve(new.image_id).chain_ids
    await snapshot_work.whole(ctx.snapshots, idmaps.resolve, ctx.snapshots, chains, new.config.user, fresh.mounts)
    if any(point.type == "volume" for point in fresh.mounts):
        await run_uncancellable(container_volumes.populate, ctx, fresh, chains)
    for point in fresh.mounts:
        if point.type == "volume" and point.name not in known:
            ctx.events.publish("volume", "create", point.name, {"driver": point.driver})
    gone = {*removed, *(point.destination for point in fresh.mounts)}
    _forget(new, tmpfs, gone)
    new.host.binds = [*(new.host.binds or ()), *(wanted.binds or ())]
    new.host.mounts = [*(new.host.mounts or ()), *(wanted.mounts or ())]
    new.config.volumes = {**(new.config.volumes or {}), **volumes}
    new.mounts = sorted([*new.mounts, *fresh.mounts], key=lambda point: point.destination.count("/"))


def _forget(new: Container, tmpfs: dict[str, str], gone: set[str]) -> None:
    """Take the mounts at these places out of everything that speaks of them."""
    new.host.tmpfs = {target: words for target, words in tmpfs.items() if check_target(target, target) not in gone}
    new.host.binds = [spec for spec in new.host.binds or () if parse_bind(spec).destination not in gone]
    new.host.mounts = [m for m in new.host.mounts or () if check_target(m.target, m.target) not in gone]
    new.config.volumes = {t: v for t, v in (new.config.volumes or {}).items() if check_target(t, t) not in gone}
    new.mounts = [point for point in new.mounts if point.destination not in gone]


async def _remove_made(ctx: Context, fresh: Container, known: set[str]) -> None:
    for point in fresh.mounts:
        if point.type == "volume" and point.name not in known and ctx.volumes.has(point.name):
            await ctx.volumes.remove(point.name)
            ctx.events.publish("volume", "destroy", point.name, {"driver": point.driver})
