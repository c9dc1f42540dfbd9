from ketch import aio as aio
from ketch.aio.options import Bind as Bind
from ketch.aio.options import BoxOptions as BoxOptions
from ketch.aio.options import ProgramOptions as ProgramOptions
from ketch.aio.options import RunOptions as RunOptions
from ketch.aio.options import StartOptions as StartOptions
from ketch.aio.options import Tmpfs as Tmpfs
from ketch.aio.options import Volume as Volume
from ketch.aio.results import CommandFailed as CommandFailed
from ketch.aio.results import Image as Image
from ketch.aio.results import Logs as Logs
from ketch.aio.results import ProgramError as ProgramError
from ketch.aio.results import Result as Result
from ketch.aio.results import TimedOut as TimedOut
from ketch.aio.results import TooMuchOutput as TooMuchOutput
from ketch.aio.results import Usage as Usage
from ketch.aio.streams import Chunk as Chunk
from ketch.blocking.containers import Container as Container
from ketch.blocking.engine import Engine as Engine
from ketch.blocking.engine import connect as connect
from ketch.blocking.engine import default as default
from ketch.blocking.engine import run as run
from ketch.blocking.processes import Output as Output
from ketch.blocking.processes import Process as Process
from ketch.errors import KetchError as KetchError

__version__: str
