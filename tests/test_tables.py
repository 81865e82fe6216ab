"""Tables in the dialects that programs write: the right numbers, or the line that is wrong."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from monge.config import DataConfig
from monge.data import load
from monge.data.readers import tables
from monge.data.readers.arrays import read


@pytest.fixture
def table(tmp_path):
    def write(content: str | bytes) -> tables.Table:
        path = tmp_path / "x.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tables.read(path)

    return write


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("header", [True, False])
def test_every_separator_and_decimal_sign(table, separator, decimal, header, ending):
    x = np.random.default_rng(0).normal(size=(20, 3)) * [1, 1e-9, 1e9]
    if separator == decimal:
        cell = '"{}"'  # quoted, as a spreadsheet writes it: two commas would be ambiguous
        rows = [separator.join(cell.format(str(v).replace(".", ",")) for v in row) for row in x]
        with pytest.raises(ValueError, match="could not convert string"):
            table(ending.join(rows))
        return
    rows = [separator.join(str(v).replace(".", decimal) for v in row) for row in x.tolist()]
    found = table(ending.join([*([separator.join("abc")] if header else []), *rows, ""]))
    np.testing.assert_array_equal(found.values, x)
    assert found.values.flags.c_contiguous
    assert found.schema.names == (("a", "b", "c") if header else ("0", "1", "2"))
    assert ("decimal commas" in found.summary) == (decimal == ",")


def test_numbers_are_those_that_numpy_reads(table):
    """Exactly rounded, in all the ways in which a float is written."""
    bits = np.random.default_rng(0).integers(0, 2**63, 4000).view(np.float64)
    x = bits[np.isfinite(bits)][: 2 * (np.isfinite(bits).sum() // 2)].reshape(-1, 2)
    for form in ("%r", "%.3e", "%.25g", "%+.17E"):
        rows = ["{},{}".format(*(form % v for v in row)) for row in x.tolist()]
        np.testing.assert_array_equal(
            table("\n".join(rows)).values, np.loadtxt(rows, delimiter=",")
        )


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ('"a","b"\n"1","2"\n3,"4"\n', [[1, 2], [3, 4]]),
        ("a, b\n1, 2\n 3 ,4\n", [[1, 2], [3, 4]]),
        ("\n\na,b\n\n1,2\n \n3,4\n\n\n", [[1, 2], [3, 4]]),
        ("sep=;\na;b\n1;2\n", [[1, 2]]),  # Excel
        ("# a,b\n1,2\n", [[1, 2]]),  # numpy.savetxt
        (",a,b\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]]),  # pandas, with its index
        ("Unnamed: 0;a;b\n7;1;2\n3;3;4\n", [[1, 2], [3, 4]]),  # and once more, a part of it
        (",0,1\n0,5,2\n1,3,4\n", [[5, 2], [3, 4]]),  # names that are numbers
        ("0,1\n.5,2.\n3.0,4.5\n1e0,2e0\n", [[0.5, 2], [3, 4.5], [1, 2]]),  # without an index
        (",a\nbob,1\namy,2\n", [[1], [2]]),  # names of rows
        ("index,a\n0,1\n1,2\n", [[1], [2]]),
        ("index,a\n0,1\n0,2\n", [[0, 1], [0, 2]]),  # which is none
        ("1.5\n2.5\n", [[1.5], [2.5]]),
        ("1,5\n2,5\n", [[1, 5], [2, 5]]),
        ("2019,2020\n1,2\n3,4\n4,5\n", [[2019, 2020], [1, 2], [3, 4], [4, 5]]),
        # the first decimal comma comes after the rows by which the dialect is chosen
        ("1;2\n" * 300 + "1,5;2\n", [[1, 2]] * 300 + [[1.5, 2]]),
    ],
)
def test_tables_as_programs_write_them(table, content, values):
    np.testing.assert_array_equal(table(content).values, values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("my run\n1,2,3\n4,5,6\n", "line 1 has 1 cell and the rows below it have 3"),
        ("a,b\n1,2,3\n4,5,6\n", "line 1 has 2 cells and the rows below it have 3"),
        ("a,b\n1,2\n3\n4,5\n", "line 3 has 1 cell, and most rows have 2"),
        ("a,b\n1,2\n3,4,5\n4,5\n", "line 3 has 3 cells, and most rows have 2"),
        ("1,2\n" * 500 + "\n3\n", "line 502 has 1 cell, and most rows have 2"),
        ("1,2\n" * 500 + "3,4,5\n", "line 501 has 3 cells, and most rows have 2"),
        ('"a\nb",c\n1,2\n3,x\n', r"'x' to a number in line 4, column 'c'"),
        ("a,b\n1,2\n3,dog\n", r"string 'dog' to a number in line 3, column 'b'"),
        ("NA,5\n1,2\n", "line 1, column 0 is missing, 'NA'"),
        ("a,b\n1,\n2,3\n", "line 2, column 'b' is empty"),
        ("a,label\n1,\n2,3\n", "line 2, column 'label' is empty"),
        ("a;b\n1.234;2,5\n1.500;3,5\n", "string '2,5' to a number in line 2, column 'b'"),
        ("a;b\n1,5;1.234\n1,5;2,5\n1,5;2,5\n", "string '1.234' to a number in line 2"),
        ("1 2 3\n4 5 6\n", "string '4 5 6' to a number in line 2"),
        ("1_000,2\n3,4\n", "string '1_000' to a number in line 1, column 0"),
        (",x\nbob,1\nbob,2\n", "string 'bob' to a number in line 2"),
        ('a,b\n1,2\n3,"\n', "line 3 has a quote that is not closed"),
        ('a,b\n1,"2\n3,4\n', "line 2 has a quote that is not closed"),
        ("", "it holds nothing"),
        ("\n \n", "it holds nothing"),
        (b"1,2\n\0\1\2\n", "bytes that are no text"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(table, content, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        table(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be"]
)
def test_every_encoding(table, encoding):
    rows = "".join(
        f"{i},{'käse' if i % 2 else 'œuf' if encoding != 'latin-1' else 'été'}\n"
        for i in range(20)
    )
    found = table(f"größe,label\n{rows}".encode(encoding))
    assert found.schema.names == ("größe",)
    np.testing.assert_array_equal(found.values[:, 0], np.arange(20))
    assert set(found.labels) == {"käse", "été" if encoding == "latin-1" else "œuf"}
    assert ("latin-1" in found.summary) == (encoding == "latin-1")


def test_columns_and_summary_are_on_the_source(tmp_path):
    rows = "\n".join(f"{i};{i / 4:.2f};{i % 2};x".replace(".", ",") for i in range(20))
    (tmp_path / "x.csv").write_text(f";height;class;label\n{rows}\n")
    source = load(DataConfig(str(tmp_path / "x.csv")))
    assert source.columns == ("height",)
    assert torch.cat([source.train, source.test]).sum() == 190 / 4
    assert source.summary == (
        "read 20 rows of 1 column below a header, separated by semicolons, with decimal commas; "
        "left out "
        "column 'label', the index column"
    )


@pytest.mark.parametrize("name", ["x.tsv", "x.txt", "x", "x.npy", "x.npz"])
def test_files_are_told_apart_by_their_content(tmp_path, name):
    """Whatever the suffix, as far as the first bytes say what it is."""
    x = np.arange(20.0).reshape(10, 2)
    text = tmp_path / name
    if name.startswith("x.n"):
        (tmp_path / "y").mkdir()
        np.save(tmp_path / "y" / "x.npy", x)
        np.savez(tmp_path / "y" / "x.npz", x=x)
        for wrong in (".csv", "", ".bin"):
            path = tmp_path / f"z{wrong}"
            path.write_bytes((tmp_path / "y" / name).read_bytes())
            np.testing.assert_array_equal(read(path).samples, x)
            assert load(DataConfig(str(path))).shape == (2,)
        return
    text.write_text("\n".join(f"{a}\t{b}" for a, b in x.tolist()))
    np.testing.assert_array_equal(read(text).samples, x)
    assert load(DataConfig(str(text))).shape == (2,)


def test_a_wide_table_is_read_within_its_size(tmp_path):
    """50 rows × 20,000 columns, a gene table: a header a column, and numbers."""
    x = np.random.default_rng(0).random((50, 5000)).round(6)
    header = ",".join(f"gene {i}" for i in range(5000))
    np.savetxt(tmp_path / "x.csv", x, fmt="%.6f", delimiter=",", header=header, comments="")
    np.testing.assert_array_equal(read(tmp_path / "x.csv").samples, x)


def test_nothing_is_read_in_the_encoding_of_the_platform(tmp_path):
    """Python warns of a file that is opened without an encoding; here that is an error."""
    (tmp_path / "x.csv").write_text("é,label\n" + "1,ö\n2,ü\n" * 10, encoding="utf-8")
    script = (
        "import sys, warnings, polars\n"
        "import monge.data.readers.cache\n"
        "from monge.config import DataConfig\n"
        "from monge.data import load\n"
        "from PIL import Image\n"
        f"folder = {str(tmp_path)!r}\n"
        "import os; os.mkdir(folder + '/i')\n"
        "[Image.new('L', (4, 4), i).save(f'{folder}/i/{i}.png') for i in range(9)]\n"
        "warnings.simplefilter('error', EncodingWarning)\n"
        "source = load(DataConfig(folder + '/x.csv'))\n"
        "assert source.classes == ('ö', 'ü') and source.columns == ('é',)\n"
        "for _ in range(2):\n"
        "    load(DataConfig(folder + '/i', cache=folder + '/c'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
