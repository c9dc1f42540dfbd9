from ketch.aio.containers import Container as Container
from ketch.aio.engine import Engine as Engine
from ketch.aio.engine import connect as connect
from ketch.aio.engine import default as default
from ketch.aio.engine import run as run
from ketch.aio.processes import Output as Output
from ketch.aio.processes import Process as Process
