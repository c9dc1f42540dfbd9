"""Owners and modes of files as COPY, ADD and WORKDIR take them."""

from __future__ import annotations

import re

from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.llb import ops_pb2 as pb
from ketch.notation import digits

_LARGEST = (1 << 32) - 1
_HIGHEST_MODE = 0o7777
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*", re.ASCII)


def chown(text: str) -> pb.ChownOpt:
    """``USER[:GROUP]``, each a name or a number."""
    user, colon, group = text.partition(":")
    return pb.ChownOpt(user=_one(user), group=_one(group) if colon else None)


def _one(text: str) -> pb.UserOpt:
    number = digits.whole(text, _LARGEST)
    if number is not None:
        return pb.UserOpt(byID=number)
    return pb.UserOpt(byName=pb.NamedUserOpt(name=text))


def set_mode(action: pb.FileActionCopy, text: str) -> None:
    """Set the mode of copied files: octal, or symbolic as chmod's (DockerfileError); nothing leaves the source's."""
    if not text:
        action.mode = -1
    elif re.fullmatch("[0-7]{1,12}", text):
        action.mode = int(text, 8)
        if action.mode > _HIGHEST_MODE:
            raise _not_octal(text)
    elif _SYMBOLIC.fullmatch(text):
        action.modeStr = text
    elif re.fullmatch(r"[+-]?\d+", text):
        raise _not_octal(text)
    else:
        raise DockerfileError("invalid syntax", word=text, hint=f"{text} is no mode: use e.g. 755 or u+x")


def _not_octal(text: str) -> DockerfileError:
    return DockerfileError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777", word=text
    )
