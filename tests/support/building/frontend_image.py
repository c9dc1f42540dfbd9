"""An image with a front end of our own: this Python, the modules that it needs, and `frontend_program`."""

from __future__ import annotations

import glob
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile

import ketch

LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages", "__pycache__"}
PACKAGES = ("google", "msgspec", "hpack", "zstandard", "isal")
PATH = "/front"
COMMAND = ["/front/python", "/front/program.py"]
ENVIRONMENT = [f"PYTHONPATH={PATH}/packages", f"PYTHONHOME={PATH}/home", "PYTHONDONTWRITEBYTECODE=1"]


def archive() -> bytes:
    """The tar of its root filesystem."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        executable = os.path.realpath(sys.executable)
        tar.add(executable, f"{PATH}/python")
        packages = [directory for name in PACKAGES for path in sys.path if os.path.isdir(directory := f"{path}/{name}")]
        places = [sysconfig.get_config_var("DESTSHARED"), *packages]
        modules = [path for place in places for path in glob.glob(f"{place}/**/*.so", recursive=True)]
        for library in _libraries(executable, *modules):
            tar.add(os.path.realpath(library), library)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        _add(tar, sysconfig.get_path("stdlib"), f"{PATH}/home/lib/{version}")
        for directory in packages:
            _add(tar, directory, f"{PATH}/packages/{os.path.basename(directory)}")
        _add(tar, os.path.dirname(ketch.__file__), f"{PATH}/packages/ketch")
        tar.add(os.path.join(os.path.dirname(__file__), "frontend_program.py"), f"{PATH}/program.py")
        for name in ("proc", "sys", "dev", "tmp"):
            info = tarfile.TarInfo(f"/{name}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
    return made.getvalue()


def _add(tar: tarfile.TarFile, source: str, target: str) -> None:
    def kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if os.path.basename(info.name) in LEFT_OUT or info.name.endswith(".a") else info

    tar.add(source, target, filter=kept)


def _libraries(*programs: str) -> list[str]:
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"(?:=>\s+|^\s+)(/\S+) \(", listed, re.MULTILINE)
    return list(dict.fromkeys(found))
