"""Go templates: what they mean, and that nonsense is refused with a sentence."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.errors import TemplateError
from ketch.cli.gotemplate.functions import show
from ketch.cli.gotemplate.template import Template

DATA = {
    "Id": "abc",
    "Name": "/web",
    "Number": 7,
    "Part": 0.5,
    "Flag": True,
    "Items": [{"B": 1, "C": None}, {"B": 2, "C": "q"}],
    "Labels": {"x": "1", "a": "2"},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}]}},
    "Config": {"Cmd": ["a", "b"], "Entrypoint": None, "Env": []},
    "Label": lambda name: {"x": "1"}.get(name, ""),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.Id}}-{{.ID}}", "abc-abc"),
        ("{{.Number}} {{.Part}} {{.Flag}}", "7 0.5 true"),
        ("{{json .Labels}}", '{"x":"1","a":"2"}'),
        ("{{.Labels}}", "map[a:2 x:1]"),
        ("{{.Labels.x}} {{.Labels.nope}}", "1 <no value>"),
        ('{{index .Labels "x"}}{{index .Labels "nope"}}', "1"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{.Config.Cmd}} {{.Config.Entrypoint}} {{json .Config.Entrypoint}}", "[a b] [] null"),
        ("{{.Config.Healthcheck}}", "<nil>"),
        ('{{.Label "x"}}{{.Label "nope"}}', "1"),
        ("{{range .Items}}{{.B}},{{end}}", "1,2,"),
        ("{{range $i, $v := .Items}}{{if $i}};{{end}}{{$i}}={{$v.B}}{{end}}", "0=1;1=2"),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a:2 x:1 "),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{range .Items}}{{if eq .B 1}}{{continue}}{{end}}{{.C}}{{end}}", "q"),
        ("{{range .Items}}{{.B}}{{break}}{{end}}", "1"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Items}}{{$.Id}}{{end}}", "abcabc"),
        ("{{if .Config.Env}}a{{else if .Flag}}b{{else}}c{{end}}", "b"),
        ("{{with .Config}}{{len .Cmd}}{{end}}", "2"),
        ("{{with .Config.Env}}x{{else}}empty{{end}}", "empty"),
        ("{{with $c := .Config}}{{len $c.Cmd}}{{end}}", "2"),
        ("{{$x := 1}}{{range .Items}}{{$x = .B}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("a {{- 1 -}} b", "a1b"),
        ("a {{- /* note */ -}} b", "ab"),
        ('{{"}}"}}{{`\\n`}}{{"\\t\\x41"}}', "}}\\n\tA"),
        ("{{-3}} {{0x10}} {{1.50}} {{'A'}}", "-3 16 1.5 65"),
        ('{{join .Config.Cmd ", "}} {{split "a,b" ","}}', "a, b [a b]"),
        ('{{upper "a"}}{{lower "B"}}{{title "hello world"}}', "AbHello World"),
        ('{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{slice "abcdef" 1 3}}', " x  |abc|bc"),
        ('{{print "a" 1 2 "b"}}{{println "x" 1}}', "a1 2bx 1\n"),
        ('{{printf "%-4s|%4d|%q|%v|%05d|%.2f%%" "a" 3 "x" .Flag 42 1.5}}', 'a   |   3|"x"|true|00042|1.50%'),
        ('{{printf "%d %s" "x"}}', "%!d(string=x) %!s(MISSING)"),
        ('{{.Name | printf "%s-%s" "a"}}', "a-/web"),
        ("{{.Config.Cmd | len | eq 2}}", "true"),
        (
            "{{eq .Number 1 7}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}",
            "true true true true false false",
        ),
        ("{{and .Flag .Number}} {{and 0 .Nope}} {{or 0 .Id}} {{or .Id .Nope}} {{not 0}}", "7 0 abc abc true"),
    ],
)
def test_renders_as_go_does(text: str, expected: str) -> None:
    assert Template(text).render(DATA) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{", "unclosed action"),
        ("x\n{{.Id", ":2: unclosed action"),
        ("{{.Id | }}", "missing value for command"),
        ("{{}}", "missing value for command"),
        ("{{if}}x{{end}}", "missing value for command"),
        ("{{if .Id}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{range .Items}}{{else}}{{else}}{{end}}", "unexpected {{else}}"),
        ("{{foo}}", 'function "foo" not defined'),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{$x = 1}}", 'undefined variable "$x"'),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{(1}}", "unclosed left paren"),
        ("{{1)}}", "unexpected right paren"),
        ('{{"x}}', "unterminated quoted string"),
        ("{{break}}", "outside {{range}}"),
        ('{{template "x"}}', "not supported"),
        ("{{.Id | 1}}", "non executable command"),
        ("{{#}}", "unexpected '#'"),
    ],
)
def test_refuses_what_is_no_template(text: str, why: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(why)) as caught:
        Template(text)
    assert caught.value.message.startswith("template parsing error: template: :")
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "{{.Nope}}",
        "{{.id}}",
        "{{.Id.Sub}}",
        "{{.Items.B}}",
        '{{.Id "x"}}',
        "{{index .Items 5}}",
        "{{lower 5}}",
        '{{join "x" ","}}',
        '{{lt 1 "a"}}',
        "{{eq 1}}",
        '{{eq 1 "a"}}',
        "{{len 1}}",
        "{{range .Id}}{{end}}",
        "{{and}}",
        "{{.Label}}",
        "{{json}}",
        '{{slice "abc" 2 1}}',
    ],
)
def test_says_what_does_not_fit_the_data(text: str) -> None:
    template = Template(text)
    with pytest.raises(TemplateError, match="template parsing error: template: "):
        template.render(DATA)


def test_an_unknown_field_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(TemplateError) as caught:
        Template("{{.Nam}}").render({"Name": "x", "Id": "y"})
    assert caught.value.hint == "there are: Name, Id"


def test_titles_are_left_alone_by_functions() -> None:
    template = Template("{{json .Names}}\t{{upper .Image | lower}}\t{{truncate .ID 2}}")
    assert template.render_titles({"Names": "NAMES", "Image": "IMAGE", "ID": "IMAGE ID"}) == "NAMES\tIMAGE\tIMAGE ID"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_json_survives_the_way(value: object) -> None:
    assert json.loads(Template("{{json .}}").render(value)) == value


@given(st.text())
def test_text_without_actions_stays_as_it_is(text: str) -> None:
    if "{{" not in text:
        assert Template(text).render({}) == text


@given(st.text())
def test_strings_are_read_as_they_were_quoted(text: str) -> None:
    if "/" not in text and not any(0xD800 <= ord(c) < 0xE000 for c in text):
        quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
        assert Template("{{" + quoted + "}}").render({}) == text


@given(st.lists(st.text(), min_size=1), st.text())
def test_join_and_index_agree_with_the_list(items: list[str], separator: str) -> None:
    data = {"L": items, "S": separator}
    assert Template("{{join .L .S}}").render(data) == separator.join(items)
    assert Template("{{range .L}}{{.}}{{end}}").render(data) == "".join(items)
    assert Template("{{index .L 0}}|{{len .L}}").render(data) == f"{items[0]}|{len(items)}"


pieces = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", ".", ".A", "$", "$x", ":=", "=", "|", "(", ")", ",", '"', "`", "'", "\\", " ", "\n", "1",
     "-", "if", "else", "end", "range", "with", "break", "index", "json", "len", "eq", "and", "printf", "/*", "*/"]
)  # fmt: skip


@given(st.lists(pieces, max_size=14).map("".join))
def test_garbage_is_rendered_or_refused_but_never_crashes(text: str) -> None:
    try:
        Template(text).render({"A": [1, "x"], "B": {"c": None}})
    except TemplateError as e:
        assert e.message.startswith("template parsing error: ")


@given(values)
def test_any_value_can_be_shown(value: object) -> None:
    assert isinstance(show(value), str)
