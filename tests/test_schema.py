"""Tables as users have them: what a file holds comes back in its names, units and labels."""

import csv
import dataclasses
import io
import json
import sys

import numpy as np
import polars as pl
import pytest
import torch

import monge
from monge import cli
from monge.config import (
    Column,
    Config,
    DataConfig,
    NetworkConfig,
    Schema,
    TrainingConfig,
    from_json,
    read_config,
    to_json,
)
from monge.data import load
from monge.data.kinds import VECTOR
from monge.data.readers import tables
from monge.show.pictures import VectorPictures

PEOPLE = {
    "age": ["31", "47", "", "52"],
    "sex": ["f", "m", "m", "NA"],
    "height, in m": ["1.72", "1.80", "1.65", "1.90"],
    "income": ["1500.123456789", "2e3", "NaN", "-0.5"],
    "smokes": ["True", "False", "False", "True"],
    "wave": ["7", "7", "7", "7"],
    "code": ["1", "2", "1", "10"],
    "class": ["a", "b", "a", "b"],
}
EVERY = DataConfig(categorical=("code", "class"), missing="indicator")
SMALL = NetworkConfig(hidden=(16,))


@pytest.fixture
def people(tmp_path):
    """A table with every kind of column, four rows that are repeated ten times."""
    path = tmp_path / "people.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(PEOPLE)
        writer.writerows(zip(*(cells * 10 for cells in PEOPLE.values())))
    return path


def test_what_every_column_is(people):
    found = tables.read(people, EVERY)
    columns = {c.name: c for c in found.schema.columns}
    assert list(columns) == list(PEOPLE)
    assert found.labels is None  # which are modelled
    kinds = [c.kind for c in found.schema.columns]
    assert kinds == [
        "integer",
        "category",
        *["float"] * 2,
        "category",
        "integer",
        *["category"] * 2,
    ]
    assert columns["sex"].values == ("f", "m", "")
    assert columns["smokes"].values == ("False", "True")
    assert columns["code"].values == ("1", "10", "2")
    assert columns["age"].fill == pytest.approx((31 + 47 + 52) / 3)
    assert columns["income"].fill == pytest.approx((1500.123456789 + 2000 - 0.5) / 3)
    assert (columns["height, in m"].decimals, columns["income"].decimals) == (2, None)
    assert columns["wave"].constant == 7
    assert found.schema.width == found.values.shape[1] == 2 + 3 + 1 + 2 + 2 + 1 + 3 + 2
    assert found.schema.elements[:6] == (
        *("age", "age missing", "sex=f", "sex=m", "sex=missing", "height, in m"),
    )


def test_elements_by_hand(people):
    x = tables.read(people, EVERY).values[2]
    age, income = (31 + 47 + 52) / 3, (1500.123456789 + 2000 - 0.5) / 3
    np.testing.assert_allclose(
        x, [age, 1, 0, 1, 0, 1.65, income, 1, 1, 0, 7, 1, 0, 0, 1, 0], rtol=1e-15
    )


def test_a_table_comes_back_cell_by_cell(people):
    found = tables.read(people, EVERY)
    frame = found.schema.decode(found.values)
    expected = {
        "age": [31, 47, None, 52],
        "sex": ["f", "m", "m", None],
        "height, in m": [1.72, 1.8, 1.65, 1.9],
        "income": [1500.123456789, 2000.0, None, -0.5],
        "smokes": PEOPLE["smokes"],
        "wave": [7] * 4,
        "code": PEOPLE["code"],
        "class": PEOPLE["class"],
    }
    assert frame.to_dict(as_series=False) == {k: v * 10 for k, v in expected.items()}
    assert frame.dtypes[0] == pl.Int64
    np.testing.assert_array_equal(found.schema.encode(frame), found.values)


def test_csv_in_float32_has_the_digits_of_the_file(people):
    """As networks see a table; a decimal fraction is none in float32."""
    found = tables.read(people, EVERY)
    content = found.schema.to_csv(torch.from_numpy(found.values).float()).decode()
    header, *rows = csv.reader(io.StringIO(content))
    assert header == list(PEOPLE)
    expected = [*zip(*PEOPLE.values())]
    for row, cells in zip(rows, expected * 10):
        for one, cell in zip(row, cells):
            if cell in ("", "NA", "NaN"):
                assert one == ""
            elif cell[0].isalpha():
                assert one == cell
            else:
                assert float(one) == pytest.approx(float(cell), rel=1e-7)
    assert [row[2] for row in rows[:4]] == ["1.72", "1.8", "1.65", "1.9"]


def test_decoding_rounds_takes_the_largest_and_clips_nothing():
    schema = Schema(
        (
            Column("n", "integer"),
            Column("c", "category", ("x", "y", "z")),
            Column("k", "integer", constant=7),
            Column("m", "float", decimals=1, fill=0.0),
        )
    )
    samples = [[-3.6, 0.2, 0.9, 0.1, 6.2, 1.26, 0.4], [1e6, -0.1, -0.3, -0.2, 8.0, 5.0, 0.6]]
    frame = schema.decode(torch.tensor(samples))
    assert frame.rows() == [(-4, "y", 7, 1.3), (1000000, "x", 7, None)]
    with pytest.raises(ValueError, match=r"`samples` must have shape \(n, 7\).*got \(2, 6\)"):
        schema.decode(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        schema.decode(np.full((2, 7), np.nan))
    with pytest.raises(ValueError, match=r"column 'n' has samples up to 1e\+20"):
        schema.decode(np.full((2, 7), 1e20))


def test_encoding_refuses_what_the_table_does_not_have():
    schema = Schema((Column("n", "integer"), Column("c", "category", ("x", "y"))))
    assert schema.encode(pl.DataFrame({"n": [1], "c": ["y"]})).tolist() == [[1, 0, 1]]
    with pytest.raises(ValueError, match="column 'c' has no value 'q': it is one of 'x', 'y'"):
        schema.encode(pl.DataFrame({"n": [1], "c": ["q"]}))
    with pytest.raises(ValueError, match="column 'n' has 1 missing cells"):
        schema.encode(pl.DataFrame({"n": [None], "c": ["x"]}))
    with pytest.raises(ValueError, match="`frame` has 1 columns, the table has 2"):
        schema.encode(pl.DataFrame({"n": [1]}))


def test_columns_of_one_name_are_both_kept():
    schema = Schema((Column("a", "integer"), Column("a", "integer")))
    assert schema.to_csv(np.array([[1, 2]])) == b"a,a\n1,2\n"


def test_a_schema_is_stored_and_read_again(people):
    schema = tables.read(people, EVERY).schema
    config = Config()
    settled = monge.config.Settled("vector", (16,), 10, 2, schema=schema)
    assert from_json(to_json(config, settled)) == (config, settled)
    damaged = json.loads(to_json(config, settled))
    damaged["settled"]["schema"]["columns"][1]["kind"] = "colour"
    with pytest.raises(ValueError, match=r"`settled.schema.columns\[1\].kind` is 'colour'"):
        from_json(json.dumps(damaged))


@pytest.mark.parametrize(
    ("content", "settings", "reason"),
    [
        ("a,b\n1,x\n,y\n3,x\n", {}, r"line 3, column 'a' is empty: .*--missing indicator"),
        ("a,b\n1,x\n2,NA\n3,x\n", {}, "line 3, column 'b' is missing, 'NA': fill it in"),
        ("a,b\n1,x\n2,3\n", {}, "'x' to a number in line 2, column 'b': .*--categorical"),
        ("a,b\n1,x\n2\n3,x\n", {"missing": "indicator"}, "line 3 has 1 cell"),
        ("a,b\n1,x\n2,\n3\n", {"missing": "indicator"}, "line 4 has 1 cell"),
        ("a,b\n1,12 %\n2,13 %\n", {}, "'12 %' to a number in line 2, column 'b'"),
        ("a,b\n1,\n2,\n", {"missing": "indicator"}, "column 'b' is empty in every row: remove"),
        ("1,x\n2,y\n", {}, "'x' to a number in line 1, column 1: .*--categorical"),
        ("a,b\n1,x\n", {"categorical": ("q",)}, "`categorical` 'q' names no column.*: a, b"),
        ("a,a\n1,2\n", {"leave_out": ("a",)}, "`leave_out` 'a' names 2 columns"),
        ("a\n1\n", {"leave_out": ("a",)}, "no column is left"),
    ],
)
def test_what_is_refused_names_the_place_and_the_way_out(tmp_path, content, settings, reason):
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=reason):
        tables.read(path, DataConfig(**settings))


NOT_READ = (
    *("12 %", "5‰", "$5", "12.50 €", "¥500", "-₹1", "1'234", "1’234", "1 234", "1_000"),
    *("−5", "5-", "(5)", "1.0D+05", "1d5", "1.5×10^3", "2x10**4", "3·10⁻²", "∞", "-∞", "0x1F"),
    *("0x1.8p+1", "np.float64(5.0)", "tensor(3.)", "1.2.3", "1..5", "٥"),
)
IN_DOUBT = ("1/2", "12:30", "2020-01-02", "18-25", "5 kg", "5k", "<5", "~5", "1st", "5±1", "3²")
NAMES = ("A1", "USD 5", "IV", "Jan 2020", "No. 5", "#5", "[1 2]", "x-5", "it", "Fiji", "taxi")


def of_cell(tmp_path, cell, **settings):
    (tmp_path / "x.csv").write_text(f"a;b\n1;{cell}\n2;{cell}\n", encoding="utf-8")
    return tables.read(tmp_path / "x.csv", DataConfig(**settings))


@pytest.mark.parametrize("cell", NOT_READ)
def test_numbers_in_notations_that_are_not_read_become_no_categories(tmp_path, cell):
    with pytest.raises(ValueError, match=r"to a number in line 2, column 'b': .*--categorical"):
        of_cell(tmp_path, cell)
    asked = of_cell(tmp_path, cell, categorical=("b",))
    assert asked.schema.columns[1].values == (cell,)
    assert "quantities" not in asked.summary


@pytest.mark.parametrize("cell", IN_DOUBT + NAMES)
def test_texts_that_begin_as_numbers_are_categories_and_pointed_out(tmp_path, cell):
    found = of_cell(tmp_path, cell)
    assert found.schema.columns[1].values == (cell,)
    words = f"column 'b' holds categories such as '{cell}': if they are quantities"
    assert (words in found.summary) == (cell in IN_DOUBT)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"delimiter": ","}, {"header": "z"}, {"fmt": "%.3g"}])
def test_complex_numbers_are_refused_by_name(tmp_path, columns, settings):
    values = np.random.default_rng(0).normal(size=(20, 2 * columns)).view(complex)
    np.savetxt(tmp_path / "x.csv", values, **settings)
    with pytest.raises(
        ValueError, match=r"is complex, .* give real and imaginary parts as columns"
    ):
        tables.read(tmp_path / "x.csv")
    for cell in ("1+2j", "-1e3i", "(nan+2j)", "2j"):
        with pytest.raises(ValueError, match="line 2, column 'b' is complex"):
            of_cell(tmp_path, cell)


def test_letters_are_no_imaginary_units(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,axis\n" + "".join(f"{n},{'ijJk'[n % 4]}\n" for n in range(20)))
    assert tables.read(path).schema.columns[1].values == ("J", "i", "j", "k")


@pytest.mark.parametrize(("rows", "distinct"), [(100, 51), (4000, 1001)])
def test_too_many_categories_are_refused_by_name(tmp_path, rows, distinct):
    path = tmp_path / "x.csv"
    for count in (distinct, distinct - 1):
        path.write_text("a,who\n" + "".join(f"{i},p{i % count}\n" for i in range(rows)))
        if count < distinct:
            assert len(tables.read(path).schema.columns[1].values) == count
            continue
        with pytest.raises(ValueError, match=r"'who' has .* too many .*--leave-out who"):
            tables.read(path)
        found = tables.read(path, DataConfig(leave_out=("who",)))
        assert found.schema.names == ("a",)
        assert "left out column 'who'" in found.summary


def test_cells_with_blanks_below_names_between_commas_are_no_columns(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("phone,x\n" + "".join(f"555 {1000 + i % 3},{i}\n" for i in range(9)))
    assert tables.read(path, DataConfig(leave_out=("phone",))).schema.names == ("x",)
    found = tables.read(path, DataConfig(categorical=("phone",)))
    assert found.schema.columns[0].values == ("555 1000", "555 1001", "555 1002")
    with pytest.raises(ValueError, match="'555 1000' to a number in line 2, column 'phone'"):
        tables.read(path)


def test_a_table_without_a_header_names_columns_by_number(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1.5,x\n2.5,y\n" * 10)
    found = tables.read(path, DataConfig(categorical=("1",)))
    assert found.schema.to_csv(found.values[:2]) == b"1.5,x\n2.5,y\n"


def test_a_plain_table_is_the_numbers_it_was(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 3)) * [1, 1e-3, 1e6]
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    source = load(DataConfig(str(tmp_path / "x.csv")))
    assert source.schema is not None
    assert source.schema.is_numeric
    assert source.shape == (3,)
    assert source.columns == ()
    rows = torch.cat([source.train, source.test])
    assert sorted(rows[:, 0].tolist()) == sorted(x[:, 0].astype(np.float32).tolist())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("categorical", DataConfig(categorical=("a",))),
        ("leave_out", DataConfig(leave_out=("a",))),
        ("missing", DataConfig(missing="indicator")),
    ],
)
def test_settings_of_tables_are_refused_for_other_data(tmp_path, name, settings):
    np.save(tmp_path / "x.npy", np.zeros((10, 2)))
    for data in ("digits", str(tmp_path / "x.npy")):
        with pytest.raises(ValueError, match=f"`{name}` is for tables in text files"):
            load(dataclasses.replace(settings, name=data))
    with pytest.raises(ValueError, match=f"`{name}` is for tables in text files"):
        monge.fit("vae", np.zeros((10, 2)), Config(data=settings))


def test_rows_are_known_by_their_cells(people):
    """Not by the mean that stands for missing ones, which depends on all rows."""
    source = load(dataclasses.replace(EVERY, name=str(people)))
    text = people.read_text(encoding="utf-8")
    people.write_text(text + "90,f,1.5,7,True,7,1,a\n", encoding="utf-8")
    more = load(dataclasses.replace(EVERY, name=str(people)))
    assert more.schema != source.schema
    assert source.identity.difference(more.identity) == "added 1, removed 0, changed 0"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",f,", ",w,", "column 'sex' is sex=m, sex=w, sex=missing in place of sex=f, sex=m"),
        ("wave", "tide", "column 'tide' in place of 'wave'"),
    ],
)
def test_other_labels_do_not_replace_those_of_a_run(run, people, old, new, reason):
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace(old, new).replace("31,", "32,"), encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        assert monge.Run(run.path, data_changed=True).source
    with pytest.raises(ValueError, match=reason):
        monge.fit(config=run.config, out=run.path, resume=True, data_changed=True)


def test_other_rows_replace_those_of_a_run_on_purpose(run, people):
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace("31,", "32,"), encoding="utf-8")
    with pytest.raises(ValueError, match="changed 10: pass those as --data"):
        assert monge.Run(run.path).source
    assert monge.Run(run.path, data_changed=True).source.columns == run.schema.names


@pytest.fixture
def run(people, tmp_path):
    config = Config(
        data=DataConfig(str(people), categorical=("code",), missing="indicator"),
        network=SMALL,
        training=TrainingConfig(steps=20, batch=10),
    )
    return monge.fit("vae", config=config, out=tmp_path / "run", quiet=True)


def test_a_run_draws_rows_of_its_table(run, tmp_path, monkeypatch, capsys):
    names = [name for name in PEOPLE if name != "class"]
    frame = run.table(50, torch.Generator().manual_seed(0))
    assert frame.columns == names
    assert frame.height == 50
    assert set(frame["code"]) <= {"1", "2", "10"}
    assert set(frame["wave"]) == {7}
    samples = run.sample(50, torch.Generator().manual_seed(0))
    assert samples.shape == (50, 14)
    assert run.settled.schema.decode(samples).equals(frame)
    out = tmp_path / "x.csv"
    monkeypatch.setattr(
        sys, "argv", ["monge", "sample", str(run.path), "-n", "9", "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == names
    assert len(rows) == 10
    # the file is a table like the one it was trained on
    again = tables.read(out, DataConfig(categorical=("code",), missing="indicator"))
    assert again.schema.names == run.settled.schema.names
    assert read_config(run.path)[1].schema == run.source.schema


def test_rows_of_vectors_and_not_of_images(tmp_path, monkeypatch, capsys):
    training = TrainingConfig(steps=2, batch=10)
    config = Config(network=SMALL, training=training)
    line = monge.fit("vae", np.arange(40.0).reshape(20, 2), config, tmp_path / "v", quiet=True)
    assert line.schema.to_csv([[0.5, 1.0]]) == b"0.5,1.0\n"
    config = Config(network=NetworkConfig(filters=(4,)), training=training)
    monge.fit("vae", "digits", config, tmp_path / "i", quiet=True)
    out = tmp_path / "x.csv"
    monkeypatch.setattr(sys, "argv", ["monge", "sample", str(tmp_path / "i"), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert not out.exists()
    assert "of images, which are not rows of a table: give .png" in capsys.readouterr().err


def test_the_report_draws_the_columns(run):
    page = run.report.read_text(encoding="utf-8")
    assert "<h2>marginals</h2>" in page
    assert (run.path / "pictures" / "marginals.png").exists()


def test_marginals_are_drawn_whatever_columns_are_called_and_hold(run):
    """Names that matplotlib takes for formulas, columns of one name, one value or no cell."""
    names = ["$x_{", "a", "a", "", "é\n|", "q"]
    columns = [Column(name, "float", fill=0.0) for name in names]
    columns.append(Column("c", "category", tuple(f"$v{i}$" for i in range(12))))
    columns += [Column(f"wide {i}", "integer") for i in range(30)]
    schema = Schema(tuple(columns))
    x = torch.randn(20, schema.width)
    x[:, 1] = 1.0  # missing
    x[:, 2] = 3.0
    picture = VectorPictures(VECTOR).marginals(x, x.flip(0), schema)
    one = VectorPictures(VECTOR).marginals(x[:, :2], x[:, :2], Schema((columns[0],)))
    assert picture is not None
    assert one is not None
    assert picture.width > 3 * one.width
    assert 5 * one.height < picture.height < 7 * one.height  # 24 columns, 4 a row


def test_distances_are_between_numbers(people, monkeypatch, capsys):
    text = people.read_text(encoding="utf-8").replace("NA", "m").replace("NaN", "1")
    people.write_text(text.replace("\n,m", "\n3,m"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["monge", "distance", str(people), str(people)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "has a column 'sex' of texts, such as 'f': distances are between rows" in error
