import checks
import pytest

from reproduction.report.markdown import printable, text, update_block


def test_text_from_outside_stays_in_its_cell():
    assert text("a|b\n`c` <!-- \0\udc80 é") == "a\\|b?'c' &lt;!-- ?? é"
    assert printable("x" * 1000) == "x" * 500
    assert printable(None) == "None"


PAGE = (
    "# Title\n\n<!-- made by ./x -->\nold\n<!-- end -->\n<!-- made by ./y -->\nold\n<!-- end -->\n"
)


def test_a_block_is_replaced_between_its_marks(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    update_block(page, "./y", "new\n\nlines\n")
    assert page.read_text() == (
        "# Title\n\n<!-- made by ./x -->\nold\n<!-- end -->\n"
        "<!-- made by ./y -->\nnew\n\nlines\n<!-- end -->\n"
    )
    update_block(page, "./x", "first")
    assert page.read_text().startswith("# Title\n\n<!-- made by ./x -->\nfirst\n<!-- end -->\n")


def test_a_page_that_need_not_change_is_not_written(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    before = page.stat()
    update_block(page, "./x", "old")
    assert page.stat() == before


@pytest.mark.parametrize("page", ["", "<!-- end -->\n", "<!-- made by ./x -->\n", "# Title\n"])
def test_a_page_without_the_marks_stays(tmp_path, page):
    path = tmp_path / "README.md"
    path.write_text(page)
    assert checks.refusal(update_block, path, "./x", "new") == (
        f"{path} lacks the lines <!-- made by ./x --> and <!-- end -->; put them where what ./x "
        "generates should stand"
    )
    assert path.read_text() == page
    path.unlink()
    assert "lacks the lines" in checks.refusal(update_block, path, "./x", "new")
