"""``python -m ketch.registry``: the program behind ``ketch registry``."""

from __future__ import annotations

import asyncio
import logging
import sys

from ketch import stdio
from ketch.errors import KetchError


def main(argv: list[str]) -> int:
    """Carry out one command; returns the exit code."""
    from ketch.registry import settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        with stdio.Collected():
            options = settings.load(argv)
        if options.command == "htpasswd":
            return _htpasswd(options.user, options.cost)
        from ketch.registry import serve

        if options.command == "serve":
            return serve.main(options, argv)
        return asyncio.run(_collect(options))
    except KetchError as e:
        sys.stderr.write(f"ketch: {e.message}\n" + (f"  {e.hint}\n" if e.hint else ""))
        return 1
    except stdio.OutputError as e:
        sys.stderr.write(f"ketch: {e}\n")
        return 1
    except KeyboardInterrupt:
        return 130


async def _collect(options: object) -> int:
    import msgspec

    from ketch.registry import gc, serve
    from ketch.registry.repositories import Repositories

    objects = serve.store(options)  # type: ignore[arg-type]
    try:
        collector = gc.Collector(Repositories(objects), options.gc_grace, untagged=options.delete_untagged)  # type: ignore[attr-defined]
        stdio.write(msgspec.json.encode(await collector.run()).decode() + "\n")
    finally:
        await objects.close()
    return 0


def _htpasswd(user: str, cost: int) -> int:
    import getpass

    import bcrypt

    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    stdio.write(f"{user}:{bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()}\n")
    return 0


if __name__ == "__main__":
    stdio.prepare()
    sys.exit(main(sys.argv[1:]))
