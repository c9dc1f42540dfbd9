"""Requests about images with odd values, and what becomes of the images: as dockerd answers them, value by value."""

from __future__ import annotations

import io
import json
import tarfile
from urllib.parse import quote

import pytest

from tests.support.rawapi import Api

AMD64 = '{"os":"linux","architecture":"amd64"}'
ARM64 = '{"os":"linux","architecture":"arm64"}'


def tar(files: dict[str, bytes | str]) -> bytes:
    """An archive of files; a text is the target of a symbolic link, or, behind a ``=``, of a hard one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(data, str):
                entry.type, entry.linkname = (tarfile.LNKTYPE if data[0] == "=" else tarfile.SYMTYPE), data.lstrip("=")
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def api(engine):
    """The API; the test's images are removed."""
    one = Api(engine.socket)
    before = {image["Id"] for image in one.must("GET", "/images/json", all=1)}
    yield one
    engine.remove_all()
    for image in sorted(one.must("GET", "/images/json", all=1), key=lambda i: -i["Created"]):
        if image["Id"] not in before:
            one("DELETE", f"/images/{image['Id']}", force=1)
    for name in ("ts:1", "ts:6", "todel"):
        one("DELETE", f"/images/{name}")


def made(api: Api, name: str, files: dict[str, bytes | str] | None = None, **query: object) -> dict:
    """Import an image of its own content; how the API shows it."""
    status, answer = api("POST", "/images/create", tar(files or {name: name.encode()}), fromSrc="-", repo=name, **query)
    assert status == 200 and "error" not in str(answer), answer
    return api.must("GET", f"/images/{name}/json")


def message(answer: object) -> str:
    """The error's first sentence, without what Ketch says behind it."""
    assert isinstance(answer, dict), answer
    head, _, rest = answer["message"].partition(" (")
    return f"{head} ({rest}" if rest.startswith("library/") else head


def committed(api: Api, image: str, name: str) -> str:
    """An image on top of another one, made by a container that is removed again; its id."""
    api.must("POST", "/containers/create", {"Image": image, "Cmd": ["x"], "Labels": {"l": "1"}}, name="committed")
    found = api.must("POST", "/commit", container="committed", repo=name)["Id"]
    api.must("DELETE", "/containers/committed")
    return found


# -- names -------------------------------------------------------------------------------------


def test_odd_names(api):
    for query, expected, words in (
        ({"repo": "ts:5", "tag": "6"}, 201, ""),  # the tag takes the place of the name's
        ({"repo": "BAD"}, 400, "invalid reference format: repository name (library/BAD) must be lowercase"),
        ({"repo": "ts", "tag": "!"}, 400, "invalid tag format"),
        ({"repo": f"ts@sha256:{'a' * 64}"}, 400, "cannot import digest reference"),
        ({"repo": "a/" * 130 + "b"}, 400, "repository name must not be more than 255 characters"),
        ({"repo": "sha256", "tag": "x"}, 400, "refusing to create an ambiguous tag using digest algorithm as name"),
    ):
        status, answer = api("POST", "/images/busybox/tag", **query)
        assert (status, message(answer) if words else "") == (expected, words), query
    assert "ts:6" in api.must("GET", "/images/busybox/json")["RepoTags"]
    hexadecimal = "a" * 64
    for name, shown in (
        ("nope", "nope:latest"),
        ("localhost:5000/nope", "localhost:5000/nope:latest"),
        ("index.docker.io/library/nope:1", "nope:1"),
        (hexadecimal, f"sha256:{hexadecimal}"),
        (f"sha256:{hexadecimal}", f"sha256:{hexadecimal}"),
        ("aaaa", "aaaa:latest"),
        (f"nope:1@sha256:{hexadecimal}", f"nope:1@sha256:{hexadecimal}"),
    ):
        for method, verb in (("GET", "/json"), ("GET", "/history"), ("POST", "/tag?repo=ts"), ("DELETE", "")):
            status, answer = api(method, f"/images/{name}{verb}")
            assert (status, message(answer)) == (404, f"No such image: {shown}"), (name, verb)
    bad = "invalid reference format: repository name (library/BAD) must be lowercase"
    for method, verb, status in (("GET", "/json", 400), ("POST", "/tag?repo=ts", 404), ("GET", "/get", 500)):
        answer = api(method, f"/images/BAD{verb}")
        assert (answer[0], message(answer[1])) == (status, bad)
    for name in ("nope:1", "busybox:nope", f"busybox@sha256:{hexadecimal}"):
        answer = api("GET", f"/images/{name}/get")
        assert (answer[0], message(answer[1])) == (404, "reference does not exist")
    assert message(api("POST", "/commit", container="nope", repo="BAD")[1]) == bad


# -- platforms ---------------------------------------------------------------------------------


def test_platforms_in_queries(api):
    one, both = "failed to parse platform: ", "both OS and Architecture must be provided"
    for text, words in (
        ("x", f"{one}invalid character 'x' looking for beginning of value"),
        ("linux/amd64", f"{one}invalid character 'l' looking for beginning of value"),
        ("{", f"{one}unexpected end of JSON input"),
        ("[]", f"{one}json: cannot unmarshal array into Go value of type v1.Platform"),
        ("5", f"{one}json: cannot unmarshal number into Go value of type v1.Platform"),
        ('{"os":5}', f"{one}json: cannot unmarshal number into Go struct field Platform.os of type string"),
        ("{}", both),
        ("null", both),
        ('{"os":"linux"}', both),
    ):
        for method, path, name in (
            ("GET", "/images/busybox/json", "platform"),
            ("GET", "/images/busybox/history", "platform"),
            ("GET", "/images/busybox/get", "platform"),
            ("POST", "/images/load", "platform"),
            ("POST", "/images/busybox/push", "platform"),
            ("DELETE", "/images/nope", "platforms"),
        ):
            status, answer = api(method, f"/v1.51{path}", **{name: text})
            assert (status, message(answer)) == (400, words), (path, text)
    for text in (AMD64, '{"OS":"linux","Architecture":"amd64","Variant":"v1","other":1}'):
        assert api("GET", "/images/busybox/json", platform=text)[0] == 200
    busybox = "image with reference {} was found but its platform (linux/amd64) does not match the specified platform"
    for method, path, status, words in (
        ("GET", "/images/busybox/json?", 404, busybox.format("busybox")),
        ("GET", "/images/busybox/history?", 404, busybox.format("busybox")),
        ("GET", "/images/busybox/get?", 500, "no suitable export target found for platform linux/arm64"),
        ("POST", "/images/busybox/push?tag=latest&", 404, busybox.format("busybox:latest")),
        ("DELETE", "/images/busybox?platforms=x&", 400, f"{one}invalid character 'x' looking for beginning of value"),
    ):
        answer = api(method, f"/v1.51{path}platform={quote(ARM64)}")
        assert answer[0] == status and message(answer[1]).startswith(words.partition(" (")[0]), path
    assert api("POST", "/images/busybox/tag", repo="todel")[0] == 201
    answer = api("DELETE", "/v1.51/images/todel?" + f"platforms={quote(AMD64)}&" * 2)
    assert (answer[0], message(answer[1])) == (400, "multiple platforms are not supported")


def test_imports_for_platforms(api):
    for text, expected in (
        ("linux/arm64", ("arm64", None)),
        ("linux/arm/v7", ("arm", "v7")),
        ("linux/arm/6", ("arm", "v6")),
        ("linux/armel", ("arm", "v6")),
        ("LINUX/x86_64", ("amd64", None)),
        ("linux/other", ("other", None)),
        ("s390x", ("s390x", None)),
    ):
        image = made(api, "imported", platform=text)
        assert (image["Os"], image["Architecture"], image.get("Variant")) == ("linux", *expected), text
    for text, words in (
        ("foo", '"foo": unknown operating system or architecture: invalid argument'),
        ("windows/amd64", "operating system is not supported"),
        ("other/amd64", "operating system is not supported"),
        ("linux/a/b/c", '"linux/a/b/c": cannot parse platform specifier: invalid argument'),
        ("linux/", '"" is an invalid component of "linux/": platform specifier component must match'),
        ("a b", '"a b" is an invalid OS component of "a b": OSAndVersion specifier component must match'),
    ):
        status, answer = api("POST", "/images/create", tar({"f": b"x"}), fromSrc="-", repo="imported", platform=text)
        assert status == 400 and answer["message"].startswith(words), answer
    for path, words in (("", 'Get "http:"'), ("?fromSrc=/x", 'Get "http:///x"')):
        answer = api("POST", f"/images/create{path}")
        assert (answer[0], message(answer[1])) == (500, f"{words}: http: no Host in request URL")


def test_sizes(api):
    """Links count with what they name, further names of a file not at all."""
    image = made(api, "sized", {"file": bytes(1000), "link": "12345", "hard": "=file"})
    assert image["Size"] == 1005
    assert api.must("GET", "/images/sized/history")[0]["Size"] == 1005
    made(api, "sized-not", {"link": "x"}, changes="LABEL a=b")
    rows = {row["RepoTags"][0]: row for row in api.must("GET", "/v1.43/images/json") if row["RepoTags"]}
    assert [rows[name].get("VirtualSize") for name in ("sized:latest", "sized-not:latest")] == [1005, 1]


def test_the_last_tag_is_one_made_here(api):
    """Not that of an archive or of a registry."""
    never = "0001-01-01T00:00:00Z"

    def last_tag(image: str) -> str:
        return api.must("GET", f"/images/{image}/json")["Metadata"]["LastTagTime"]

    assert made(api, "tagged")["Metadata"]["LastTagTime"] != never
    nameless = api("POST", "/images/create", tar({"n": b"n"}), fromSrc="-")[1]["status"]
    assert last_tag(nameless) == never
    archive = api.must("GET", "/images/tagged/get")
    api.must("DELETE", "/images/tagged")
    assert api("POST", "/images/load", archive)[0] == 200 and last_tag("tagged") == never
    assert api("POST", f"/images/{nameless}/tag", repo="ts", tag="1")[0] == 201 and last_tag(nameless) != never


# -- what others were committed on -------------------------------------------------------------


def shown(api: Api, **query: object) -> list[str]:
    """The names of the test's images, with an empty one for each that has none."""
    rows = api.must("GET", "/images/json", **query)
    return sorted(",".join(row["RepoTags"]) for row in rows if (row["Labels"] or {}).get("l") == "1")


def test_images_that_others_were_committed_on(api):
    api.must("POST", "/images/prune")  # of other tests
    made(api, "base", changes="LABEL l=1")
    ids = [committed(api, *names) for names in (("base", "one"), ("one", "two"), ("two", "three"))]
    assert [api.must("DELETE", f"/images/{name}") for name in ("one", "two")] == [
        [{"Untagged": "one:latest"}],
        [{"Untagged": "two:latest"}],
    ]
    assert shown(api) == ["base:latest", "three:latest"]
    assert shown(api, all=1) == ["", "", "base:latest", "three:latest"]
    assert shown(api, all=1, filters='{"dangling":["true"]}') == []
    history = api.must("GET", "/images/three/history")
    assert [row["Id"] for row in history[:3]] == ids[::-1] and history[3]["Tags"] == ["base:latest"]
    assert api.must("GET", "/images/three/json")["Parent"] == ids[1]
    for force in (0, 1):
        status, answer = api("DELETE", f"/images/{ids[1]}", force=force)
        assert (status, message(answer).partition("delete ")[2][13:]) == (409, ""), answer
        assert answer["message"].partition(" - ")[2].startswith("image has dependent child images")
    pruned = api.must("POST", "/images/prune")["ImagesDeleted"] or []  # others' may be among them
    assert not set(ids) & {row.get("Deleted") for row in pruned}
    gone = [{"Deleted": one} for one in ids[::-1]]
    assert api.must("DELETE", "/images/three") == [{"Untagged": "three:latest"}, *gone]
    ids = [committed(api, *names) for names in (("base", "one"), ("one", "two"))]
    api.must("DELETE", "/images/one")
    assert api.must("DELETE", "/images/two", noprune=1) == [{"Untagged": "two:latest"}, {"Deleted": ids[1]}]
    assert shown(api) == ["", "base:latest"]
    assert api.must("POST", "/images/prune")["ImagesDeleted"] == [{"Deleted": ids[0]}]


# -- filters -----------------------------------------------------------------------------------


def test_filters(api):
    for number, name in enumerate(("ka1", "ka5", "ka6")):
        made(api, name, changes=f"LABEL l=1 n={number}")

    def found(**filters: object) -> object:
        status, answer = api("GET", "/images/json", filters=json.dumps(filters))
        if status != 200:
            return status, message(answer)
        return sorted(name.removesuffix(":latest") for row in answer for name in row["RepoTags"] if name[:2] == "ka")

    every = ["ka1", "ka5", "ka6"]
    for filters, expected in (
        ({"reference": ["ka[15]"]}, ["ka1", "ka5"]),
        ({"reference": ["ka[^15]"]}, ["ka6"]),
        ({"reference": ["ka[!15]"]}, ["ka1", "ka5"]),  # only a caret negates
        ({"reference": ["ka\\1"]}, ["ka1"]),
        ({"reference": ["k*1", "ka6:lat*"]}, ["ka1", "ka6"]),
        ({"reference": ["*/*"]}, []),
        ({"reference": ["ka1", "nope"]}, ["ka1"]),
        ({"reference": ["["]}, (500, "syntax error in pattern")),
        ({"reference": ["a[-]"]}, (500, "syntax error in pattern")),
        ({"reference": ["\\"]}, (500, "syntax error in pattern")),
        ({"dangling": ["false"]}, every),
        ({"dangling": ["1"]}, []),
        ({"dangling": ["yes"]}, (400, "invalid filter 'dangling=[yes]'")),
        ({"dangling": ["True"]}, (400, "invalid filter 'dangling=[True]'")),
        ({"dangling": []}, (400, "invalid filter 'dangling'")),
        ({"label": ["n=1"]}, ["ka5"]),
        ({"label": ["l", "n=2"]}, ["ka6"]),
        ({"before": ["nope"]}, (404, "No such image: nope:latest")),
        ({"nope": ["1"]}, (400, "invalid filter 'nope'")),
    ):
        assert found(**filters) == expected, filters
    assert api("GET", "/images/json", filters="null")[0] == 200
    for filters, status, words in (
        ({"all": ["true"]}, 400, "invalid filter 'all'"),
        ({"dangling": []}, 400, "invalid filter 'dangling'"),
        ({"until": ["1h", "2h"]}, 500, "more than one until filter specified"),
        ({"until": ["x"]}, 500, 'failed to parse value as time or duration: "x"'),
        ({"reference": ["x"]}, 400, "invalid filter 'reference'"),
    ):
        answer = api("POST", "/images/prune", filters=json.dumps(filters))
        assert (answer[0], message(answer[1])) == (status, words), filters
    removed = api.must("POST", "/images/prune", filters='{"dangling":["false"],"label":["n=1"],"label!":["x"]}')
    assert [next(iter(row)) for row in removed["ImagesDeleted"]] == ["Untagged", "Deleted", "Deleted"]
    assert removed["SpaceReclaimed"] == 3
