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
        ("1.5e+00 2.5e-01\n-1e+00 0\n", [[1.5, 0.25], [-1, 0]]),  # and as it does by default
        ("# a b\n1 2\n3 4\n", [[1, 2], [3, 4]]),
        ("\n  a     b  \n  1    20 \n\n 100    2\n", [[1, 20], [100, 2]]),  # aligned
        ("x label\n1 0\n2 1\n", [[1], [2]]),
        ("1 2 3\n4 5 6\n", [[1, 2, 3], [4, 5, 6]]),
        ("my run,other run\n1, 2\n3, 4\n", [[1, 2], [3, 4]]),  # which no blanks separate
        ("1" + 10**6 * " " + "2\n3 4\n", [[1, 2], [3, 4]]),  # whose runs of blanks are read once
        (",a,b\n0,1,2\n1,3,4\n", [[1, 2], [3, 4]]),  # pandas, with its index
        ("Unnamed: 0;a;b\n7;1;2\n3;3;4\n", [[1, 2], [3, 4]]),  # and once more, a part of it
        (",0,1\n0,5,2\n1,3,4\n", [[5, 2], [3, 4]]),  # names that are numbers
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
        ("a,b\n1,2\n3,inf\n", "line 3, column 'b' is 'inf', not finite in float64: correct it"),
        ("a,b\n1,2\n-1e400,4\n", "line 3, column 'a' is '-1e400', not finite in float64"),
        ("a;b\n1,5;2,5\n3,5;1,5e999\n", "line 3, column 'b' is '1,5e999', not finite in float64"),
        (f"a,b\n1,2\n1{'0' * 5000},4\n", "line 3, column 'a' is '10*', not finite in float64"),
        ("a,b\nx,2\ny,1e400\n", "line 3, column 'b' is '1e400', not finite in float64"),
        ("a,b\n1,\n2,3\n", "line 2, column 'b' is empty"),
        ("a,label\n1,\n2,3\n", "line 2, column 'label' is empty"),
        ("a;b\n1.234;2,5\n1.500;3,5\n", "string '2,5' to a number in line 2, column 'b'"),
        ("a;b\n1,5;1.234\n1,5;2,5\n1,5;2,5\n", "string '1.234' to a number in line 2"),
        ("1 2 3\n4 5\n", "line 1 has 3 cells, and most rows have 2"),
        ("a b\n" + "1 2\n" * 300 + "3\n", "line 302 has 1 cell, and most rows have 2"),
        ("x y\n1 2\n3 4\n# end\n", "string '#' to a number in line 4, column 'x'"),
        ("x y\n1 2\n3 4\n5 NA\n", "line 4, column 'y' is missing, 'NA'"),
        ("# made by hand\n# x y\n1 2\n3 4\n", "line 1 has 3 cells and the rows below it have 2"),
        ("label\n1\n2\n", "no column is left beside column 'label': classes, ind"),
        ("my run of May\n1 2\n3 4\n", "line 1 has 4 cells and the rows below it have 2"),
        ('"a" "b"\n1 2\n3 4\n', "separated by blanks and it has quotes: separate them by commas"),
        ("1 234\n12 345\n", "line 2, '12 345', may be several numbers with blanks between them"),
        ("1,5 2\n2,5 3\n", "line 2, '2,5 3', may be several numbers with blanks between them"),
        ("0 1,5 2\n1 2,5 3\n", "line 2, '1 2,5 3', may be several numbers with blanks between"),
        ("1_000,2\n3,4\n", "string '1_000' to a number in line 1, column 0"),
        (",x\nbob,1\nbob,2\n", "string 'bob' to a number in line 2"),
        ('a,b\n1,2\n3,"\n', "line 3 has a quote that is not closed"),
        ('a,b\n1,"2\n3,4\n', "line 2 has a quote that is not closed"),
        ("", "it holds nothing"),
        ("\n \n", "it holds nothing"),
        (b"1,2\n\0\1\2\n", "bytes that are not text"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(table, content, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        table(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(
    ("header", "rows", "bad"),
    [
        ("class,temp", ["a,20", "b,21", "a,22"], "b,21,5"),
        ("label,price,area", ["x,950,40", "y,3,4"], "y,1,234,41"),
        (",a,b", [f"{i},1,2" for i in range(9)], "9,3,4,9"),
        ("a,b,label,class", ["1,2,x,z", "5,6,x,z"], "3,4,y"),  # the last of which is not read
        ("a,b,label,class", ["1,2,x,z", "5,6,x,"], "3,4,y"),
        ("class,a,b", ["x,1,2"] * 400, "y,1,2,3"),
        ("a,b,class", ["1,2,x"] * 400, "1,2"),
    ],
)
def test_every_row_is_counted_whatever_is_read_of_it(table, header, rows, bad, quoted):
    lines = [header, *rows[:-1], bad, rows[-1]]
    if quoted:  # as csv.QUOTE_ALL writes them
        lines = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    found = rf"line {len(rows) + 1} has {bad.count(',') + 1} cells, and most rows have"
    with pytest.raises(ValueError, match=found):
        table("\n".join(lines))
    assert len(table("\n".join([*lines[:-2], lines[-1]])).values) == len(rows)


@pytest.mark.parametrize(
    ("content", "values", "labels"),
    [
        ("label,x,y\ncat,1,2\ndog,3,4\n ", [[1, 2], [3, 4]], ["cat", "dog"]),
        ("label,x\n\n \na,1\n\t\nb,2\n\n", [[1], [2]], ["a", "b"]),
        (",x,y\n0,1,2\n1,3,4\n  \n", [[1, 2], [3, 4]], None),
        ("a\n1\n2\n\n \n", [[1], [2]], None),
        ("\n\n1\n2\n", [[1], [2]], None),
        ('t,label\n1,"a\n\nb"\n2,c\n', [[1], [2]], ["a\n\nb", "c"]),  # within quotes
        ('x, label\n1, "cat"\n2, cat', [[1], [2]], ["cat", "cat"]),  # as R and people write
        ('1, "2"\n3 ,"4" \n', [[1, 2], [3, 4]], None),
        ('x;label\n1; "a; b" \n2;"a ""b"", c"\n', [[1], [2]], ["a; b", 'a "b", c']),
        ("1,5;2,5\n3;4\n5;6\n7;8", [[1.5, 2.5], [3, 4], [5, 6], [7, 8]], None),
        (f"a,b\n{2**63},1\n{2**64 - 1},2\n", [[2**63, 1], [2**64 - 1, 2]], None),
    ],
)
def test_lines_and_cells_that_mislead(table, content, values, labels):
    """Blank lines, blanks at quotes, a first row with the other decimal sign, and 64 bits."""
    found = table(content)
    np.testing.assert_array_equal(found.values, values)
    assert (None if found.labels is None else found.labels.tolist()) == labels
    assert not any('"' in name or " " in name for name in found.schema.names)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\n1\n\n3\n4", "line 3, column 'a' is empty"),
        ('a\n1\n""\n3\n', "line 3, column 'a' is empty"),
        ("1\t2\n3\t4\n\t\n5\t6", "line 3, column 0 is empty"),
        ("1,2\n3,4\n,\n5,6", "line 3, column 0 is empty"),
        ('a,label\n1,""\n2,x\n', "line 2, column 'label' is empty: name the class, remove"),
        ("a,label\n1, \n2,x\n", "line 2, column 'label' is empty"),
        ("a,Class\n1,x\n2,nan\n", "line 3, column 'Class' is missing, 'nan': name the class"),
        ("a,label\n1,NA\n2,x\n", "line 2, column 'label' is missing, 'NA'"),
        ("0,5\n1\n2\n3", "could not convert string '0,5' to a number in line 1"),
        ("1.5;2.5\n3,5;4,5\n5,5;6,5\n", "could not convert string '1.5' to a number in line 1"),
        ("".join(f"{2**62 + 7 * i},{i / 2}\n" for i in range(9)), "column 0 holds integers beyo"),
        ("".join(f"{2**63 + 7 * i},{-i}\n" for i in range(9)), "column 0 holds integers beyond"),
        ("".join(f"{10**25 + i}\n" for i in range(9)), "column 0 holds integers beyond 2"),
    ],
)
def test_cells_that_would_be_lost_are_refused(table, content, reason):
    with pytest.raises(ValueError, match=reason):
        table(content)


@pytest.mark.parametrize(
    ("content", "values", "said"),
    [
        (
            "0,1\n.5,2.\n3.0,4.5\n1e0,2e0\n",
            [[0.5, 2], [3, 4.5], [1, 2]],
            r"\(0, 1\) is read",
        ),
        (
            "0,1,2\n5,6,8\n9,4,5\n",
            [[0, 1, 2], [5, 6, 8], [9, 4, 5]],
            r"as a sample",
        ),
        ("2019;2020;2021\n5;6;8\n", [[2019, 2020, 2021], [5, 6, 8]], "is read as a sample"),
        (
            '"1,234"\t5\n"12,345"\t6\n999\t7\n',
            [[1.234, 5], [12.345, 6], [999, 7]],
            "may separ",
        ),
        ("a;b\n1,234;5\n12,345;6\n", [[1.234, 5], [12.345, 6]], "'a' .* 1,234 is read as 1.234"),
        ("a;b\n1.234;5\n12.345;6\n999;7", [[1.234, 5], [12.345, 6], [999, 7]], "'a' may separate"),
    ],
)
def test_what_can_be_read_in_two_ways_is_warned_of(table, content, values, said):
    with pytest.warns(UserWarning, match=said):
        found = table(content)
    np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize(
    "content",
    [
        "1.234\n12.345\n2.500\n",  # numpy.savetxt(fmt="%.3f")
        "1,234;1\n0,500;2\n",
        "1,234;1\n12,34;2\n",
        "1.5\n2\n999\n",
        "0,1,2\n3,4,5\n6,7,8\n",
    ],
)
def test_what_is_ordinary_is_not_warned_of(table, content):
    table(content)


def test_more_classes_than_are_read_are_said(table):
    with pytest.warns(UserWarning, match="labels of 1,001 classes are not read"):
        found = table("label,x\n" + "".join(f"{i / 7},{i}\n" for i in range(1001)))
    assert found.labels is None
    assert "labels of 1,001 classes are not read" in found.summary


def test_the_encoding_of_windows(table):
    found = table("preis €,label\n1,„a“\n2,b\n".encode("cp1252"))
    assert found.schema.names == ("preis €",)
    assert set(found.labels) == {"„a“", "b"}
    assert "\x81" in table(b"a\x81,b\n1,2\n").schema.names[0]  # which Windows does not have


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
    assert ("windows-1252" in found.summary) == (encoding == "latin-1")


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


@pytest.mark.parametrize("n", [19, 20])
def test_a_column_that_numbers_the_rows_is_pointed_out(n, tmp_path):
    """Consecutive integers in any order; not in so short a table that it may be a coincidence."""
    file, order = tmp_path / "x.csv", np.random.default_rng(0).permutation(n) + 7
    rows = (f"{i},{i % 5},{i / 4}" for i in order)
    file.write_text("\n".join(["id,few,half", *rows]) + "\n")
    table = tables.read(file)
    assert ("'id' numbers the rows" in table.summary) == (n == 20)
    assert "'few' numbers" not in table.summary
    assert "'half' numbers" not in table.summary
    assert table.values.shape == (n, 3)


def test_a_category_may_be_called_infinite(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("size,v\n" + "s,1\nm,2\ninf,3\nl,4\n" * 5)
    config = DataConfig(name=str(file), categorical=("size",))
    assert tables.read(file, config).values.shape == (20, 5)
