"""YAML is read as Kubernetes reads it, every field has its line, and hostile YAML is a problem, not a crash."""

import pytest

from workflows.errors import InvalidInput
from workflows.spec import Source, load
from workflows.spec.source import documents


def read(text):
    [document], problems = documents(text, "f.yaml")
    assert problems == []
    return document


def test_lines_of_fields_and_items():
    document = read("a: 1\nb:\n  - x\n  - c: y\n    d.e/f: z\n")
    source = Source("f.yaml", document.lines)
    assert [source.line(path) for path in ("a", "b", "b[0]", "b[1].c", "b[1].d.e/f")] == [1, 2, 3, 4, 5]


def test_line_of_a_missing_field_is_that_of_the_nearest_parent():
    source = Source("f.yaml", read("a: 1\nb:\n  - c: y\n").lines)
    assert [source.line(path) for path in ("b[0].missing", "b[7]", "b.x.y[3].z", "nowhere")] == [3, 2, 2, 1]
    assert Source("f.yaml").line("a.b") == 0


def test_scalars_are_those_of_kubernetes():
    text = "a: 2e-4\nb: 2026-01-31\nc: 1:30\nd: 1_000\ne: no\nf: 1.5\ng: .5\nh: =\ni: 0x10\nj: 017\nk: -3\nl: ~\n"
    value = read(text).value
    assert value == {
        "a": 2e-4,
        "b": "2026-01-31",
        "c": "1:30",
        "d": 1000,
        "e": False,
        "f": 1.5,
        "g": 0.5,
        "h": "=",
        "i": 16,
        "j": 15,
        "k": -3,
        "l": None,
    }


def test_merge_keys_have_lines_and_do_not_count_as_repeated():
    document = read("a: &x {k: 1, m: 2}\nb:\n  <<: *x\n  k: 3\n")
    assert document.value["b"] == {"k": 3, "m": 2}
    assert document.lines["b.k"] == 4


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\n", 3, "not YAML"),
        ("a: 1\n b: 2\n", 2, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is a duplicate, first on line 1"),
        ("x:\n  namespace: {{ .Release.Namespace }}\n", 2, "a key must be a string"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "is not supported"),
        ("a: !!timestamp 2026-01-31\n", 1, "is not supported"),
        ("a: 1\nb: !!int x\n", 2, "is not a valid int"),
        ("a: 0x_\n", 1, "is not a valid int"),
        (f"a: {'9' * 5000}\n", 1, "is not a valid int"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: &a\n  b: *a\n", 2, "aliases make this document recursive"),
        ("a: \0\n", 1, "not YAML"),
        ("[" * 100_000, 1, "nested too deeply"),
        ("{a: " * 100_000, 1, "nested too deeply"),
    ],
    ids=range(15),
)
def test_invalid_manifest_is_reported_with_its_line(text, line, words):
    _, [problem] = documents(text, "f.yaml")
    assert words in problem.message
    assert (problem.line, problem.file) == (line, "f.yaml")


def test_multiplying_aliases_are_rejected():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 12):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    _, [problem] = documents(text, "f.yaml")
    assert "very large" in problem.message


def test_documents_before_a_broken_one_are_kept():
    found, [problem] = documents("a: 1\n---\nb: [\n", "f.yaml")
    assert [document.value for document in found] == [{"a": 1}]
    assert problem.line == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"just text\n", "is not a Kubernetes object"),
        (b"- a\n- b\n", "is not a Kubernetes object"),
        (b"a: 1\n", "missing field kind"),
        (b"apiVersion: kaito.sh/v1beta1\nkind: Workspaces\n", "unknown kind Workspaces"),
        (b"apiVersion: v1\nkind: Pod\n", "contains no Workspace, only Pod"),
    ],
)
def test_a_file_without_a_workspace(tmp_path, content, words):
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        load(file)
    [problem] = caught.value.problems
    assert words in problem.message
    assert problem.fix


def test_a_file_that_cannot_be_read(tmp_path):
    for path, words in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null byte")):
        with pytest.raises(InvalidInput, match=words):
            load(path)


def test_byte_order_mark_is_not_part_of_the_text(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbfapiVersion: v1\nkind: Pod\n")
    with pytest.raises(InvalidInput, match="only Pod"):
        load(file)
