"""Settings that a running daemon takes over from its file at SIGHUP, as dockerd does."""

from __future__ import annotations

import copy
import logging
import os
from typing import TYPE_CHECKING

from ketch.daemon.settings import registries as registry_settings
from ketch.daemon.settings import runtimes as runtime_settings
from ketch.daemon.settings.load import load
from ketch.errors import KetchError
from ketch.notation import documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.daemon.settings.config import Config
    from ketch.engine.engine import Engine

log = logging.getLogger("ketchd")
TAKEN = (
    "default_runtime",
    "insecure_registries",
    "labels",
    "live_restore",
    "log_level",
    "registry_mirrors",
    "runtimes",
    "shutdown_timeout",
)


class Reload:
    """A reload, to be called with each SIGHUP; ``config`` is what the daemon was started with."""

    def __init__(self, config: Config, engine: Engine, argv: Sequence[str]) -> None:
        self._config, self._engine, self._argv = config, engine, argv
        try:  # as they were written: the daemon has worked out some of its own
            self._last = load(list(argv))
        except (KetchError, OSError):  # the file has changed since
            self._last = copy.copy(config)

    def __call__(self) -> None:
        """Read the settings again, and take over `TAKEN` of them into the configuration and the engine.

        What has changed besides is named in the log.  Settings with a mistake change nothing.
        """
        try:
            wanted = load(list(self._argv))
            registries, runtimes = registry_settings.remotes(wanted), runtime_settings.build(wanted)
        except (KetchError, OSError) as e:
            log.error("read the settings again: %s; they stay as they are", e)
            return
        for name in TAKEN:
            setattr(self._config, name, getattr(wanted, name))
        logging.getLogger().setLevel(wanted.level)
        self._engine.system.labels[:] = wanted.labels
        self._engine.parts.registries.change(registries)
        self._engine.parts.runtimes.change(runtimes)
        self._tell(wanted)
        self._last = wanted

    def _tell(self, wanted: Config) -> None:
        others = [name for name in vars(wanted) if name not in (*TAKEN, "notes")]
        changed = [name.replace("_", "-") for name in others if getattr(wanted, name) != getattr(self._last, name)]
        if changed:
            log.warning("settings that count at ketchd's next start have changed: %s", ", ".join(changed))
        log.info("the settings were read again")
        values = {name.replace("_", "-"): _text(getattr(wanted, name)) for name in TAKEN}
        engine_id = self._engine.system.engine_id
        self._engine.events.publish("daemon", "reload", engine_id, {"name": os.uname().nodename, **values})


def _text(value: object) -> str:
    return value if isinstance(value, str) else documents.dumps(value)
