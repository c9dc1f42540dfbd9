"""The catalog of commands: name → ``module:function`` below ``ketch.cli.commands``, and the groups of commands.

Nothing is imported before it is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cli.context import Context

COMMANDS: dict[str, str] = {
    "attach": "containers.attach:cmd_attach",
    "build": "builds.build:cmd_build",
    "commit": "containers.commit:cmd_commit",
    "completion": "system.completion:cmd_completion",
    "cp": "containers.cp:cmd_cp",
    "create": "containers.run:cmd_create",
    "diff": "containers.commit:cmd_diff",
    "events": "system.events:cmd_events",
    "exec": "containers.exec:cmd_exec",
    "export": "containers.commit:cmd_export",
    "history": "images.images:cmd_history",
    "images": "images.images:cmd_images",
    "import": "images.archives:cmd_import",
    "import-docker": "system.import_docker:cmd_import_docker",
    "info": "system.info:cmd_info",
    "inspect": "system.inspect:cmd_inspect",
    "kill": "containers.lifecycle:cmd_kill",
    "load": "images.archives:cmd_load",
    "login": "images.registries:cmd_login",
    "logout": "images.registries:cmd_logout",
    "logs": "containers.logs:cmd_logs",
    "pause": "containers.lifecycle:cmd_pause",
    "port": "containers.top:cmd_port",
    "ps": "containers.ps:cmd_ps",
    "pull": "images.registries:cmd_pull",
    "push": "images.registries:cmd_push",
    "rename": "containers.lifecycle:cmd_rename",
    "restart": "containers.lifecycle:cmd_restart",
    "rm": "containers.lifecycle:cmd_rm",
    "rmi": "images.images:cmd_rmi",
    "run": "containers.run:cmd_run",
    "save": "images.archives:cmd_save",
    "search": "images.registries:cmd_search",
    "start": "containers.start:cmd_start",
    "stats": "containers.stats:cmd_stats",
    "stop": "containers.lifecycle:cmd_stop",
    "tag": "images.images:cmd_tag",
    "top": "containers.top:cmd_top",
    "ui": "system.ui:cmd_ui",
    "unpause": "containers.lifecycle:cmd_unpause",
    "update": "containers.update:cmd_update",
    "version": "system.version:cmd_version",
    "wait": "containers.lifecycle:cmd_wait",
}
_CONTAINER = (
    "attach commit cp create diff exec export inspect kill logs pause port rename restart rm run start stats stop top "
    "unpause update wait"
)
GROUPS: dict[str, dict[str, str]] = {
    "container": {
        **{n: COMMANDS[n] for n in _CONTAINER.split()},
        "ls": "containers.ps:cmd_ps",
        "list": "containers.ps:cmd_ps",
        "ps": "containers.ps:cmd_ps",
        "prune": "system.prune:cmd_containers",
        "inspect": "system.inspect:cmd_container",
    },
    "image": {
        "inspect": "system.inspect:cmd_image",
        **{n: COMMANDS[n] for n in ("build", "history", "import", "load", "pull", "push", "save", "tag")},
        "ls": "images.images:cmd_images",
        "list": "images.images:cmd_images",
        "rm": "images.images:cmd_rmi",
        "bootstrap": "images.archives:cmd_bootstrap",
        "prune": "system.prune:cmd_images",
    },
    "builder": {
        "build": COMMANDS["build"],
        "du": "builds.cache:cmd_du",
        "prune": "builds.cache:cmd_prune",
        "history": "builds.history:cmd_history",
    },
    "system": {
        "info": COMMANDS["info"],
        "events": COMMANDS["events"],
        "df": "system.df:cmd_df",
        "prune": "system.prune:cmd_system",
        "dial-stdio": "system.dial_stdio:cmd_dial_stdio",
    },
    "manifest": {
        "inspect": "images.manifest:cmd_inspect",
        "create": "images.manifest:cmd_create",
        "annotate": "images.manifest:cmd_annotate",
        "push": "images.manifest:cmd_push",
        "rm": "images.manifest:cmd_rm",
    },
    "context": {
        "create": "contexts:cmd_create",
        "export": "contexts:cmd_export",
        "import": "contexts:cmd_import",
        "inspect": "contexts:cmd_inspect",
        "ls": "contexts:cmd_ls",
        "list": "contexts:cmd_ls",
        "rm": "contexts:cmd_rm",
        "show": "contexts:cmd_show",
        "update": "contexts:cmd_update",
        "use": "contexts:cmd_use",
    },
    "daemon": {
        "start": "system.daemon:cmd_start",
        "stop": "system.daemon:cmd_stop",
        "status": "system.daemon:cmd_status",
        "run": "system.daemon:cmd_run",
        "repair": "system.daemon:cmd_repair",
    },
    "registry": {
        "serve": "system.registry:cmd_serve",
        "gc": "system.registry:cmd_gc",
        "htpasswd": "system.registry:cmd_htpasswd",
    },
    "volume": {
        "ls": "volumes:cmd_ls",
        "create": "volumes:cmd_create",
        "inspect": "volumes:cmd_inspect",
        "rm": "volumes:cmd_rm",
        "prune": "system.prune:cmd_volumes",
        "backup": "volumes:cmd_backup",
        "restore": "volumes:cmd_restore",
    },
    "network": {
        "ls": "networks:cmd_ls",
        "list": "networks:cmd_ls",
        "inspect": "networks:cmd_inspect",
        "create": "networks:cmd_create",
        "rm": "networks:cmd_rm",
        "connect": "networks:cmd_connect",
        "disconnect": "networks:cmd_disconnect",
        "prune": "system.prune:cmd_networks",
        "repair": "networks:cmd_repair",
    },
}

GROUP_SUMMARIES = {
    "builder": "Manage builds",
    "container": "Manage containers",
    "context": "Manage contexts: names for daemons",
    "daemon": "Manage the daemon of this machine",
    "image": "Manage images",
    "manifest": "Manage indexes of images in registries",
    "network": "Manage networks",
    "registry": "Manage a registry of one's own",
    "system": "Manage Ketch",
    "volume": "Manage volumes",
}
_HELP = ("help", "--help", "-h")
# What a shell asks while a command line is typed: no command for people.
_COMPLETE = "__complete"


def find(args: list[str]) -> tuple[str | None, str, list[str]]:
    """Find a command: (``module:function``, command, its arguments); InvalidArgument when there is none of the name.

    Without ``module:function`` help is wanted on the words that stand in place of the arguments.
    """
    if not args:
        return None, "", []
    name = args[0]
    if name in COMMANDS:
        return COMMANDS[name], name, args[1:]
    group = GROUPS.get(name)
    if group and len(args) > 1 and args[1] in group:
        return group[args[1]], args[1], args[2:]
    if name in _HELP:
        return None, "", args[1:]
    if group and (not args[1:] or args[1] in _HELP):
        return None, "", args[:1]
    if name == _COMPLETE:
        return "system.completion:cmd_complete", name, args[1:]
    from ketch.cli.errors import UsageError
    from ketch.errors import InvalidArgument

    if group and args[1].startswith("-"):
        raise UsageError(f"unknown flag: {args[1]}", hint=f"see: ketch {name} --help")
    if group:
        raise InvalidArgument(f"`{name} {args[1]}` is not a ketch command", hint=f"see: ketch {name} --help")
    raise InvalidArgument(f"`{name}` is not a ketch command", hint="see: ketch --help")


def load(target: str) -> Callable[[list[str], Context], int]:
    """Import a command's function."""
    module, _, function = target.partition(":")
    action: Callable[[list[str], Context], int] = getattr(
        __import__(f"ketch.cli.commands.{module}", fromlist=[function]), function
    )
    return action
