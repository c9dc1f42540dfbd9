"""Words of a Dockerfile expanded, beside what dockerd 28.5.2 made of them as arguments' defaults."""

from __future__ import annotations

import json
import pathlib

import pytest

from ketch.build.dockerfile import words
from ketch.errors import InvalidArgument

RECORDED = json.loads((pathlib.Path(__file__).parents[2] / "data" / "dockerfile-words.json").read_text())
VARIABLES = {"a": "abc", "e": "", "p": "a/b/c", "s": "*x?", "d": "1.2.3", "t": "n.tar.gz", "q": "[a]b"}


@pytest.mark.parametrize(("word", "value"), RECORDED)
def test_words(word, value):
    assert words.expand(word, VARIABLES) == value


def test_which_variables_a_word_has():
    found = words.expansion("$a ${u:-$v} '$w' ${p#$a} \\$x", VARIABLES)
    assert (found.used, found.unset) == ({"a", "p"}, {"u", "v"})
    with pytest.raises(words.ExpansionError, match="u: is not allowed to be unset") as caught:
        words.expansion("$v${u?}$w", VARIABLES)
    assert caught.value.unset == {"u", "v"}


def test_words_with_their_quotes_and_variables():
    assert words.split("""a 'b c' "d $e" f\\ g ${h:-i j} $k""") == ["a", "b c", "d $e", "f g", "${h:-i", "j}", "$k"]
    assert words.split("""'b c' "d\\"e" f\\ g""", raw=True) == ["'b c'", '"d\\"e"', "f\\ g"]
    with pytest.raises(InvalidArgument):
        words.split("it's")
