"""The terminal's screen: control functions, and what hostile programs write."""

from __future__ import annotations

import pytest

from tests.support.clients import browser as browsers

# What is written on a screen of 10 × 4, and what stands there then.
CASES = {
    "lines": ("ab\r\ncd", ["ab", "cd"]),
    "wrap": ("0123456789ab", ["0123456789", "ab"]),
    "wrap is late": ("0123456789\rX", ["X123456789"]),
    "no wrap": ("\x1b[?7l0123456789ab", ["012345678b"]),
    "backspace": ("abc\b\bX", ["aXc"]),
    "tab": ("a\tb", ["a       b"]),
    "scroll": ("1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"]),
    "position": ("\x1b[2;3Hx\x1b[Hy", ["y", "  x"]),
    "relative": ("\x1b[2B\x1b[3Cx\x1b[A\x1b[2Dy", ["", "  y", "   x"]),
    "column and row": ("\x1b[5Gx\x1b[3dy", ["    x", "", "     y"]),
    "erase to end": ("abcdef\x1b[4D\x1b[K", ["ab"]),
    "erase to begin": ("abcdef\x1b[4D\x1b[1K", ["   def"]),
    "erase screen": ("ab\r\ncd\x1b[2Jx", ["", "  x"]),
    "erase below": ("ab\r\ncd\r\nef\x1b[2;2H\x1b[J", ["ab", "c"]),
    "insert cells": ("abcd\r\x1b[2@", ["  abcd"]),
    "delete cells": ("abcd\r\x1b[2P", ["cd"]),
    "erase cells": ("abcd\r\x1b[2X", ["  cd"]),
    "insert mode": ("abc\r\x1b[4hX\x1b[4lY", ["XYbc"]),
    "insert lines": ("1\r\n2\r\n3\x1b[2;1H\x1b[L", ["1", "", "2", "3"]),
    "delete lines": ("1\r\n2\r\n3\x1b[1;1H\x1b[M", ["2", "3"]),
    "region": ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\nx", ["1", "3", "x", "4"]),
    "reverse index": ("1\r\n2\x1b[H\x1bMx", ["x", "1", "2"]),
    "origin": ("\x1b[2;3r\x1b[?6h\x1b[Hx", ["", "x"]),
    "save and restore": ("ab\x1b7\x1b[3;3Hx\x1b8c", ["abc", "", "  x"]),
    "alternate screen": ("shell\x1b[?1049hfull\x1b[?1049lX", ["shellX"]),
    "on the alternate screen": ("shell\x1b[?1049h\x1b[Hfull", ["full"]),
    "repeat": ("a\x1b[3b", ["aaaa"]),
    "line drawing": ("\x1b(0lqk\x1b(Bq", ["┌─┐q"]),
    "titles are not shown": ("\x1b]0;title\x07a\x1b]2;more\x1b\\b", ["ab"]),
    "device strings are not shown": ("\x1bP1$r0m\x1b\\a", ["a"]),
    "unknown sequences are not shown": ("\x1b[>4;2m\x1b[?2026h\x1b[1;2$ya\x1b=\x1b>\x1b#8b", ["ab"]),
    "wide": ("世界a", ["世界a"]),
    "wide at the edge": ("012345678世", ["012345678", "世"]),
    "combined": ("e\u0301x", ["e\u0301x"]),
    "reset": ("ab\x1bc", []),
}
_WRITE = """async (cases) => {
    const {Screen} = await import("/static/terminal/screen.js");
    const lines = (screen) => {
        const area = document.createElement("div");
        screen.paint(area);
        const texts = [...area.children].slice(-screen.rows).map((row) => row.textContent.trimEnd());
        while (texts.length && !texts.at(-1)) texts.pop();
        return texts;
    };
    return cases.map((words) => {
        const whole = new Screen(10, 4);
        whole.write(words);
        const pieces = new Screen(10, 4);  // sequences are cut anywhere
        for (const character of words) pieces.write(character);
        return [lines(whole), lines(pieces)];
    });
}"""
_FUZZ = """async () => {
    const {Screen} = await import("/static/terminal/screen.js");
    let seed = 7;
    const random = (below) => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return Math.floor((seed / 2 ** 32) * below);
    };
    const parts = ["\\x1b[", "\\x1b", "\\x1b]", "\\x1bP", "?", ";", "999999999", "-1", "0", "7", "\\x07", "\\x9b", "世",
        "\\u0301", ..."ABCDEFGHIJKLMPSTXZ@`abcdefghilmnprsu<=>!$\\n\\r\\b\\t\\x0e\\x0f "];
    const screen = new Screen(80, 24);
    const area = document.createElement("div");
    for (let turn = 0; turn < 400; turn += 1) {
        let words = "";
        for (let count = 0; count < 60; count += 1) words += parts[random(parts.length)];
        screen.write(words);
        if (turn % 20 === 0) screen.resize(2 + random(100), 1 + random(50));
        if (turn % 10 === 0) screen.paint(area);
        if (screen.lines.length !== screen.rows) return `${screen.lines.length} lines of ${screen.rows}`;
        if (screen.lines.some((line) => line.cells.length !== screen.columns)) return "a line of another width";
        if (!screen.lines[screen.y]?.cells[screen.x]) return "the cursor is off";
    }
    return area.childElementCount <= 1100 ? "" : "too many rows are kept";
}"""


@pytest.fixture(scope="module")
def page(chromium, served):
    context = chromium.new_context()
    watched = browsers.Watched(context)
    browsers.log_in(watched.page, served.address())
    yield watched.page
    context.close()
    assert watched.wrong == []


def test_control_functions(page):
    answers = page.evaluate(_WRITE, [words for words, _ in CASES.values()])
    found = {name: answer[0] for name, answer in zip(CASES, answers, strict=True)}
    assert found == {name: wanted for name, (_, wanted) in CASES.items()}
    assert all(whole == pieces for whole, pieces in answers)


def test_anything_may_be_written(page):
    assert page.evaluate(_FUZZ) == ""


def test_a_cell_stays_small(page):
    script = """async () => {
        const {Screen} = await import("/static/terminal/screen.js");
        const screen = new Screen(10, 4);
        screen.write("e" + "\\u0301".repeat(100000) + "x");
        return [screen.lines[0].cells[0].text.length, screen.lines[0].cells[1].text];
    }"""
    assert page.evaluate(script) == [16, "x"]


def test_work_goes_on_after_a_fault(page):
    script = """async () => {
        const {repeat} = await import("/static/parts/api.js");
        const reported = [];
        const hear = (event) => {
            reported.push(event.message);
            event.preventDefault();
        };
        window.addEventListener("error", hear);
        let turns = 0;
        await new Promise((done) => {
            const stop = repeat(async () => {
                turns += 1;
                if (turns === 1) throw new TypeError("a fault");
                stop();
                done();
            }, 0);
        });
        window.removeEventListener("error", hear);
        return [turns, reported.length];
    }"""
    assert page.evaluate(script) == [2, 1]


def test_colours_and_answers(page):
    script = """async () => {
        const {Screen} = await import("/static/terminal/screen.js");
        const screen = new Screen(20, 2);
        const replies = [];
        screen.reply = (words) => replies.push(words);
        screen.write("\\x1b[1;31mA\\x1b[0m\\x1b[38;5;196mB\\x1b[48;2;1;2;3mC\\x1b[m\\x1b[97;44mD\\x1b[39;49mE\\x1b[7mF\\x1b[27mG"
            + "\\x1b[6n\\x1b[c\\x1b[5n\\x1b[?25l");
        const area = document.createElement("div");
        screen.paint(area);
        const spans = [...area.firstChild.children].map((one) =>
            [one.textContent, one.className, one.style.color, one.style.backgroundColor]);
        return [spans, replies];
    }"""
    spans, replies = page.evaluate(script)
    assert spans == [
        ["A", "bold c1", "", ""],
        ["B", "", "rgb(255, 0, 0)", ""],
        ["C", "", "rgb(255, 0, 0)", "rgb(1, 2, 3)"],
        ["D", "c15 b4", "", ""],
        ["F", "inverse", "", ""],
    ]
    assert replies == ["\x1b[1;8R", "\x1b[?1;2c", "\x1b[0n"]
