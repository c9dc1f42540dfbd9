"""``python -m ketch.daemon`` is ``ketchd``."""

from ketch.daemon.main import main

main()
