"""References, digests, chain ids, times, and the instructions of --change."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.dockerfile import changes
from ketch.errors import InvalidArgument
from ketch.images.assembly import encode_config
from ketch.notation import times
from ketch.oci import config, digest, manifest, reference

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/user/app:x", "docker.io/user/app:x", "user/app:x"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("example.org/x__y/z-w:1", "example.org/x__y/z-w:1", "example.org/x__y/z-w:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{SHA}", f"docker.io/library/app@{SHA}", f"app@{SHA}"),
        (f"app:1@{SHA}", f"docker.io/library/app:1@{SHA}", "app:1"),
    ],
)
def test_references(text, full, familiar):
    parsed = reference.parse(text)
    assert (str(parsed), parsed.familiar) == (full, familiar)
    assert reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ":",
        "a:",
        "App",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a:b:c/d:e:",
        "-a",
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        "ä",
        "a" * 300,
        "x/" + "y" * 256,
        "a:" + "t" * 129,
    ],
)
def test_bad_references(bad):
    with pytest.raises(InvalidArgument, match="invalid reference format|not be more than 255 characters"):
        reference.parse(bad)


@given(st.text(max_size=60))
def test_parsing_is_stable(text):
    try:
        parsed = reference.parse(text)
    except InvalidArgument:
        return
    assert reference.parse(str(parsed)) == parsed
    assert reference.parse(parsed.familiar).repository == parsed.repository


def test_chain_ids_are_the_specification_s():
    first, second, third = (digest.of(bytes([n])) for n in range(3))
    two = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    three = "sha256:" + hashlib.sha256(f"{two} {third}".encode()).hexdigest()
    assert digest.chain_ids([first, second, third]) == [first, two, three]
    assert digest.chain_ids([]) == []


@pytest.mark.parametrize("bad", ["", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 128, SHA + "0", SHA + "\n"])
def test_bad_digests(bad):
    with pytest.raises(InvalidArgument):
        digest.check(bad)


def test_registered_digests_that_images_cannot_have():
    """The registry keeps them; whoever pulls such an image is told why it is refused."""
    data = b"some"
    sha512 = "sha512:" + hashlib.sha512(data).hexdigest()
    assert digest.registered(sha512) and digest.matches(sha512, data) and digest.matches(digest.of(data), data)
    assert not digest.matches(sha512, b"other") and not digest.registered(sha512[:-1])
    with pytest.raises(InvalidArgument, match="sha512 are not supported"):
        digest.check(sha512)
    with pytest.raises(InvalidArgument, match="invalid reference format: only sha256 digests are supported"):
        reference.parse(f"some@{sha512}")


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_times_come_back_to_the_nanosecond(ns):
    assert config.parse_time(times.fixed(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.5-00:01", 60 * 10**9 + 500_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("0000-01-01T00:00:00Z", 0),
        ("2020-13-45T99:99:99Z", 0),
        ("2021-02-29T00:00:00Z", 0),
        ("\u0662\u0660\u0662\u0660-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        (None, 0),
    ],
)
def test_times_in_other_forms(text, ns):
    assert config.parse_time(text) == ns


def test_changes():
    run = config.RunConfig(env=["A=1"])
    changes.apply(
        run,
        [
            'CMD ["sh", "-c"]',
            "ENTRYPOINT echo hi",
            "ENV A=2 B='x y'",
            "ENV OLD form of it",
            "EXPOSE 80 53/udp",
            "USER me",
            "WORKDIR /w",
            'VOLUME ["/a"]',
            "VOLUME /b /c",
            "LABEL k=v",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK CMD true",
        ],
    )
    assert run.cmd == ["sh", "-c"]
    assert run.entrypoint == ["/bin/sh", "-c", "echo hi"]
    assert run.env == ["A=2", "B=x y", "OLD=form of it"]
    assert run.exposed_ports == {"80/tcp": {}, "53/udp": {}}
    assert run.volumes == {"/a": {}, "/b": {}, "/c": {}}
    assert (run.user, run.working_dir, run.labels, run.stop_signal) == ("me", "/w", {"k": "v"}, "SIGINT")
    assert run.on_build == ["RUN x"]
    assert run.healthcheck == {"Test": ["CMD-SHELL", "true"]}


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("NONE", {"Test": ["NONE"]}),
        ('CMD ["a", "b"]', {"Test": ["CMD", "a", "b"]}),
        (
            "--interval=1m30s --timeout=1.5s --start-period=2h --retries=3 CMD curl -f http://localhost/",
            {
                "Test": ["CMD-SHELL", "curl -f http://localhost/"],
                "Interval": 90 * 10**9,
                "Timeout": 1_500_000_000,
                "StartPeriod": 7200 * 10**9,
                "Retries": 3,
            },
        ),
    ],
)
def test_health_checks(text, check):
    run = config.RunConfig()
    changes.apply(run, [f"HEALTHCHECK {text}"])
    assert run.healthcheck == check


def test_ranges_of_ports():
    run = config.RunConfig()
    changes.apply(run, ["EXPOSE 8000-8002/udp 80"])
    assert run.exposed_ports == {"8000/udp": {}, "8001/udp": {}, "8002/udp": {}, "80/tcp": {}}


def test_names_that_look_like_ids_are_refused():
    with pytest.raises(InvalidArgument, match="64-byte hexadecimal"):
        reference.parse("a" * 64)
    with pytest.raises(InvalidArgument, match=r"repository name \(library/App\) must be lowercase"):
        reference.parse("App")


@pytest.mark.parametrize(
    "bad",
    [
        "EXPOSE 9-8",
        "HEALTHCHECK",
        "HEALTHCHECK CMD",
        "HEALTHCHECK --interval=x CMD a",
        "HEALTHCHECK --retries=-1 CMD a",
        "HEALTHCHECK --nope=1 CMD a",
        "HEALTHCHECK NONE x",
        "RUN true",
        "USER",
        "EXPOSE http",
        "EXPOSE 70000",
        "EXPOSE 80/x",
        "ENV A",
        "LABEL 'a",
        f"ENV A={'${A:-' * 2000}{'}' * 2000}",
    ],
)
def test_bad_changes(bad):
    with pytest.raises(InvalidArgument):
        changes.apply(config.RunConfig(), [bad])


@given(st.sampled_from(["", *sorted(changes.KEYWORDS)]), st.text(max_size=40))
def test_no_change_breaks_the_parser(word, text):
    try:
        changes.apply(config.RunConfig(), [f"{word} {text}"])
    except InvalidArgument:
        return


def test_configurations_as_docker_and_others_write_them():
    raw = b"""{"architecture":"amd64","os":"linux","container":"abc","docker_version":"20.10","created":null,
      "config":{"Hostname":"","Env":null,"Cmd":["sh"],"Labels":null,"OnBuild":[],"ExposedPorts":{"80/tcp":{}},
                "Healthcheck":{"Test":["NONE"]},"MacAddress":"","Volumes":null,"ArgsEscaped":true},
      "history":[{"created_by":"a","empty_layer":true},{"created_by":"b"}],
      "rootfs":{"type":"layers","diff_ids":["%s"]}}""" % SHA.encode()
    parsed = msgspec.json.decode(raw, type=config.ImageConfig)
    assert parsed.config.cmd == ["sh"] and parsed.config.env is None
    assert parsed.config.exposed_ports == {"80/tcp": {}}
    assert [step.empty_layer for step in parsed.history] == [True, False]
    assert parsed.rootfs.diff_ids == [SHA]


texts = st.text(max_size=12)
lists = st.none() | st.lists(texts, max_size=3)
run_configs = st.builds(
    config.RunConfig,
    user=st.none() | texts,
    env=lists,
    cmd=lists,
    entrypoint=lists,
    labels=st.none() | st.dictionaries(texts, texts, max_size=3),
    volumes=st.none() | st.dictionaries(texts, st.just({}), max_size=3),
    working_dir=st.none() | texts,
    stop_signal=st.none() | texts,
)


@given(run_configs, st.lists(st.binary(max_size=4).map(digest.of), max_size=4))
def test_configurations_come_back(run, diff_ids):
    whole = config.ImageConfig(architecture="amd64", os="linux", config=run, rootfs=config.RootFS(diff_ids=diff_ids))
    raw = encode_config(whole)
    assert msgspec.json.decode(raw, type=config.ImageConfig) == whole
    assert msgspec.json.decode(raw)["rootfs"] == {"type": "layers", "diff_ids": diff_ids}


@given(st.dictionaries(texts, texts, max_size=5), st.randoms())
def test_equal_ones_are_the_same_bytes(names, random):
    """Labels and annotations come from clients' maps, which have no order."""
    mixed = list(names.items())
    random.shuffle(mixed)
    first, second = (
        encode_config(config.ImageConfig(architecture="a", os="b", config=config.RunConfig(labels=labels)))
        for labels in (names, dict(mixed))
    )
    assert first == second
    described = manifest.Descriptor(media_type="a/b", digest=digest.of(b""), size=0)
    first, second = (
        manifest.encode(manifest.Manifest(config=described, layers=[], annotations=annotations))
        for annotations in (names, dict(mixed))
    )
    assert first == second
