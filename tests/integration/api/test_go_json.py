"""JSON as Go's decoder reads it: names in any case, doubled ones, nulls, wrong types; the words of its errors."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.support.rawapi import Unix


def post(engine, path: str, body: str) -> tuple[int, str]:
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("POST", f"/v1.51{path}", body.encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()).get("message", "")


def test_names_in_any_case_at_any_depth(engine):
    body = (
        '{"image": "busybox", "CMD": ["true"], "hostconfig": {"memory": 8388608, "restartpolicy": {"name": "always"},'
    )
    body += '"HOSTCONFIG": 5}, "HostConfig": {"CpuShares": 5}, "labels": {"a": "1"}, "Labels": {"A": "2"}}'
    assert post(engine, "/containers/create?name=one", body)[0] == 201
    with contextlib.closing(engine.py()) as client:
        found = client.api.inspect_container("one")
    host = found["HostConfig"]
    assert (host["Memory"], host["CpuShares"], host["RestartPolicy"]["Name"]) == (8388608, 5, "always")
    assert (found["Config"]["Cmd"], found["Config"]["Labels"]) == (["true"], {"a": "1", "A": "2"})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"image": "nope:1", "cmd": ["x"]}', 404, "No such image: nope:1"),
        ('{"Image": "nope:1", "image": "nope:2"}', 404, "No such image: nope:2"),
        ('{"image": "nope:2", "Image": "nope:1"}', 404, "No such image: nope:1"),
        ('{"Image": "nope:1", "Image": null}', 404, "No such image: nope:1"),
        ('{"HoſtConfig": {"Memory": 5}, "Image": "busybox", "Cmd": ["true"]}', 400, "Minimum memory limit"),
        ('{"Image": "\\ud800"}', 400, "invalid reference format"),
        ('{"Image": 5}', 400, "cannot unmarshal number into Go struct field .Image of type string"),
        ('{"image": 5}', 400, "cannot unmarshal number into Go struct field .image of type string"),
        ('{"Tty": "true"}', 400, "cannot unmarshal string into Go struct field .Tty of type bool"),
        ('{"HostConfig": {"Memory": "5"}}', 400, "string into Go struct field .HostConfig.Memory of type int64"),
        ('{"HostConfig": {"Memory": 5.0}}', 400, "number 5.0 into Go struct field .HostConfig.Memory of type int64"),
        ('{"HostConfig": {"Memory": 1e9}}', 400, "number 1e9 into Go struct field .HostConfig.Memory of type int64"),
        ('{"HostConfig": {"BlkioWeight": 70000}}', 400, "number 70000 into Go struct field .HostConfig.BlkioWeight"),
        ('{"HostConfig": {"ConsoleSize": [-1, 2]}}', 400, "number -1 into .HostConfig.ConsoleSize.0 of type uint"),
        ('{"HostConfig": {"NetworkMode": 5}}', 400, "HostConfig.NetworkMode of type container.NetworkMode"),
        ('{"HostConfig": []}', 400, "array into Go struct field .HostConfig of type container.HostConfig"),
        ('{"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}', 400, "80~1tcp.0.HostPort of type string"),
        ('{"Labels": {"a": 1}}', 400, "number into Go struct field .Labels.a of type string"),
        ('{"Env": "A=b"}', 400, "string into Go struct field .Env of type []string"),
        ('{"Env": [1]}', 400, "number into .Env.0 of type string"),
        ('{"Cmd": 5}', 400, "number into Go value of type string"),
        ('{"Cmd": [1]}', 400, "array into Go value of type string"),
        ('{"ExposedPorts": {"80/tcp": 5}}', 400, "number into Go struct field .ExposedPorts.80~1tcp of type struct {}"),
        ('{"Shell": {}}', 400, "object into Go value of type string"),
        ('{"HostConfig": {"CapAdd": [1]}}', 400, "array into Go value of type string"),
        (
            '{"Image": "busybox", "HostConfig": {"CapDrop": "nope"}}',
            400,
            'invalid CapDrop: unknown capability: "CAP_NOPE"',
        ),
        ('{"NetworkingConfig": {"EndpointsConfig": 5}}', 400, "of type map[string]*network.EndpointSettings"),
        ('{"NetworkingConfig": 5}', 400, "field .NetworkingConfig of type network.NetworkingConfig"),
        ('{"HostConfig": {"PortBindings": {"a": 1}}}', 400, "PortBindings.a of type []nat.PortBinding"),
        ('{"HostConfig": {"ConsoleSize": "x"}}', 400, "ConsoleSize of type [2]uint"),
        ('{"HostConfig": {"Mounts": [{"TmpfsOptions": {"Mode": -1}}]}}', 400, "Mode of type fs.FileMode"),
        ('{"Healthcheck": {"Interval": "5s"}}', 400, "field .Healthcheck.Interval of type time.Duration"),
        ("[1, 2]", 400, "array into Go value of type container.CreateRequest"),
        ("{not", 400, "invalid character 'n' looking for beginning of object key string"),
        ('{"a": }', 400, "invalid character '}' looking for beginning of value"),
        ('{"a" 1}', 400, "invalid character '1' after object key"),
        ('{"a": 1', 400, "unexpected EOF"),
        ('{"a": 1} {"b": 2}', 400, "unexpected content after JSON"),
        ("[1 2]", 400, "invalid character '2' after array element"),
        ('{"a": tru}', 400, "invalid character '}' in literal true (expecting 'e')"),
        ('{"a": "\\x"}', 400, "invalid escape sequence `\\x` in string"),
        ('{"a": "\t"}', 400, "invalid character '\\t' in string"),
        ('{"a": 01}', 400, "invalid character '1' after object key:value pair"),
        ('{"a": 1,}', 400, "invalid character '}' looking for beginning of object key string"),
        ('{"a": NaN}', 400, "invalid character 'N' looking for beginning of value"),
    ],
)
def test_create(engine, body, status, words):
    found, message = post(engine, "/containers/create", body)
    assert (found, words in message) == (status, True), message


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/volumes/create", '{"name": 5}', "field CreateOptions.name of type string"),
        ("/volumes/create", '{"Labels": {"a": 5}}', "field CreateOptions.Labels.a of type string"),
        (
            "/networks/create",
            '{"name": "n", "ipam": {"config": [{"subnet": 5}]}}',
            "Request.ipam.config.0.subnet",
        ),
        ("/containers/nope/exec", '{"Cmd": 5}', "field ExecOptions.Cmd of type []string"),
        ("/containers/nope/update", '{"memory": "5"}', "field UpdateConfig.memory of type int64"),
    ],
)
def test_other_bodies(engine, path, body, words):
    status, message = post(engine, path, body)
    assert (status, words in message) == (400, True), message
