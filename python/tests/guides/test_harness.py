"""What runs the guides notices when a guide is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import guide as guides
from tests.support.guide import Block, Guide, blocks

ENDPOINTS = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


@pytest.fixture
def guide(tmp_path: Path) -> Iterator[Guide]:
    """In place of the server there is Python: no cluster is needed here."""
    with Guide(tmp_path, ENDPOINTS, {}, sys.executable) as guide:
        yield guide


def python(*lines: str) -> Block:
    return Block("page.md:1", "python", "\n".join(lines) + "\n")


def shell(*lines: str) -> Block:
    return Block("page.md:1", "sh", "\n".join(lines) + "\n")


def test_blocks_are_found_by_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n```sh\nls\n```\ntext `x`\n```python\na = 1\n\nb = 2\n```\n", "utf-8")
    assert blocks(page) == [
        Block("page.md:2", "sh", "ls\n"),
        Block("page.md:6", "python", "a = 1\n\nb = 2\n"),
    ]


def test_a_block_without_an_end_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nls\n", "utf-8")
    with pytest.raises(AssertionError, match=r"page\.md:1.* without an end"):
        blocks(page)


def test_python_goes_on_from_block_to_block(guide: Guide) -> None:
    guide.run(python("a = 20"))
    guide.run(python("print(a + 1)  #=> 21", "print('done')  #=> done"))


def test_what_a_guide_defines_can_be_pickled(guide: Guide) -> None:
    guide.run(python("class Job: pass", "import pickle", "pickle.loads(pickle.dumps(Job()))"))


@pytest.mark.parametrize(
    "wrong",
    [
        python("print(20)  #=> 21"),
        python("1 / 0"),
        python("raise SystemExit"),
        python("print(1)", "#=> 2", "print(2)", "#=> 1"),
        shell("false", "true"),
        shell("echo a b  #=> a"),
        shell("undefined=$nothing"),
        Block("page.md:1", "ruby", "puts 1\n"),
    ],
    ids=lambda block: block.code.replace("\n", ";"),
)
def test_what_is_wrong_fails(guide: Guide, wrong: Block) -> None:
    with pytest.raises(AssertionError, match=r"page\.md"):
        guide.run(wrong)


def test_a_block_that_hangs_ends(guide: Guide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "BLOCK_SECONDS", 0.5)
    with pytest.raises(AssertionError, match="did nothing"):
        guide.run(python("import threading", "threading.Event().wait()"))


def test_dots_stand_for_anything(guide: Guide) -> None:
    guide.run(shell("echo revision 17 of 20  #=> revision … of 20"))
    with pytest.raises(AssertionError):
        guide.run(shell("echo revision 17 of 20  #=> revision … of 21"))


def test_a_block_may_be_a_file(guide: Guide) -> None:
    guide.run(python("# jobs.py", "print('ran')"))
    guide.run(shell("python jobs.py  #=> ran"))


def test_the_cluster_is_where_there_is_room(guide: Guide) -> None:
    guide.run(shell("echo 127.0.0.1:7480,127.0.0.1:7490 $HOLDFAST_ENDPOINTS", "#=> …:1,…:2 …:3"))


def test_the_command_is_the_one_under_test(guide: Guide) -> None:
    guide.run(shell("holdfast -c 'print(1 + 1)'  #=> 2"))
