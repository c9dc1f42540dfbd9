"""``python -m ketch.daemon.apart`` is ``ketchd`` as nobody's child: its pid is said on the standard output, which ends.

Who starts it need not wait for its end, as for a child of its own.
"""

import os


def leave() -> None:
    """Go on in a child of this process, which ends."""
    if pid := os.fork():
        os.write(1, b"%d" % pid)
        os._exit(0)
    os.dup2(2, 1)


if __name__ == "__main__":
    leave()  # before anything else is imported, which may have threads

    from ketch.daemon.main import main

    main()
