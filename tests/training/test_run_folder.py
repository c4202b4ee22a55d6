"""The folder of a run: what counts as a run, what may be replaced, what is removed, and the log after a crash."""

import pytest

from mitoda.errors import FileError
from mitoda.training.run_folder import RunFolder

RUN = ("run.json", "state.pt", "log.jsonl", "weights.safetensors", "weights-40.safetensors", "curves.png")


def folder_with(path, *names) -> RunFolder:
    """A folder with files of these names."""
    for name in names:
        (path / name).write_text("{}")
    return RunFolder(path)


def test_only_the_files_of_a_run_are_removed(tmp_path):
    """Kept weights and files left half written go too; files with other names stay."""
    half = "state.pt.0123abcd.partial"
    run = folder_with(tmp_path, *RUN, half, "state.pt.partial", "weights-best.safetensors", "notes.txt")
    run.begin(folder_with(run.start().path, "run.json", "state.pt", "weights.safetensors"))
    left = sorted(path.name for path in tmp_path.iterdir())
    kept = ["notes.txt", "state.pt.partial", "weights-best.safetensors"]
    assert left == sorted([*kept, "run.json", "state.pt", "weights.safetensors"])


def test_files_of_others_with_a_runs_names_are_neither_removed_nor_replaced(tmp_path):
    """Where no run is, a report.html or weights.safetensors is somebody's own, also with overwrite."""
    run = folder_with(tmp_path, "weights.safetensors")
    for overwrite in (False, True):
        with pytest.raises(FileError, match=r"holds weights.safetensors but no run of mitoda"):
            run.check_free(overwrite)
    assert run.weights.exists()


@pytest.mark.parametrize("name", ["run.json", "state.pt", "log.jsonl"])
def test_a_run_is_replaced_only_when_asked(tmp_path, name):
    """Any one of plan, state and log shows that a run is there, even if the others were lost."""
    run = folder_with(tmp_path, name, "weights.safetensors")
    with pytest.raises(FileError, match=r"holds a run already; resume it with .* --overwrite"):
        run.check_free(overwrite=False)
    run.check_free(overwrite=True)


def test_kept_weights_are_listed_by_step(tmp_path):
    """In the order of steps, not of names; other files are none."""
    run = folder_with(tmp_path, "weights-100.safetensors", "weights-20.safetensors", "weights-x.safetensors")
    assert list(run.kept_weights().items()) == [(20, run.kept_path(20)), (100, run.kept_path(100))]


def test_a_log_is_read_up_to_a_torn_line_and_cut_after_a_step(tmp_path):
    """A crash may leave half a line, and lines after the last checkpoint."""
    run = RunFolder(tmp_path)
    assert run.read_log() == []
    for step in (20, 40, 60):
        run.append_log({"step": step})
    with run.log.open("a") as log:
        log.write('{"step": 8')
    assert [record["step"] for record in run.read_log()] == [20, 40, 60]
    run.truncate_log(40)
    assert run.log.read_text() == '{"step": 20}\n{"step": 40}\n'


@pytest.mark.parametrize("name", ["run.json", "state.pt", "log.jsonl", "weights.safetensors", "report.html"])
def test_links_in_a_run_folder_are_not_written_through(tmp_path, name):
    """A folder in which a file of a run is a link, a folder or a pipe is refused, to resume and to overwrite."""
    run = folder_with(tmp_path, "run.json", "state.pt")
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("five years")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(thesis)
    for check in (run.check_files, lambda: run.check_free(overwrite=True)):
        with pytest.raises(FileError, match=f"{name} is a link, which a run does not make"):
            check()
    if name == "log.jsonl":
        with pytest.raises(OSError, match="symbolic link"):
            run.append_log({"step": 1})
    assert thesis.read_text() == "five years"
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match=f"{name} is not a regular file"):
        run.check_files()


@pytest.mark.parametrize(
    "line", ['{"losses": {}}', '{"step": -1}', '{"step": 1, "losses": []}', "[1]", "[" * 9999]
)
def test_a_log_that_a_run_did_not_write_is_refused(tmp_path, line):
    """The line and the field are named; only the last line may be cut short."""
    run = RunFolder(tmp_path)
    run.log.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(FileError, match=r"line 2 of .*log.jsonl is not a valid record"):
        run.read_log()
