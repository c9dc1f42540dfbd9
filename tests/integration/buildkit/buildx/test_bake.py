"""``docker buildx bake``: definitions of each form, what targets share, what is written of them."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("no_images_left")

HCL = """
variable "TAG" { default = "usual" }
function "shouted" {
  params = [text]
  result = upper(text)
}
group "default" { targets = ["app", "other"] }
target "_common" {
  args = { WORD = shouted("hello") }
  labels = { made = "by bake" }
}
target "base" {
  inherits = ["_common"]
  target = "base"
}
target "app" {
  inherits = ["_common"]
  contexts = { below = "target:base" }
  target = "app"
  tags = ["bake-app:${TAG}"]
}
target "other" {
  inherits = ["app"]
  name = "other-${item.name}"
  matrix = { item = [{ name = "one", word = "1" }, { name = "two", word = "2" }] }
  args = { NUMBER = item.word }
  tags = ["bake-${item.name}:${TAG}"]
}
"""
DOCKERFILE = """\
FROM busybox AS base
ARG WORD
RUN read -r id </proc/sys/kernel/random/uuid; echo $WORD $id >/base
FROM below AS app
ARG NUMBER=0
RUN echo $NUMBER >/number
CMD cat /base /number
"""


@pytest.fixture
def bake(engine, tmp_path):
    """Runs ``docker buildx bake`` in a directory with these files."""
    top = tmp_path / "project"

    def run(*words, files, check=True, **environment):
        for name, text in {"Dockerfile": DOCKERFILE, **files}.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text)
        environment["BUILDX_BAKE_ENTITLEMENTS_FS"] = "0"
        return engine.docker("buildx", "bake", *words, cwd=str(top), check=check, timeout=90, **environment)

    return run


def said(engine, name):
    return engine.docker("run", "--rm", name).out.split()


def test_targets_share_what_they_stand_on(bake, engine, tmp_path):
    facts = tmp_path / "facts"
    bake("--metadata-file", str(facts), files={"docker-bake.hcl": HCL}, TAG="given")
    app, one, two = (said(engine, f"bake-{name}:given") for name in ("app", "one", "two"))
    assert [app[0], app[2], one[2], two[2]] == ["HELLO", "0", "1", "2"]
    assert app[1] == one[1] == two[1]  # it was made once
    told = json.loads(facts.read_text())
    for target, name in (("app", "app"), ("other-one", "one"), ("other-two", "two")):
        image = engine.docker("image", "inspect", "-f", "{{.Id}} {{.Config.Labels.made}}", f"bake-{name}:given").out
        assert image == f"{told[target]['containerimage.config.digest']} by bake\n"


def test_what_is_printed_and_set(bake, engine):
    words = ("--set", "app.args.WORD=set", "--set", "*.labels.more=l", "app")
    printed = json.loads(bake("--print", *words, files={"docker-bake.hcl": HCL}).out)
    assert printed["target"]["app"]["args"]["WORD"] == "set"
    bake("--set", "base.args.WORD=set", *words, files={"docker-bake.hcl": HCL})
    assert said(engine, "bake-app:usual")[0] == "set"
    labels = engine.docker("image", "inspect", "-f", "{{json .Config.Labels}}", "bake-app:usual").out
    assert json.loads(labels) == {"made": "by bake", "more": "l"}


def test_json_and_compose(bake, engine):
    target = {"dockerfile": "Dockerfile", "target": "base", "args": {"WORD": "json"}, "tags": ["bake-json:1"]}
    bake("-f", "x.json", files={"x.json": json.dumps({"target": {"default": target}})})
    assert engine.docker("run", "--rm", "bake-json:1", "cut", "-d ", "-f1", "/base").out == "json\n"
    text = """
services:
  web:
    image: bake-compose:1
    build:
      context: .
      target: base
      args: {WORD: compose}
      x-bake: {tags: ["bake-compose:2"]}
"""
    bake("-f", "compose.yaml", "web", files={"compose.yaml": text})
    assert engine.docker("run", "--rm", "bake-compose:2", "cut", "-d ", "-f1", "/base").out == "compose\n"


def test_outputs_of_several_targets(bake, tmp_path):
    text = f"""
group "default" {{ targets = ["a", "b"] }}
target "a" {{
  target = "base"
  output = ["type=local,dest={tmp_path}/a", "type=tar,dest={tmp_path}/a.tar"]
}}
target "b" {{
  target = "base"
  output = ["type=tar,dest={tmp_path}/b.tar"]
}}
"""
    bake(files={"docker-bake.hcl": text})
    assert (tmp_path / "a/base").exists()
    for name in ("a.tar", "b.tar"):
        assert (tmp_path / name).stat().st_size > 100_000


def test_a_target_that_fails(bake, engine):
    text = """
group "default" { targets = ["good", "bad"] }
target "good" {
  target = "base"
  tags = ["bake-good:1"]
}
target "bad" { dockerfile-inline = "FROM busybox\\nRUN exit 9\\n" }
"""
    done = bake(files={"docker-bake.hcl": text}, check=False)
    assert done.code == 1
    assert "target bad: failed to solve" in done.err
    assert "exit code: 9" in done.err


def test_checks(bake):
    text = 'target "default" { dockerfile-inline = "FROM busybox\\nMAINTAINER me\\n" }\n'
    done = bake("--check", files={"docker-bake.hcl": text}, check=False)
    assert done.code == 1
    assert "MaintainerDeprecated" in done.out + done.err
    listed = bake("--list=targets", files={"docker-bake.hcl": HCL}).out
    assert "other-one" in listed or "other" in listed
