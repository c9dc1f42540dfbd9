"""``--change`` of commit and import: every instruction, with dockerd's results and sentences."""

from __future__ import annotations

import pytest

from tests.support.rawapi import Api

# Of a container with A=1, B="b c", PATH=/p and the command `sh`: what the instruction makes of the field.
DONE = [
    ("ENV PATH=/x:$PATH", "Env", ["A=1", "B=b c", "PATH=/x:/p"]),
    ("ENV X=${A}y Y=\"$A $B\" Z='$A'", "Env", ["A=1", "B=b c", "X=1y", "Y=1 b c", "Z=$A"]),
    ("ENV X=\\$A", "Env", ["A=1", "B=b c", "X=$A"]),
    ("ENV X=${NOPE:-def} Y=${A:+alt} Z=${NOPE}", "Env", ["A=1", "B=b c", "X=def", "Y=alt", "Z="]),
    ("ENV X=${A#1} Y=${B%c} Z=${B/b/z}", "Env", ["A=1", "B=b c", "X=", "Y=b ", "Z=z c"]),
    ("ENV X=1 Y=$X", "Env", ["A=1", "B=b c", "X=1", "Y="]),
    ("ENV X=1\n# a comment\nenv Y=$X \\\n\n Z=2", "Env", ["A=1", "B=b c", "X=1", "Y=1", "Z=2"]),
    ("ENV X $A and more", "Env", ["A=1", "B=b c", "X=1 and more"]),
    ("ENV\tX=$$ A=2 $A=x Y=$", "Env", ["A=2", "B=b c", "X=", "1=x", "Y=$"]),
    ("LABEL a=$A $A=x", "Labels", {"a": "1", "1": "x"}),
    ("EXPOSE 80/TCP 0 $A 8080:81 127.0.0.1:82:82", "ExposedPorts", ["0/tcp", "1/tcp", "80/tcp", "81/tcp", "82/tcp"]),
    ("CMD", "Cmd", ["/bin/sh", "-c"]),
    ("CMD []", "Cmd", ["sh"]),
    ("CMD echo $A", "Cmd", ["/bin/sh", "-c", "echo $A"]),
    ("ENTRYPOINT x y", "Cmd", None),
    ("CMD a\nENTRYPOINT x", "Cmd", ["/bin/sh", "-c", "a"]),
    ("ENTRYPOINT []", "Cmd", ["sh"]),
    ("WORKDIR /a/../b/\nWORKDIR $A", "WorkingDir", "/b/1"),
    ("USER $A:x", "User", "1:x"),
    ("VOLUME $A /c", "Volumes", ["/c", "1"]),
    ("STOPSIGNAL 99", "StopSignal", "99"),
    ("ONBUILD   run  x", "OnBuild", ["run  x"]),
    ("HEALTHCHECK --interval=5s NONE", "Healthcheck", {"Test": ["NONE"]}),
    ("HEALTHCHECK --interval=0 --retries=0 CMD x", "Healthcheck", {"Test": ["CMD-SHELL", "x"]}),
]
REFUSED = [
    ("ENV X=${NOPE:?why}", 'failed to process "${NOPE:?why}": NOPE: why'),
    ("ENV X=${A", 'failed to process "${A": unsupported modifier (\ufffd) in substitution'),
    ("ENV X=${}", 'failed to process "${}": syntax error: bad substitution'),
    (
        'ENV X="unclosed',
        'failed to process "\\"unclosed": unexpected end of statement while looking for matching double-quote',
    ),
    ("ENV X", "ENV must have two arguments"),
    ("ENV =x", "ENV names can not be blank"),
    ("ENV X=1 Y", 'Syntax error - can\'t find = in "Y". Must be of the form: name=value'),
    ("ENV --x=y", "unknown flag: --x"),
    ("LABEL a", "LABEL must have two arguments"),
    ("EXPOSE 70000", "Invalid containerPort: 70000"),
    ("EXPOSE 80/foo", "Invalid proto: foo"),
    ("EXPOSE", "EXPOSE requires at least one argument"),
    ('CMD ["a",1]', "when using JSON array syntax, arrays must be comprised of strings only"),
    ("WORKDIR", "WORKDIR requires exactly one argument"),
    ('VOLUME [""]', "VOLUME specified can not be an empty string"),
    ("VOLUME []", "VOLUME requires at least one argument"),
    ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
    ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK true", 'Unknown type "TRUE" in HEALTHCHECK (try CMD)'),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
    ("HEALTHCHECK --interval=1 CMD x", 'time: missing unit in duration "1"'),
    ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ("HEALTHCHECK --interval 5s CMD x", "missing a value on flag: --interval"),
    ("foo x", "foo is not a valid change command"),
    ("RUN x", "RUN is not a valid change command"),
    ("# nothing", "file with no instructions"),
]


@pytest.fixture
def base(engine):
    api = Api(engine.socket)
    body = {"Image": "busybox", "Cmd": ["sh"], "Env": ["A=1", "B=b c", "PATH=/p"]}
    assert api("POST", "/containers/create", body, name="base")[0] == 201
    yield api
    api("DELETE", "/images/changed:1", force=1)


def test_instructions(base):
    for change, field, expected in DONE:
        status, answer = base("POST", "/commit", container="base", repo="changed", tag="1", changes=change)
        assert status == 201, (change, answer)
        value = base("GET", "/images/changed:1/json")[1]["Config"].get(field)
        if isinstance(expected, list) and isinstance(value, dict):
            value = sorted(value)
        elif field == "Env":
            value = [item for item in value if item != "PATH=/p"]
        assert value == expected, change
    for change, sentence in REFUSED:
        status, answer = base("POST", "/commit", container="base", repo="changed", tag="1", changes=change)
        assert (status, answer["message"]) == (400, sentence), change


def test_instructions_of_an_import(engine, base):
    status, answer = base(
        "POST", "/images/create", bytes(1024), fromSrc="-", repo="changed", tag="1", changes="ENV X=1\nENV Y=${X}2"
    )
    assert status == 200, answer
    assert base("GET", "/images/changed:1/json")[1]["Config"]["Env"] == ["X=1", "Y=12"]
