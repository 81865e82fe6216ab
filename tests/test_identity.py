"""What a run knows its data by: fingerprints, held-out samples by content, data elsewhere."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import monge
from monge.config import Config, DataConfig, override, read_config, to_json
from monge.data import Source, identity, load
from monge.data.readers.arrays import from_array
from monge.runs import Run, compare, export
from monge.show import card, comparison, report, stamped
from monge.show.explore import history
from monge.training import checkpoint
from monge.training.validation import held_apart


def config(**settings) -> Config:
    made = Config.of("wae-mmd")
    settings = {"training.steps": 2, "training.batch": 8, "threads": 1, **settings}
    for name, value in settings.items():
        made = override(made, name, value)
    return made


def pictures(folder, count: int, seed: int = 0):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 8, 8), dtype=np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i:04}.png")
    return folder


def rows(part: torch.Tensor) -> set[bytes]:
    return {one.numpy().tobytes() for one in part}


# Which samples are held out


@pytest.mark.parametrize("change", ["add", "rename", "remove"])
def test_no_change_moves_another_sample_between_the_parts(tmp_path, change):
    folder = pictures(tmp_path / "x", 200)
    before = load(DataConfig(str(folder)))
    if change == "add":
        pictures(tmp_path / "more", 1, seed=1).joinpath("0000.png").rename(folder / "-1.png")
    elif change == "rename":
        (folder / "0150.png").rename(folder / "first.png")
    else:
        (folder / "0000.png").unlink()
    after = load(DataConfig(str(folder)))
    assert not rows(before.train) & rows(after.test)
    assert not rows(before.test) & rows(after.train)
    assert abs(len(before.test) - len(after.test)) <= 1
    assert (before.identity.fingerprint == after.identity.fingerprint) == (change == "rename")


def test_copies_of_an_image_stay_in_one_part_and_equal_rows_of_a_table_do_not(tmp_path):
    folder = pictures(tmp_path / "x", 60)
    for file in sorted(folder.glob("*.png")):
        shutil.copy(file, folder / f"copy-{file.name}")
    source = load(DataConfig(str(folder)))
    assert not rows(source.train) & rows(source.test)
    assert len(source.test) % 2 == 0
    table = from_array(np.repeat(np.arange(3.0), 500)[:, None])
    assert rows(table.train) == rows(table.test)
    assert 100 < len(table.test) < 200


def test_a_tenth_is_held_out_of_many():
    source = from_array(np.random.default_rng(0).normal(size=(20_000, 2)))
    assert len(source.test) == pytest.approx(2000, abs=4 * 42)


@pytest.mark.parametrize("count", [4, 5, 9, 20])
def test_each_part_of_few_samples_has_two(count):
    for seed in range(20):
        source = from_array(np.random.default_rng(seed).normal(size=(count, 2)))
        assert min(len(source.train), len(source.test)) >= 2
        assert len(source.train) + len(source.test) == count
        assert source.held_out


def test_copies_of_an_image_stay_together_where_the_lowest_digests_fill_a_part(tmp_path):
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 255, (3, 8, 8), dtype=np.uint8)
        source = from_array(np.repeat(pixels, 4, 0))
        assert not rows(source.train) & rows(source.test)
        assert min(len(source.train), len(source.test)) >= 4


def test_the_parts_of_a_labelled_table_do_not_depend_on_the_order_of_its_rows():
    x = np.random.default_rng(0).integers(0, 3, (300, 2)).astype(float)
    labels = np.arange(300) % 4
    one, other = from_array(x, labels), from_array(x[::-1], labels[::-1])
    assert one.identity.fingerprint == other.identity.fingerprint


def test_the_validation_part_is_a_function_of_content():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 2)))
    contents = identity.digests(x.numpy())
    train, held = held_apart(x, 3, contents)
    order = np.random.default_rng(1).permutation(299)
    others = held_apart(x[order], 3, contents[order])
    assert not rows(train) & rows(others[1])
    assert not rows(held) & rows(others[0])
    assert 10 < len(held) < 60
    assert rows(held) != rows(held_apart(x, 4, contents)[1])


@pytest.mark.parametrize("count", [2, 3])
def test_of_two_or_three_samples_none_is_held_out_and_that_is_said(count):
    source = from_array(np.random.default_rng(0).normal(size=(count, 2)))
    assert len(source.train) == len(source.test) == count
    assert not source.held_out
    assert f"none of {count} samples is held out" in source.summary


# Fingerprints


def test_fingerprints_do_not_depend_on_order_names_or_place(tmp_path):
    folder = pictures(tmp_path / "x", 30)
    one = load(DataConfig(str(folder)))
    other = tmp_path / "elsewhere"
    for i, file in enumerate(sorted(folder.glob("*.png"), reverse=True)):
        other.mkdir(exist_ok=True)
        shutil.copy(file, other / f"{i:02}-{file.name}")
    two = load(DataConfig(str(other)))
    assert one.identity.fingerprint == two.identity.fingerprint
    assert one.order != two.order
    assert one.identity.fingerprint != load(DataConfig(str(folder), crop=6)).identity.fingerprint


def test_fingerprints_depend_on_labels_and_parts():
    x = np.random.default_rng(0).normal(size=(40, 2))
    parts = np.repeat(["train", "test"], 20)
    plain = from_array(x, np.arange(40) % 2, parts)
    named = from_array(x, (np.arange(40) + 1) % 2, parts)
    moved = from_array(x, np.arange(40) % 2, np.where(np.arange(40) == 3, "test", parts))
    assert plain.identity.difference(named.identity) == "added 0, removed 0, changed 40"
    assert plain.identity.difference(moved.identity) == "added 0, removed 0, changed 1"


def test_the_difference_of_two_data_sets_counts_samples():
    x = np.random.default_rng(0).normal(size=(100, 2))
    changed = np.concatenate([x[:90] + 1e-9 * (np.arange(90) < 3)[:, None], np.ones((11, 2))])
    one, other = (from_array(some).identity for some in (x, changed))
    assert one.difference(other) == "added 1, removed 0, changed 13"
    assert other.difference(one) == "added 0, removed 1, changed 13"


def test_digests_do_not_depend_on_the_byte_order_and_layout_of_arrays():
    x = np.random.default_rng(0).normal(size=(50, 3, 4))
    for other in (x.astype(">f8"), np.asfortranarray(x), np.repeat(x, 2, 0)[::2]):
        np.testing.assert_array_equal(identity.digests(x), identity.digests(other))
    assert len(set(identity.digests(x).tolist())) == 50


@pytest.mark.parametrize(("one", "other"), [("u1", "?"), ("u1", "i1"), ("i4", "f4")])
def test_numbers_of_another_type_are_other_data(one, other):
    x = np.random.default_rng(0).integers(0, 2, (60, 8, 8)).astype(one)
    assert not set(identity.digests(x)) & set(identity.digests(x.view(other)))


def test_labels_without_names_are_told_apart():
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    made = [Source("x", "vector", x[:4], x[4:], one[:4], one[4:]) for one in (labels, 1 - labels)]
    assert made[0].identity.fingerprint != made[1].identity.fingerprint


def test_the_cache_of_images_has_the_same_fingerprint_and_reads_files_once(tmp_path, monkeypatch):
    folder, place = pictures(tmp_path / "x", 40), str(tmp_path / "cache")
    plain = load(DataConfig(str(folder))).identity.fingerprint
    monkeypatch.setattr("monge.data.readers.cache.SETTLED", -(10**9))
    assert load(DataConfig(str(folder), cache=place)).identity.fingerprint == plain
    read = []
    monkeypatch.setattr(
        "monge.data.readers.cache.content_of", lambda content, config: read.append(1) or 0
    )
    again = load(DataConfig(str(folder), cache=place))
    assert again.identity.fingerprint == plain
    assert not read


# Runs and their data


def opened(run: Run) -> int:
    """The number of training samples of a run, whose data are read and compared."""
    return len(run.source.train)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of 240 images."""
    root = tmp_path_factory.mktemp("identity")
    monge.fit("wae-mmd", pictures(root / "data", 240), config(), root / "run", quiet=True)
    return root


@pytest.fixture
def place(trained, tmp_path):
    """A copy of the run and of its data, which are not where they were."""
    shutil.copytree(trained / "data", tmp_path / "data")
    shutil.copytree(trained / "run", tmp_path / "run")
    config, settled = read_config(tmp_path / "run")
    here = override(config, "data.name", str(tmp_path / "data"))
    (tmp_path / "run" / "config.json").write_text(to_json(here, settled))
    return tmp_path


def test_the_fingerprint_is_in_the_run_and_in_every_checkpoint(place):
    run = Run(place / "run")
    assert run.settled.fingerprint == run.source.identity.fingerprint
    for folder in checkpoint.newest_first(place / "run" / "checkpoints"):
        notes = checkpoint.notes(checkpoint.verified(folder))
        assert notes.data == run.settled.fingerprint
    protocol = run.evaluate(metrics=["sliced"])["protocol"]
    assert protocol["fingerprint"] == run.settled.fingerprint
    assert protocol["checkpoint"] == "step-2"
    assert "data changed" not in protocol


def test_unlike_data_are_refused_and_accepted_on_purpose(place):
    pictures(place / "more", 1, seed=1).joinpath("0000.png").rename(place / "data" / "new.png")
    (place / "data" / "0007.png").unlink()
    pictures(place / "more", 1, seed=2).joinpath("0000.png").rename(place / "data" / "x.png")
    with pytest.raises(
        ValueError, match=r"differs from the data of the run .* added 1, removed 0, changed 1"
    ):
        Run(place / "run").evaluate()
    run = Run(place / "run", data_changed=True)
    protocol = run.evaluate(metrics=["sliced"])["protocol"]
    assert protocol["data changed"] == "added 1, removed 0, changed 1"
    assert protocol["fingerprint"] == run.source.identity.fingerprint != run.settled.fingerprint
    with pytest.raises(ValueError, match="added 1, removed 0, changed 1"):
        monge.fit("wae-mmd", None, run.config, place / "run", resume=True, quiet=True)
    longer = override(run.config, "training.steps", 4)
    resumed = monge.fit(
        "wae-mmd", None, longer, place / "run", resume=True, data_changed=True, quiet=True
    )
    assert resumed.settled.changes == ("at step 2: added 1, removed 0, changed 1",)
    assert resumed.settled.spread == run.settled.spread
    assert Run(place / "run").source.identity.fingerprint == resumed.settled.fingerprint


def test_moved_data_are_accepted_and_recorded(place):
    (place / "data").rename(place / "moved")
    with pytest.raises(
        ValueError, match=r"are no longer at .*data': give their new place as --data"
    ):
        opened(Run(place / "run"))
    assert opened(Run(place / "run", data=place / "moved"))
    again = Run(place / "run")
    assert again.config.data.name == str(place / "moved")
    assert len(again.source.train)
    (place / "moved").rename(place / "data")
    longer = override(again.config, "training.steps", 4)
    run = monge.fit("wae-mmd", place / "data", longer, place / "run", resume=True, quiet=True)
    assert run.config.data.name == str(place / "data")


def test_data_of_another_shape_cannot_replace_those_of_a_run(place):
    with pytest.raises(ValueError, match=r"cannot replace .* vector 3 in place of image 1×8×8"):
        opened(Run(place / "run", data=np.ones((9, 3)), data_changed=True))


def test_a_run_on_an_array_is_given_it_again(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    monge.fit("wae-mmd", x, config(), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="fitted to an array: give its data as --data"):
        opened(Run(tmp_path / "run"))
    np.save(tmp_path / "x.npy", x)
    assert len(Run(tmp_path / "run", data=x).source.train)
    assert len(Run(tmp_path / "run", data=tmp_path / "x.npy").source.train)
    assert Run(tmp_path / "run").config.data.name == str(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="added 0, removed 0, changed 80"):
        opened(Run(tmp_path / "run", data=-x))


def test_other_threads_and_logging_may_go_on_and_the_bits_are_warned_of(place):
    longer = config(**{"training.steps": 4, "training.log_every": 1, "threads": 2})
    longer = override(longer, "data.name", str(place / "data"))
    stored = json.loads((place / "run" / "config.json").read_text())
    stored["settled"]["threads"] = 3
    (place / "run" / "config.json").write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match="threads 2 after 3: the bits may differ"):
        run = monge.fit("wae-mmd", None, longer, place / "run", resume=True, quiet=True)
    assert [row["step"] for row in run.metrics()] == [2, 3, 4]
    torch.set_num_threads(1)


def test_reordered_data_are_the_same_and_the_order_is_warned_of(place):
    (place / "data" / "0000.png").rename(place / "data" / "zzzz.png")
    longer = override(Run(place / "run").config, "training.steps", 4)
    with pytest.warns(UserWarning, match="in another order"):
        monge.fit("wae-mmd", None, longer, place / "run", resume=True, quiet=True)


def test_without_the_digests_a_change_is_told_by_the_fingerprints(place):
    (place / "run" / "identity.npy").write_bytes(b"damaged")
    (place / "data" / "0007.png").unlink()
    with pytest.raises(ValueError, match=r"fingerprint [0-9a-f]{8} in place of [0-9a-f]{8}"):
        opened(Run(place / "run"))


# What figures and files are of


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run that was evaluated and then trained on."""
    path = tmp_path_factory.mktemp("evaluated") / "run"
    monge.fit("wae-mmd", "digits", config(), path, quiet=True).evaluate(100, metrics=["sliced"])
    monge.fit("wae-mmd", "digits", config(**{"training.steps": 4}), path, resume=True, quiet=True)
    return path


def test_an_evaluation_of_an_older_checkpoint_is_marked_or_left_out(evaluated, tmp_path):
    run = Run(evaluated)
    said = run.outdated(run.evaluation())
    assert said == "it is of step-2, and the run is at step-4: evaluate it again"
    assert said in report.write(run).read_text("utf-8")
    assert said in card.card(run)
    assert history.read(run).protocol["out of date"] == said
    comparison.write([run], tmp_path)
    assert f"the evaluation of run is left out: {said}" in (tmp_path / "compare.md").read_text()
    assert "pixel SW" not in (tmp_path / "compare.json").read_text().split('"notes"')[0]
    Run(evaluated).evaluate(100, metrics=["sliced"])
    assert run.outdated(run.evaluation()) is None
    assert "out of date" not in report.write(run).read_text("utf-8")


def test_the_report_shows_one_figure_for_one_thing(evaluated):
    Run(evaluated).evaluate(100, metrics=["sliced"])
    page = report.write(Run(evaluated)).read_text("utf-8")
    for name in ("test reconstruction", "MMD² of codes", "pixel SW"):
        assert page.count(f"<td>{name}</td>") == 1


def test_figures_of_unlike_protocols_are_neither_averaged_nor_in_bold(tmp_path):
    runs = []
    for name, n, seed in (("a", 100, 0), ("b", 100, 1), ("c", 50, 2)):
        made = monge.fit("wae-mmd", "digits", config(seed=seed), tmp_path / name, quiet=True)
        made.evaluate(n, metrics=["sliced"])
        runs.append(made)
    alike, unlike = compare.summarised(runs[:2]), compare.summarised(runs)
    assert "pixel SW" in alike["figures"]
    assert "pixel SW" not in unlike["figures"]
    assert unlike["notes"] == [
        "LeNet-MIND, pixel SW of a, b, c are not averaged: n samples is 100 and 50, n test is 100 "
        "and 50, n floor is 100 and 50"
    ]
    rows = [compare.summarised([runs[0]]), compare.summarised([runs[2]])]
    (values,) = [cells[1:] for cells in compare.table(rows) if cells[0] == "pixel SW"]
    assert not any("**" in cell for cell in values)
    [said] = compare.notes(rows)
    assert said.startswith("no best LeNet-MIND, pixel SW: n samples is 100 and 50")
    rows = [compare.summarised([run]) for run in runs[:2]]
    (values,) = [cells[1:] for cells in compare.table(rows) if cells[0] == "pixel SW"]
    assert sum("**" in cell for cell in values) == 1


def test_runs_that_computed_elsewhere_are_one_group(tmp_path):
    pictures(tmp_path / "one", 40)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    runs = [
        monge.fit(
            "wae-mmd",
            tmp_path / name,
            config(seed=seed, **{"training.log_every": 1 + seed}),
            tmp_path / f"run-{name}",
            quiet=True,
        )
        for seed, name in enumerate(("one", "two"))
    ]
    assert [[run.name for run in group] for group in compare.grouped(runs)] == [
        ["run-one", "run-two"]
    ]


def test_pictures_and_exported_files_name_weights_and_data(evaluated, tmp_path):
    run = Run(evaluated)
    report.write(run)
    expected = {"checkpoint": "step-4", **run.provenance}
    for file in (evaluated / "pictures" / "samples.png", tmp_path / "x.png"):
        if file.parent == tmp_path:
            file.write_bytes(stamped.png(Image.new("L", (8, 8)), run.provenance))
        with Image.open(file) as picture:
            texts = {name.removeprefix("monge "): text for name, text in picture.text.items()}
        assert texts == expected
    for name in ("x.onnx", "x.pt2"):
        export.export(run, tmp_path / name)
    stored = onnx.load(tmp_path / "x.decoder.onnx")
    kept = {one.key.removeprefix("monge "): one.value for one in stored.metadata_props}
    assert expected.items() <= kept.items()
    extra = {"provenance.json": ""}
    torch.export.load(tmp_path / "x.decoder.pt2", extra_files=extra)
    assert json.loads(extra["provenance.json"]) == expected


def test_a_mixture_is_fitted_again_for_other_weights_and_other_data(place):
    run = Run(place / "run")
    run.mixture(2)
    file = place / "run" / "sampler-mixture.safetensors"
    before = file.read_bytes()
    shutil.rmtree(place / "data")
    Run(place / "run").mixture(2)  # the data are not needed
    assert file.read_bytes() == before
    pictures(place / "data", 250)
    Run(place / "run", data_changed=True).mixture(2)
    assert file.read_bytes() != before
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
    assert metadata["fingerprint"] == load(DataConfig(str(place / "data"))).identity.fingerprint


def test_export_and_samples_of_the_prior_need_no_data(tmp_path):
    table = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    monge.fit("wae-mmd", table, config(), tmp_path / "run", quiet=True)
    run = Run(tmp_path / "run")
    export.export(run, tmp_path / "x.onnx")
    card.write(run, tmp_path / "hub")
    assert run.sample(5).shape == (5, 3)
    assert "source" not in run.__dict__


# What a run goes on from


def test_with_patience_changed_data_start_the_judgement_anew(place):
    longer = config(**{"training.steps": 24, "training.patience": 50, "training.batch": 20})
    data, path = place / "data", place / "patient"
    monge.fit("wae-mmd", data, longer, path, quiet=True)
    shutil.rmtree(data)
    pictures(data, 240, seed=5)
    longer = override(longer, "training.steps", 60)
    run = monge.fit("wae-mmd", data, longer, path, resume=True, data_changed=True, quiet=True)
    figures = [row["validation"] for row in run.metrics() if "validation" in row]
    assert any("validation on earlier data" in row for row in run.metrics())
    best = checkpoint.newest(path / "best")
    assert best is not None
    notes = checkpoint.notes(best[1])
    assert notes.validation == min(figures)
    assert notes.data == run.settled.fingerprint
    assert Run(path).steps == checkpoint.step_of(best[0]) == Run(path).summary()["steps"]


def test_changed_data_without_a_step_to_train_are_refused(place):
    (place / "data" / "0007.png").unlink()
    before = (place / "run" / "config.json").read_text()
    given = Run(place / "run").config
    with pytest.raises(ValueError, match="`data_changed` has no step to train"):
        monge.fit(
            "wae-mmd", None, given, place / "run", resume=True, data_changed=True, quiet=True
        )
    assert (place / "run" / "config.json").read_text() == before


def test_weights_of_earlier_data_are_told_from_the_data_of_the_run(place):
    run = Run(place / "run")
    assert "trained on" not in run.provenance
    stored = json.loads((place / "run" / "config.json").read_text())
    stored["settled"]["fingerprint"] = "0" * 32  # as after a kill before the first checkpoint
    (place / "run" / "config.json").write_text(json.dumps(stored))
    assert Run(place / "run").provenance["trained on"] == run.settled.fingerprint


def test_a_folder_of_the_hub_is_not_resumed_and_names_no_folder(place):
    card.write(Run(place / "run"), place / "hub")
    before = {file.name: file.read_bytes() for file in (place / "hub").iterdir()}
    longer = override(Run(place / "run").config, "training.steps", 9)
    with pytest.raises(ValueError, match="holds published weights and no checkpoint"):
        monge.fit("wae-mmd", None, longer, place / "hub", resume=True, quiet=True)
    assert opened(Run(place / "hub", data=place / "data"))
    assert {file.name: file.read_bytes() for file in (place / "hub").iterdir()} == before


def test_runs_that_have_not_come_equally_far_are_not_averaged(place):
    one = Run(place / "run")
    longer = config(seed=1, **{"training.steps": 4})
    longer = override(longer, "data.name", str(place / "data"))
    other = monge.fit("wae-mmd", None, longer, place / "other", quiet=True)
    stored = json.loads((place / "other" / "config.json").read_text())
    stored["config"]["training"]["steps"] = 2  # as if it had been asked for the same
    (place / "other" / "config.json").write_text(json.dumps(stored))
    assert [len(group) for group in compare.grouped([one, Run(other.path)])] == [1, 1]


def test_a_mixture_that_is_kept_does_not_hide_other_data(place):
    Run(place / "run").mixture(2)
    with pytest.raises(ValueError, match="differs from the data of the run"):
        Run(place / "run", data=pictures(place / "other", 40, seed=9)).mixture(2)


@pytest.mark.parametrize("text", ["{}", "{", "[]", '{"protocol": 1, "figures": {}}'])
def test_a_damaged_evaluation_is_named_and_left_out(place, text):
    (place / "run" / "evaluation.json").write_text(text)
    with pytest.warns(UserWarning, match=r"evaluation\.json' is damaged and left out"):
        assert Run(place / "run").evaluation() is None


def test_a_run_keeps_the_mask_image_it_was_trained_with(place):
    image = np.zeros((8, 8), np.uint8)
    image[:4] = 255
    Image.fromarray(image).save(place / "mask.png")
    given = override(Config.of("conditional-wae"), "known", str(place / "mask.png"))
    for name, value in {"training.steps": 2, "training.batch": 8}.items():
        given = override(given, name, value)
    monge.fit("conditional-wae", place / "data", given, place / "masked", quiet=True)
    x = Run(place / "masked").source.test[:2] / 255
    expected = Run(place / "masked").model.known(x)
    Image.fromarray(255 - image).save(place / "mask.png")
    assert Run(place / "masked").model.known(x).equal(expected)
    (place / "mask.png").unlink()
    assert Run(place / "masked").model.known(x).equal(expected)
    longer = override(given, "training.steps", 4)
    again = monge.fit(
        "conditional-wae", place / "data", longer, place / "masked", resume=True, quiet=True
    )
    assert again.model.known(x).equal(expected)
    card.write(Run(place / "masked"), place / "published")
    assert monge.load(place / "published").known(x).equal(expected)


def test_arrays_that_numpy_would_misread_are_converted_or_refused(tmp_path):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    run = monge.fit("wae-mmd", x.bfloat16(), config(), tmp_path / "run", quiet=True)
    assert run.source.train.dtype == torch.float32
    masked = np.ma.masked_greater(x.numpy(), 1.0)
    with pytest.raises(ValueError, match="masked elements"):
        monge.fit("wae-mmd", masked, config(), tmp_path / "other", quiet=True)
