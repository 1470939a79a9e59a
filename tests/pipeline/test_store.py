import errno
import json
from pathlib import Path

import pytest
from filelock import FileLock

from fivefold.errors import ArtefactError, RunError
from fivefold.pipeline import store as module
from fivefold.pipeline.store import FORMAT, Store, versions, write_text, writing


def begun(folder: Path, fingerprint: str = "f") -> Store:
    store = Store(folder)
    with store.held():
        store.begin(fingerprint, "name: x\n", 0)
    return store


def test_a_stage_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    store = begun(tmp_path / "run")

    def killed() -> None:
        with store.stage("folds/0") as folder:
            (folder / "half").write_text("h")
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        killed()
    assert not store.has("folds/0")
    with store.stage("folds/0") as folder:
        assert not (folder / "half").exists()
        (folder / "whole").write_text("w")
    assert (store.path("folds/0") / "whole").read_text() == "w"


def test_an_unfinished_stage_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="resumes"):
        begun(tmp_path / "run").path("scores")


@pytest.mark.parametrize("change", ["alter", "add", "remove"])
def test_a_tampered_stage_is_refused(tmp_path: Path, change: str) -> None:
    store = begun(tmp_path / "run")
    with store.stage("decision") as folder:
        (folder / "rule.json").write_text("{}")
    rule = tmp_path / "run/decision/rule.json"
    {
        "alter": lambda: rule.write_text('{"x": 1}'),
        "add": lambda: rule.with_name("more.json").write_text("{}"),
        "remove": rule.unlink,
    }[change]()
    with pytest.raises(ArtefactError, match="changed after it was written"):
        store.path("decision")


def test_the_same_fingerprint_continues_and_another_replaces_a_run_that_fitted_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "run", "mistaken")
    with begun(tmp_path / "run").stage("data"):
        pass
    assert begun(tmp_path / "run").has("data")
    store = begun(tmp_path / "run", "g")
    assert not store.has("data")
    assert store.description["fingerprint"] == "g"


def test_what_is_left_of_a_run_is_not_mixed_with_another(tmp_path: Path) -> None:
    store = begun(tmp_path / "run")
    with store.stage("folds/0"):
        pass
    with pytest.raises(RunError, match="another recipe, data or backbone"):
        begun(tmp_path / "run", "g")


def test_a_half_done_run_is_not_continued_by_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = begun(tmp_path / "run")
    with store.stage("folds/0"):
        pass
    monkeypatch.setattr(module, "versions", lambda: {"numpy": "0.1"})
    with pytest.raises(RunError, match=r"other versions.*\n.*numpy"):
        begun(tmp_path / "run")
    with store.stage("decision"):
        pass
    begun(tmp_path / "run")


def test_nothing_fitted_gives_way_to_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(tmp_path / "run").stage("data"):
        pass
    monkeypatch.setattr(module, "versions", lambda: {"numpy": "0.1"})
    assert not begun(tmp_path / "run").has("data")


@pytest.mark.parametrize("stage", ["data", "examples", "enrichment"])
def test_another_run_goes_on_from_no_stage_and_no_checkpoint(tmp_path: Path, stage: str) -> None:
    def killed(store: Store) -> None:
        with store.stage(stage):
            pass
        with store.scratch("backbone") as scratch:
            (scratch / "checkpoint").write_text("c", "utf-8")
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        killed(begun(tmp_path / "run"))
    again = begun(tmp_path / "run")
    assert again.has(stage)
    assert (tmp_path / "run" / ".backbone.scratch" / "checkpoint").exists()
    other = begun(tmp_path / "run", "g")
    assert not other.has(stage)
    assert not (tmp_path / "run" / ".backbone.scratch").exists()


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    store = begun(tmp_path / "run")
    assert store.recipe_path.read_text("utf-8") == "name: x\n"
    store.recipe_path.write_text("name: y\n", "utf-8")
    with pytest.raises(ArtefactError, match="changed after the run was made"):
        _ = store.recipe_path


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    with FileLock(tmp_path / "run/.lock"), pytest.raises(RunError, match="Another process"):
        begun(tmp_path / "run")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        begun(tmp_path)
    with pytest.raises(RunError, match="won't be deleted"):
        Store(tmp_path).clear()
    assert (tmp_path / "precious.txt").exists()


def test_a_newer_or_damaged_run_is_refused(tmp_path: Path) -> None:
    store = begun(tmp_path / "run")
    path = tmp_path / "run/run.json"
    path.write_text(json.dumps(store.description | {"format": FORMAT + 1}))
    with pytest.raises(ArtefactError, match="newer Fivefold"):
        _ = store.description
    path.write_text("{")
    with pytest.raises(ArtefactError, match="damaged"):
        _ = store.description
    with pytest.raises(RunError, match="no run folder"):
        _ = Store(tmp_path / "nothing").description


def test_clear_deletes_a_run_but_not_the_lock(tmp_path: Path) -> None:
    store = begun(tmp_path / "run")
    with store.held():
        store.clear()
        with pytest.raises(RunError, match="Another process"):
            begun(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is full") as caught, writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "continues" in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(RunError, match="can't be written"):
        begun(tmp_path / "file/run")


def test_versions_name_the_packages_that_decide_figures() -> None:
    assert {"python", "numpy", "scipy"} <= set(versions())
