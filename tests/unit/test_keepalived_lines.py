"""Lines and directives of keepalived.conf: conditions, definitions, repetitions, files, quotes, braces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.config.keepalived.lines import MAX_LINES, Reader
from lbnode.config.keepalived.tree import Directive, Tree, parse


def no_files(pattern: str, _file: str) -> list[tuple[str, str]]:
    raise FileNotFoundError(f"no file {pattern}")


def read(text: str, node: str = "gw1") -> tuple[list[str], list[str]]:
    reader = Reader(node, no_files)
    lines = [line.text.strip() for line in reader.lines("k.conf", text)]
    return lines, [str(problem) for problem in reader.problems]


def tree(text: str) -> Tree:
    reader = Reader("gw1", no_files)
    return parse(reader.lines("k.conf", text))


def shape(directives: list[Directive]) -> list[object]:
    return [(*item.words, shape(item.block)) if item.block is not None else item.words for item in directives]


def test_comments_go_but_not_from_within_quotes() -> None:
    assert read("a # b\n! c\nd!e\nf '# g' # h\n\n") == (["a", "d", "f '# g'"], [])


def test_conditional_lines_depend_on_the_node() -> None:
    text = "@gw1 priority 200\n@gw2 priority 100\n@^gw2 not2\n@^gw1 not1\n"
    lines, problems = read(text)
    assert lines == ["priority 200", "not2"]
    assert problems == [
        "k.conf:2:1: @gw2 priority 100: not for gw1: left out as keepalived would",
        "k.conf:4:1: @^gw1 not1: not for gw1: left out as keepalived would",
    ]
    assert read(text, "gw2")[0] == ["priority 100", "not1"]


def test_definitions_are_substituted_when_they_are_used() -> None:
    text = "$NET=10.2.${SUB}\n$SUB=0\n${NET}.1\n$SUB=9\n${NET}.1 $SUB x$SUB\n${UNKNOWN} $UNKNOWN\n"
    assert read(text) == (["10.2.0.1", "10.2.9.1 9 x9", "${UNKNOWN} $UNKNOWN"], [])
    assert read("${_INSTANCE} ${_HASH} ${_BANG}")[0] == ["gw1 # !"]
    assert read("@gw1 $P=200\n@gw2 $P=100\npriority $P")[0] == ["priority 200"]


def test_definitions_of_several_lines_may_hold_others() -> None:
    text = "$RS= \\\nreal 10.0.0.${N} { \\\n weight $W \\\n}\n$VS= \\\n$N=1 \\\n$RS \\\n$N=2 \\\n$RS\n$W=5\n$VS\n"
    assert read(text)[0] == ["real 10.0.0.1 {", "weight 5", "}", "real 10.0.0.2 {", "weight 5", "}"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("~SEQ(N, 1, 3) a${N}", ["a1", "a2", "a3"]),
        ("~SEQ(N, 2) a$N", ["a1", "a2"]),
        ("~SEQ(N, 6, -2, 3) a$N", ["a6", "a4"]),
        ("~SEQx(N, 0x9, 0xb) a${N}", ["a9", "aa", "ab"]),
        ("~SEQ(A,1,2) ~SEQ(B,3,4) ${A}.${B}", ["1.3", "1.4", "2.3", "2.4"]),
        ("~LST(N, x, y) a${N}", ["ax", "ay"]),
        ("~LST({A, B}, {1, 2}, {3, 4}) ${A}-${B}", ["1-2", "3-4"]),
    ],
)
def test_repetitions(text: str, lines: list[str]) -> None:
    assert read(text) == (lines, [])


@pytest.mark.parametrize("text", ["~SEQ(N, 1, 0, 2) a", "~SEQ(N, x) a", "~SEQ(N) a", "~LST({A,B},{1}) a", "~FOO(1) a"])
def test_a_repetition_that_makes_no_sense_is_listed(text: str) -> None:
    lines, problems = read(f"{text}\nb")
    assert lines == ["b"]
    assert len(problems) == 1 and "could not be read" in problems[0]


@pytest.mark.parametrize("text", ["$A= \\\n$A \\\n$A\n$A", "$A=$A $A\n$A", "~SEQ(I,1,99999) ~SEQ(J,1,99999) x"])
def test_what_grows_without_bound_ends_and_is_listed(text: str) -> None:
    lines, problems = read(text)
    assert len(lines) <= MAX_LINES
    assert any("more than" in problem or "contains itself" in problem for problem in problems)


def test_included_files_stand_in_their_place() -> None:
    files = {"sub/*.conf": [("sub/a.conf", "a\ninclude deeper"), ("sub/b.conf", "b")], "deeper": [("sub/d", "d")]}
    asked = []

    def include(pattern: str, file: str) -> list[tuple[str, str]]:
        asked.append((pattern, file))
        return files.get(pattern, [])

    reader = Reader("gw1", include)
    lines = list(reader.lines("k.conf", "x\ninclude sub/*.conf\nincludea nowhere\ny"))
    assert [(line.text, line.file, line.number) for line in lines] == [
        ("x", "k.conf", 1), ("a", "sub/a.conf", 1), ("d", "sub/d", 1), ("b", "sub/b.conf", 1), ("y", "k.conf", 4),
    ]  # fmt: skip
    assert asked == [("sub/*.conf", "k.conf"), ("deeper", "sub/a.conf"), ("nowhere", "k.conf")]
    assert [str(p) for p in reader.problems] == [
        "k.conf:3:1: includea nowhere: no such file (import again where the file is)"
    ]


def test_files_that_include_each_other_end() -> None:
    reader = Reader("gw1", lambda _pattern, _file: [("again", "include again\nx")])
    assert 0 < len(list(reader.lines("k.conf", "include again"))) < 100
    assert "include each other" in str(reader.problems[0])


def test_blocks() -> None:
    assert shape(tree("a 1 {\n b {c 2}\n d\n}\ne\n{\nf\n}").top) == [
        ("a", "1", [("b", [("c", "2")]), ("d",)]),
        ("e", [("f",)]),
    ]
    assert shape(tree("a { b 1 } c { }").top) == [("a", [("b", "1")]), ("c", [])]


def test_quotes_hold_words_together_and_backslashes_count_in_them() -> None:
    [directive] = tree(r"""a "b c"'d'e "\"x\" \\ \x41\102\t" '{ # }' ${X} "" """).top
    assert directive.words == ("a", "b cde", '"x" \\ AB\t', "{ # }", "${X}", "")


def test_places_are_lines_and_columns() -> None:
    top = tree("\n  a {\n    b c\n  }\n").top
    assert (top[0].place, top[0].items[0].place) == ("k.conf:2:3", "k.conf:3:5")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a {\nb", "k.conf:1:1: a: this block is not closed (add a } to it)"),
        ("}\na", "k.conf:1:1: }: this brace closes nothing"),
        ("{\na\n}", "k.conf:1:1: {: nothing stands before this brace"),
        ('a "b', 'k.conf:1:3: "b: a quote that does not end'),
    ],
)
def test_wrong_structure_is_listed_and_the_rest_is_read(text: str, problem: str) -> None:
    found = tree(text)
    assert [str(item) for item in found.problems] == [problem]
    assert "a" in str(shape(found.top))


@given(st.text(alphabet=st.sampled_from("ab1 \n\t\\\"'{}#!@$=~(),\x00é"), max_size=200))
def test_any_text_becomes_a_tree(text: str) -> None:
    found = tree(text)
    todo = list(found.top)
    while todo:
        directive = todo.pop()
        assert directive.words and directive.place.startswith("k.conf:")
        todo += directive.items
