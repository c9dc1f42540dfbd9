"""``python -m ketch.daemon`` is ``ketchd``."""

from ketch import stdio

stdio.prepare()  # before anything is imported that may open files

from ketch.daemon.main import main  # noqa: E402

main()
