"""The command line: exit status, what goes where, breaks, and a whole run from drawing to score."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import mitoda as package
from mitoda.cli.display import explain
from mitoda.errors import FileError, InputError
from mitoda.models.weights import DEFAULT_WEIGHTS, load_weights, read_info
from mitoda.synthetic import TARGET, draw_phantom
from mitoda.volumes import open_volume, write_sections
from tests.commands import ROOT, Commands, finish, interrupt_when, start
from tests.fakes import compact_weights


@pytest.fixture
def mitoda(monkeypatch, capsys) -> Commands:
    """Run commands."""
    return Commands(monkeypatch, capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """source.tif, source_mask.tif, target.tif, target_mask.tif: small phantoms; and random weights."""
    from mitoda.synthetic import SOURCE

    path = tmp_path_factory.mktemp("volumes")
    for name, domain, shape, seed in (
        ("source", SOURCE, (4, 160, 192), 1),
        ("target", TARGET, (8, 160, 192), 2),
    ):
        image, label = draw_phantom(domain, shape, seed)
        write_sections(path / f"{name}.tif", image, shape, image.dtype, domain.voxel_size)
        write_sections(path / f"{name}_mask.tif", label, shape, label.dtype, domain.voxel_size)
    compact_weights(path / "random.safetensors", pixel=TARGET.voxel_size[1:], spacing=20.0)
    return path


def source_of(folder: Path) -> str:
    """IMAGES:LABELS."""
    return f"{folder / 'source.tif'}:{folder / 'source_mask.tif'}"


def fetched_source(folder: Path, dest: Path) -> Path:
    """Let the source phantom stand for the data set vnc3 in a folder of fetched data sets."""
    (dest / "vnc3" / "stack1").mkdir(parents=True)
    for name, file in (("source", "volume"), ("source_mask", "mask")):
        (dest / "vnc3" / "stack1" / f"{file}.tif").symlink_to(folder / f"{name}.tif")
    return dest


TINY = ["--patch", 128, "--batch-size", 1, "--workers", 1]


def test_version_and_help_go_to_standard_output(mitoda):
    """Exit 0; every command is listed."""
    assert mitoda("--version").out == f"mitoda {package.__version__}\n"
    help_text = mitoda("--help")
    assert help_text.status == 0
    for command in ("demo", "fetch", "adapt", "segment", "score", "inspect", "weights"):
        assert command in help_text.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["segmnet"],
        ["segment"],
        ["segment", "a.tif"],
        ["segment", "a.tif", "-o", "b.tif", "--tile", "wide", "high"],
        ["segment", "a.tif", "-o", "b.tif", "--voxel-size", "5"],
        ["score", "a.tif"],
        ["adapt", "--steps", "many"],
        ["adapt"],
        ["adapt", "--target", "a.tif", "--set", "consistency"],
        ["adapt", "--resume", "run", "--method", "isc"],
        ["adapt", "--resume", "run", "--target", "a.tif"],
        ["fetch"],
    ],
)
def test_wrong_usage_exits_with_2(mitoda, arguments):
    """A misspelt command, a missing or unreadable option, or one that a resumed run would ignore."""
    outcome = mitoda(*arguments)
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "a.tif", "-o", "b.tif"],
        ["suggest", "a.tif", "-o", "places"],
        ["adapt", "--target", "a.tif", "-o", "run"],
    ],
    ids=["segment", "suggest", "adapt"],
)
def test_a_voxel_size_with_commas(mitoda, arguments):
    """Says how the three numbers are written, wherever the option is."""
    found = mitoda(arguments[0], "--voxel-size", "50,5,5", *arguments[1:])
    assert found.status == 2
    message = " ".join(found.err.replace("│", " ").split())
    assert "'50,5,5' is not a number; give three, in nanometres, with spaces between them" in message


def test_the_whole_way_from_two_volumes_to_a_score(mitoda, folder, tmp_path, monkeypatch):
    """adapt leaves weights, log, curves and a report; segment uses them; score prints JSON and nothing else."""
    run, mask = tmp_path / "run", tmp_path / "mask.tif"
    adapted = mitoda(
        "adapt", "--source", source_of(folder), "--target", folder / "target.tif", "--out", run, "--steps", 3, *TINY,
        "--method", "isc", "--set", "consistency=0.2", "--seed", 4,
    )  # fmt: skip
    assert adapted.status == 0, adapted.err
    assert adapted.out == ""
    assert "strides 1" not in adapted.err
    assert "stride 5" in adapted.err
    assert {p.name for p in run.iterdir()} == {
        "run.json", "weights.safetensors", "state.pt", "log.jsonl", "curves.png", "report.html",
    }  # fmt: skip
    info = read_info(run / "weights.safetensors")
    assert (info.steps, info.seed, info.spacing, info.method) == (3, 4, 50.0, "isc")
    assert (run / "report.html").read_text().count("data:image/png;base64") == 1

    segmented = mitoda("segment", folder / "target.tif", "-o", mask, "--weights", run, "--threshold", 0.4)
    assert segmented.status == 0, segmented.err
    assert segmented.out == ""
    assert "8 sections on CPU" in segmented.err
    assert open_volume(mask).shape == (8, 160, 192)

    scored = mitoda("score", mask, folder / "target_mask.tif", "--json", "--csv", tmp_path / "sections.csv")
    assert scored.status == 0, scored.err
    assert 0 <= json.loads(scored.out)["pooled"]["f1"] <= 1
    assert len((tmp_path / "sections.csv").read_text().splitlines()) == 9

    table = mitoda("score", folder / "target_mask.tif", folder / "target_mask.tif")
    assert "1.0000" in table.out
    assert table.err == ""


def test_a_run_is_not_replaced_unless_asked(mitoda, folder, tmp_path):
    """An existing run is kept with what to do; --overwrite replaces it only once the new one can begin."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    arguments = [
        "adapt",
        "--source",
        source_of(folder),
        "--target",
        folder / "target.tif",
        "--out",
        run,
        "--steps",
        1,
    ]
    message = mitoda.refused(*arguments, *TINY)
    assert f"resume it with 'mitoda adapt --resume {run}'" in message
    message = mitoda.refused(*arguments[:3], "--target", tmp_path / "gone.tif", *arguments[5:], "--overwrite")
    assert "gone.tif does not exist" in message
    assert (run / "run.json").read_text() == "{}"
    assert mitoda(*arguments, *TINY, "--overwrite").status == 0
    file = tmp_path / "file"
    file.touch()
    assert "is a file; give the name of a folder" in mitoda.refused(
        *arguments[:5], "--out", file, "--steps", 1
    )


def test_resuming_what_cannot_be_resumed(mitoda, tmp_path):
    """A folder without a run; a run that stopped before its first checkpoint."""
    assert "holds no run of 'mitoda adapt'" in mitoda.refused("adapt", "--resume", tmp_path)


def test_ctrl_c_stops_a_training_after_its_step_and_resume_ends_as_if_it_had_not(folder, tmp_path):
    """Exit 1, weights saved, one line with what to do; the resumed run has the weights of an unbroken one."""
    arguments = [
        "adapt",
        "--source",
        source_of(folder),
        "--target",
        folder / "target.tif",
        "--steps",
        12,
        *TINY,
        "--method",
        "source-only",
    ]
    parts = tmp_path / "parts"
    process = start(*arguments, "--out", parts)
    # the line that announces the target comes right before the training
    seen = []
    assert process.stderr is not None
    while "target: " not in "".join(seen):
        seen.append(process.stderr.readline())
        assert seen[-1], seen
    interrupted = interrupt_when(process, lambda: (parts / "run.json").exists())
    assert interrupted.status == 1, interrupted
    assert interrupted.out == ""
    assert "Traceback" not in interrupted.err
    assert f"continue with: mitoda adapt --resume {parts}" in interrupted.message
    stopped_at = read_info(parts / "weights.safetensors").steps
    assert 0 <= stopped_at < 12
    resumed = finish(start("adapt", "--resume", parts))
    assert resumed.status == 0, resumed
    assert finish(start(*arguments, "--out", tmp_path / "whole")).status == 0
    a, b = (
        load_weights(tmp_path / name / "weights.safetensors")[0].state_dict() for name in ("parts", "whole")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_stack_that_does_not_say_its_voxel_size_has_it_searched(mitoda, folder, tmp_path):
    """By segment and by adapt: the estimate is printed with how to override it; the mask does not claim it."""
    bare = tmp_path / "bare.tif"
    tifffile.imwrite(bare, tifffile.imread(folder / "target.tif"), photometric="minisblack")
    mask = tmp_path / "mask.tif"
    found = mitoda("segment", bare, "-o", mask)
    assert found.status == 0, found.err
    assert "give --voxel-size Z Y X" in " ".join(found.err.split())
    said = re.search(r"estimated from the images: (\S+) (\S+) (\S+) nm", " ".join(found.err.split()))
    assert said, found.err
    taken = [float(length) for length in said.groups()]
    assert open_volume(mask).voxel_size is None
    run = tmp_path / "run"
    adapted = mitoda("adapt", "--target", bare, "--source-free", "--steps", 1, *TINY, "--out", run)
    assert adapted.status == 0, adapted.err
    plan = json.loads((run / "run.json").read_text())
    assert plan["target_voxel_size"] == pytest.approx(taken, rel=0.01)


def test_several_sources_are_given_one_by_one(mitoda, folder, tmp_path):
    """Each is announced; the weights and the plan say what they learnt from, and the run can be gone on with."""
    run = tmp_path / "run"
    one = source_of(folder)
    other = f"{folder / 'target.tif'}:{folder / 'target_mask.tif'}"
    adapted = mitoda(
        "adapt", "--source", one, "--source", other, "--target", folder / "target.tif", "--method", "source-only",
        "--augmentation", "wide", "--steps", 2, *TINY, "--out", run,
    )  # fmt: skip
    assert adapted.status == 0, adapted.err
    assert "source 2:" in adapted.err
    assert read_info(run / "weights.safetensors").source == f"{one} + {other}"
    assert mitoda("adapt", "--resume", run, "--steps", 3).status == 0


def test_ctrl_c_while_segmenting_keeps_what_is_done_and_resume_goes_on(folder, tmp_path):
    """Exit 1, no mask yet, one line with what to do; resumed, the mask is that of an unbroken run."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (160, 192, 192), dtype=np.uint8)
    write_sections(tmp_path / "stack.tif", stack, stack.shape, stack.dtype, TARGET.voxel_size)
    arguments = [
        "segment",
        tmp_path / "stack.tif",
        "--weights",
        folder / "random.safetensors",
        "--min-size",
        4,
    ]
    mask = tmp_path / "mask.tif"

    def partial_size() -> int:
        return max((p.stat().st_size for p in tmp_path.glob("mask.unfiltered*.partial")), default=0)

    process = start(*arguments, "-o", mask)
    interrupted = interrupt_when(process, lambda: partial_size() > 3000)
    assert interrupted.status == 1, interrupted
    assert "Traceback" not in interrupted.err
    assert "continue with the same command and --resume" in interrupted.message
    assert not mask.exists()
    resumed = finish(start(*arguments, "-o", mask, "--resume"))
    assert resumed.status == 0, resumed
    assert "continuing the interrupted run" in resumed.err
    assert finish(start(*arguments, "-o", tmp_path / "whole.tif")).status == 0
    assert np.array_equal(tifffile.imread(mask), tifffile.imread(tmp_path / "whole.tif"))
    again = finish(start(*arguments, "-o", mask, "--resume"))
    assert (again.status, "mask.tif is complete already" in again.err) == (0, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.tif", "stack.tif", "whole.tif"]


def test_quiet_means_warnings_only(mitoda, folder, tmp_path):
    """-q leaves standard error to warnings."""
    outcome = mitoda(
        "segment",
        folder / "target.tif",
        "-o",
        tmp_path / "m.tif",
        "--weights",
        folder / "random.safetensors",
        "-q",
    )
    assert outcome.status == 0
    assert all(line.startswith("warning: ") for line in outcome.err.splitlines())


def test_inverted_contrast_is_remarked_upon(mitoda, folder, tmp_path):
    """--invert on a stack as it should be makes it wrong, and is noticed."""
    arguments = ["segment", folder / "target.tif", "--weights", folder / "random.safetensors", "-o"]
    assert "contrast looks inverted" not in mitoda(*arguments, tmp_path / "a.tif").err
    assert "contrast looks inverted" in mitoda(*arguments, tmp_path / "b.tif", "--invert").err


def test_inspect_tells_how_a_stack_is_read(mitoda, folder):
    """As a table and as JSON."""
    found = json.loads(mitoda("inspect", folder / "target.tif", "--json").out)
    assert (found["sections"], found["rows"], found["columns"]) == (8, 160, 192)
    assert found["voxel_size_nm"] == pytest.approx(list(TARGET.voxel_size))
    assert found["contrast_looks_inverted"] is False
    assert "voxel_size_nm" in mitoda("inspect", folder / "target.tif").out


def test_weights_are_listed_even_if_there_are_none(mitoda, monkeypatch, folder):
    """With what they learnt from; --json gives all fields."""
    monkeypatch.setattr("mitoda.models.weights.weights_folder", lambda: folder)
    found = json.loads(mitoda("weights", "--json").out)
    assert found["random"]["spacing"] == 20.0
    assert "random" in mitoda("weights").out
    monkeypatch.setattr("mitoda.models.weights.weights_folder", lambda: folder / "none")
    assert mitoda("weights").status == 0


def test_names_with_brackets_and_colons_are_shown_as_they_are(mitoda, folder, tmp_path):
    """Neither markup nor pictures: a file called '[bold] :dog: x.tif' stays that."""
    odd = tmp_path / "[bold]x :dog: y.tif"
    outcome = mitoda("segment", folder / "target.tif", "-o", odd, "--weights", folder / "random.safetensors")
    assert outcome.status == 0
    assert str(odd) in outcome.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("a\nb"), "a b"),
        (FileError("gone"), "gone"),
        (OSError(28, "No space left on device", "log.jsonl"), "log.jsonl: the disk is full; free some space"),
        (PermissionError(13, "Permission denied", "x"), "x: Permission denied"),
        (MemoryError(), "out of memory; segment with smaller tiles"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "out of memory",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "out of memory"),
    ],
)
def test_errors_become_one_line(error, message):
    """What a person can act on, and no line break."""
    found = explain(error)
    assert found is not None
    assert message in found
    assert "\n" not in found


def test_defects_of_ours_keep_their_traceback():
    """A ValueError that nobody foresaw is not dressed up."""
    assert explain(ValueError("?")) is None
    assert explain(RuntimeError("shape mismatch")) is None


def test_a_closed_pipe_is_not_an_error_to_shout_about(folder):
    """`mitoda fetch --list | head -1` prints no traceback."""
    command = f"{sys.executable} -m mitoda fetch --list | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_stack_of_ones_own_begins_from_the_bundled_weights(mitoda, folder, tmp_path):
    """Said, and written into the weights; --from-scratch, another method or a source of one's own begin without."""
    dest = fetched_source(folder, tmp_path / "data")
    own = ["adapt", "--target", folder / "target.tif", "--dest", dest, "--steps", 1, "--device", "cpu", *TINY]
    begun = mitoda(*own, "--out", tmp_path / "begun")
    assert begun.status == 0, begun.err
    assert (
        f"starting from the weights '{DEFAULT_WEIGHTS}' (use --from-scratch to start from random weights)"
        in begun.err
    )
    info = read_info(tmp_path / "begun" / "weights.safetensors")
    assert (info.start, info.pixel, info.spacing) == (DEFAULT_WEIGHTS, (5.0, 5.0), 50.0)
    assert "CC BY-NC-SA 3.0" in info.licence
    for number, options in enumerate(
        (["--from-scratch"], ["--method", "source-only"], ["--source", source_of(folder)])
    ):
        run = tmp_path / f"scratch{number}"
        scratch = mitoda(*own, *options, "--out", run)
        assert scratch.status == 0, scratch.err
        assert "starting from" not in scratch.err
        assert read_info(run / "weights.safetensors").start == ""
    chosen = mitoda(*own, "--from-scratch", "--start", "default", "--out", tmp_path / "both")
    assert chosen.status == 2


def test_a_stack_is_adapted_to_without_any_source(mitoda, folder, tmp_path):
    """From the bundled weights, without a fetched data set; the checks before and after the run are printed."""
    run = tmp_path / "run"
    alone = [
        "adapt",
        "--target",
        folder / "target.tif",
        "--source-free",
        "--steps",
        2,
        "--device",
        "cpu",
        *TINY,
    ]
    adapted = mitoda(*alone, "--dest", tmp_path / "nothing", "--out", run, "--set", "rounds=2")
    assert adapted.status == 0, adapted.err
    assert f"starting from the weights '{DEFAULT_WEIGHTS}'" in adapted.err
    assert "source:" not in adapted.err
    assert "agreement of a section's two predictions (Dice)" in adapted.err
    info = read_info(run / "weights.safetensors")
    assert (info.source, info.start) == ("", DEFAULT_WEIGHTS)
    assert "CC BY-NC-SA 3.0" in info.licence
    for contradiction in (["--from-scratch"], ["--source", source_of(folder)]):
        assert mitoda(*alone, *contradiction, "--out", tmp_path / "no").status == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["weights"], ["fetch", "--list"]])
def test_no_encoding_of_standard_output_is_an_error(encoding, arguments, monkeypatch):
    """Characters that it lacks are replaced."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    process = subprocess.run(
        [sys.executable, "-m", "mitoda", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout
    assert not process.stderr


def test_file_names_that_are_not_utf_8_are_printed(folder, tmp_path):
    """The stack is inspected and segmented; a run, whose record is UTF-8, refuses the name in one line."""
    stack = os.fsencode(tmp_path) + b"/caf\xe9[bold].tif"
    Path(os.fsdecode(stack)).write_bytes((folder / "target.tif").read_bytes())

    def run(*arguments: object) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mitoda", *(os.fsencode(str(a)) for a in arguments)]
        return subprocess.run(command, capture_output=True, env=environment)

    name = os.fsdecode(stack)
    inspected = run("inspect", name)
    assert inspected.returncode == 0, inspected.stderr
    assert b"[bold].tif" in inspected.stdout
    segmented = run("segment", name, "-o", name + ".mask.tif", "--weights", folder / "random.safetensors")
    assert segmented.returncode == 0, segmented.stderr
    adapted = run(
        "adapt", "--source", source_of(folder), "--target", name, "--steps", 1, "--patch", 128, "-o", tmp_path / "run",
        "--from-scratch",
    )  # fmt: skip
    assert adapted.returncode == 1
    assert b"Traceback" not in adapted.stderr, adapted.stderr
    assert b"is not UTF-8" in adapted.stderr


@pytest.mark.parametrize("columns", ["20", "30", "200"])
def test_numbers_of_a_table_are_never_cut(mitoda, folder, tmp_path, monkeypatch, columns):
    """However narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", columns)
    labels = tmp_path / "labels.tif"
    write_sections(
        labels, (np.eye(64, dtype=np.uint8) for _ in range(3)), (3, 64, 64), np.dtype(np.uint8), None
    )
    result = mitoda("score", labels, labels)
    assert result.out.count("1.0000") == 8
    assert "…" not in result.out
