"""Statements as typed instructions, and what dockerd 28.5.2 says of wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.dockerfile import parser, stages
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.instructions import read
from ketch.build.dockerfile.instructions.files import InlineFile
from ketch.build.dockerfile.instructions.mounts import RunDevice, RunMount
from tests.support.dockerfiles import CORPUS


def instruction(text):
    return read.instruction(parser.parse(text).statements[0])


def fields(text):
    one = instruction(text)
    return {name: getattr(one, name) for name in one.__struct_fields__ if name != "statement"}


# What dockerd 28.5.2 says, on "docker buildx build --check", of FROM scratch and a second line.
PARSE_ERRORS = r"""
COPY --frm=a b c|unknown flag: --frm (did you mean from?)|--frm
COPY --from b c|missing a value on flag: --from|--from
COPY --link=maybe b c|expecting boolean value for flag --link, not: maybe|--link=maybe
COPY --link= b c|missing a value on flag: --link|--link=
COPY --from=a --from=b c d|duplicate flag specified: --from|--from=b
COPY a|COPY requires at least two arguments, but only one was provided. Destination could not be determined|
COPY|COPY requires at least two arguments, but only one was provided. Destination could not be determined|
ADD --from=x a b|unknown flag: --from|--from
RUN --network=x a|invalid network mode "x"|x
RUN --device=a,b,c true|invalid field 'b' must be a key=value pair|b
RUN --mount=type=bind,from=$a,target=/x a|'from' doesn't support variable expansion, define alias stage instead|$a
RUN --mount= a|failed to parse csv mounts: EOF|
SHELL a|SHELL requires the arguments to be in JSON form|
SHELL []|SHELL requires at least one argument|
ARG =x|ARG names can not be blank|
ENV =x|ENV names can not be blank|
FROM scratch AS 1x|invalid name for build stage: "1x", name can't start with a number or contain symbols|1x
FROM a b|FROM requires either one or three arguments|
ONBUILD FROM x|FROM isn't allowed as an ONBUILD trigger|FROM
ONBUILD ONBUILD RUN x|Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed|
ONBUILD|ONBUILD requires at least one argument|
HEALTHCHECK --intrval=1s CMD x|unknown flag: --intrval (did you mean interval?)|--intrval
HEALTHCHECK --interval=1 CMD x|time: missing unit in duration "1"|1
HEALTHCHECK --interval=1us CMD x|Interval "interval" cannot be less than 1ms|1us
HEALTHCHECK WHAT x|Unknown type "WHAT" in HEALTHCHECK (try CMD)|WHAT
HEALTHCHECK CMD|Missing command after HEALTHCHECK CMD|
HEALTHCHECK NONE x|HEALTHCHECK NONE takes no arguments|
HEALTHCHECK --retries=-1 CMD x|--retries cannot be negative (-1)|-1
HEALTHCHECK --retries=x CMD x|strconv.ParseInt: parsing "x": invalid syntax|x
VOLUME []|VOLUME requires at least one argument|
VOLUME [""]|VOLUME specified can not be an empty string|
EXPOSE|EXPOSE requires at least one argument|
USER|USER requires exactly one argument|
WORKDIR|WORKDIR requires exactly one argument|
STOPSIGNAL|STOPSIGNAL requires exactly one argument|
MAINTAINER|MAINTAINER requires exactly one argument|
copi a b|unknown instruction: copi (did you mean copy?)|copi
Frm x|unknown instruction: Frm (did you mean from?)|Frm
RUNN x|unknown instruction: RUNN (did you mean RUN?)|RUNN
WHATEVER x|unknown instruction: WHATEVER|WHATEVER
"""

MOUNT_ERRORS = r"""
type=bnd|unsupported mount type "bnd" (did you mean bind?)
type=cache,shring=x|unexpected key 'shring' in 'shring=x' (did you mean sharing?)
type=tmpfs,size=x,target=/y|invalid value for size: x
type=ssh,required=maybe|invalid value for required: maybe
type=bind,required|unexpected key 'required' for mount type 'bind'
type=cache,mode=9,target=/x|invalid value 9 for mode
type=cache,uid=-1,target=/x|invalid value -1 for uid
type=tmpfs,uid=1,target=/x|uid not allowed for "tmpfs" type mounts
type=secret|invalid secret mount. one of source, target required
type=secret,id=a,source=b|both source and id can't be set
type=bind,sharing=locked|invalid cache sharing set for bind mount
type=cache,sharing=lockd,target=/x|unsupported sharing value "lockd" (did you mean locked?)
foo,type=cache|invalid field 'foo' must be a key=value pair
type=cache,ro=maybe,target=/x|invalid value for ro: maybe
"""


def rows(table):
    return [line.split("|") for line in table.strip("\n").split("\n")]


@pytest.mark.parametrize(("line", "message", "word"), rows(PARSE_ERRORS))
def test_wrong_instructions(line, message, word):
    with pytest.raises(DockerfileError) as caught:
        stages.read(parser.parse(f"FROM scratch\n\n{line} \n"))
    assert str(caught.value) == f"dockerfile parse error on line 3: {message}"
    assert (caught.value.span, caught.value.word) == (Span(3, 3), word)


@pytest.mark.parametrize(("options", "message"), rows(MOUNT_ERRORS))
def test_wrong_mounts(options, message):
    with pytest.raises(DockerfileError) as caught:
        instruction(f"RUN --mount={options} a").mounts()
    assert str(caught.value) == message


@pytest.mark.parametrize("text", CORPUS)
def test_the_corpus_has_instructions_or_errors_with_lines(text):
    try:
        found = parser.parse(text)
    except DockerfileError as e:
        assert e.span
        return
    for statement in found.statements:
        try:
            assert read.instruction(statement).keyword in read.READERS
        except DockerfileError as e:
            assert e.span == statement.span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# b the base\nFROM --platform=$P a:1 AS B",
            {"base": "a:1", "name": "b", "platform": "$P", "description": "the base"},
        ),
        (
            "COPY --from=x --chown=1:2 --chmod=u+x --link --parents --exclude=a --exclude=b c d e/",
            {
                "sources": ["c", "d"],
                "inline": [],
                "destination": "e/",
                "chown": "1:2",
                "chmod": "u+x",
                "link": True,
                "exclude": ["a", "b"],
                "source_stage": "x",
                "parents": True,
            },
        ),
        (
            "ADD --checksum=sha256:0 --keep-git-dir --unpack=false a <<-E <<'F' b\n\tx\nE\ny\nF\n",
            {
                "sources": ["a"],
                "inline": [InlineFile("E", "x\n", True), InlineFile("F", "y\n", False)],
                "destination": "b",
                "chown": "",
                "chmod": "",
                "link": False,
                "exclude": [],
                "checksum": "sha256:0",
                "keep_git_dir": True,
                "unpack": False,
            },
        ),
        (
            'HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=2h --start-interval=1ms --retries=3 CMD ["a"]',
            {
                "test": ["CMD", "a"],
                "interval": 90 * 10**9,
                "timeout": 1_500_000_000,
                "start_period": 7200 * 10**9,
                "start_interval": 10**6,
                "retries": 3,
            },
        ),
        ('SHELL ["a", "b"]', {"words": ["a", "b"]}),
        ("ONBUILD RUN <<E\na\nE\n", {"expression": "RUN <<E\na\nE"}),
        ("MAINTAINER a b", {"name": "a b"}),
        ("STOPSIGNAL 9", {"signal": "9"}),
        ("VOLUME /a /b", {"paths": ["/a", "/b"]}),
        ("EXPOSE 1 2/udp", {"ports": ["1", "2/udp"]}),
    ],
)
def test_what_instructions_say(text, expected):
    assert fields(text) == expected


def test_arguments_and_what_is_said_of_them():
    one = instruction("# a what it is\n# c else\nARG a b= c=d\n")
    assert [(arg.name, arg.value, arg.description) for arg in one.args] == [
        ("a", None, "what it is"),
        ("b", "", ""),
        ("c", "d", "else"),
    ]


def test_mounts_of_run():
    one = instruction(
        "RUN --mount=type=bind,from=b,source=/s,target=/t,rw --mount=type=cache,id=$I,dst=/c,sharing=locked,uid=1,"
        "gid=2,mode=0750 --mount=type=secret,id=s,env=S,required --mount=type=ssh,required=true --mount=type=tmpfs,"
        '"size=1m",target=/x --device=vendor.com/class=name,required --security=insecure --network=none make\n'
    )
    assert one.mounts(lambda text: text.replace("$I", "the-id")) == [
        RunMount(source_stage="b", source="/s", target="/t", read_only=False),
        RunMount(type="cache", id="the-id", target="/c", sharing="locked", uid=1, gid=2, mode=0o750, read_only=False),
        RunMount(type="secret", id="s", env="S", required=True, read_only=True),
        RunMount(type="ssh", required=True, read_only=True),
        RunMount(type="tmpfs", size=1 << 20, target="/x", read_only=False),
    ]
    assert one.devices == [RunDevice(name="vendor.com/class=name", required=True)]
    assert (one.network, one.security, one.command.words, one.command.shell) == ("none", "insecure", ["make"], True)
    assert instruction("RUN --mount=target=/x,ro=false a").mounts() == [RunMount(target="/x", read_only=False)]


@given(st.text(max_size=60))
def test_no_options_break_mounts(text):
    one = instruction("RUN a")
    one.mount_options = [text]
    try:
        one.mounts()
    except DockerfileError:
        return


def test_stages_by_name_and_number():
    text = "ARG V\nFROM a AS One\nRUN x\nFROM one AS two\nFROM scratch\nFROM b AS one\n"
    found = stages.read(parser.parse(text))
    assert [(stage.index, stage.name, len(stage.instructions)) for stage in found.stages] == [
        (0, "one", 1),
        (1, "two", 0),
        (2, "", 0),
        (3, "one", 0),
    ]
    assert [arg.name for one in found.args for arg in one.args] == ["V"]
    assert [found.target(name).index for name in ("", "ONE", "two")] == [3, 3, 1]
    with pytest.raises(DockerfileError, match='target stage "2" could not be found'):
        found.target("2")  # a number names a stage in COPY --from alone
    assert found.named("one", before=3) is found.stages[0]
    assert found.find("2") is found.stages[2]
    assert found.find("7") is None
    with pytest.raises(DockerfileError, match=r'target stage "tow" could not be found \(did you mean two\?\)'):
        found.target("tow")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN a\n", "no build stage in current context"),
        ("ARG a\nRUN b\n", "no build stage in current context"),
        ("ARG a\n", "dockerfile contains no stages to build"),
    ],
)
def test_files_without_stages(text, message):
    with pytest.raises(DockerfileError, match=f"^{message}$"):
        stages.read(parser.parse(text))


def test_stages_in_a_circle():
    found = stages.read(parser.parse("FROM scratch AS a\nRUN x\nFROM scratch AS b\nRUN y\nFROM scratch\nRUN z\n"))
    x, y, z = (stage.instructions[0] for stage in found.stages)
    stages.check_cycles([{1: x, 2: x}, {2: y}, {}], found)
    with pytest.raises(DockerfileError, match=r"^circular dependency detected on stage: b$") as caught:
        stages.check_cycles([{1: x}, {2: y}, {1: z}], found)
    assert (caught.value.span, caught.value.hint) == (Span(4, 4), "b → stage-2 → b")
    with pytest.raises(DockerfileError, match="stage: a"):
        stages.check_cycles([{0: x}, {}, {}], found)
