"""The table of data sets, and how a command names a volume of one."""

import re
from pathlib import Path

import pytest

from mitoda.datasets import DATASETS, Dataset, default_dest, is_dataset_spec, resolve
from mitoda.errors import FileError, InputError

every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)


def test_known_data_sets() -> None:
    """The table holds the eleven data sets, each under its own name."""
    known = "vnc3 lucchi lucchi++ kasthuri++ mitoem-r mitoem-h urocell cdeep3m fib25 mitoem2 empiar-10982"
    assert list(DATASETS) == known.split()
    assert all(name == dataset.name for name, dataset in DATASETS.items())


@every_dataset
def test_entries_say_where_from_and_on_what_terms(dataset: Dataset) -> None:
    """Every entry has licence, citation, landing page, and words for what it shows and what is verified."""
    for text in (dataset.licence, dataset.citation, dataset.organism, dataset.tissue, dataset.device):
        assert text.strip() == text != ""
    assert "; " not in dataset.licence  # which separates the licences in the metadata of weights
    assert dataset.landing_page.startswith("https://")
    for split in dataset.splits.values():
        assert split.voxel_size is not None or "--voxel-size" in dataset.voxel_size_note
        assert split.shape is not None or split.images.pattern.endswith(".nii.gz")
    assert dataset.verification


@every_dataset
def test_hashes_are_well_formed_and_their_origin_is_said(dataset: Dataset) -> None:
    """sha256: 64 hex digits, git blob: 40; each file says if its hash is verified, quoted or unknown."""
    for file in dataset.files:
        known = file.known_hash
        assert known is None or re.fullmatch(r"sha256:[0-9a-f]{64}|git_blob:[0-9a-f]{40}", known)
        assert file.provenance.startswith(("verified: ", "quoted by ") if known else "none known")
        assert file.urls
        assert file.size > 0
        assert all(re.match(r"https?://[^ ]+$", url) for url in file.urls)
        assert not Path(file.path).is_absolute()
        assert ".." not in file.path


@every_dataset
def test_splits_use_files_of_the_table(dataset: Dataset) -> None:
    """Splits name files of the table, and every file is used."""
    named = set()
    for split in dataset.splits.values():
        named.update(split.images.files)
        named.update(split.labels.files if split.labels else ())
    assert named == {file.path for file in dataset.files}
    assert len(dataset.files) == len(named)


@pytest.mark.parametrize(("name", "folder", "count"), [("vnc3", "stack1", 40), ("cdeep3m", "mito", 60)])
def test_registries_are_the_published_ones(real_data: Path, name: str, folder: str, count: int) -> None:
    """The hashes are those of the registry computed from the git repository."""
    lines = (real_data / name / "registry.txt").read_text().replace("sha256:", "").splitlines()
    registry = dict(line.split() for line in lines if line.startswith(folder))
    found = {file.path: str(file.known_hash).removeprefix("sha256:") for file in DATASETS[name].files}
    assert registry == found
    assert len(registry) == count


def test_casser_splits_are_not_swapped() -> None:
    """Training is what the archives of Casser et al. call Train, unlike in torch-em."""
    for name in ("lucchi++", "kasthuri++"):
        splits = DATASETS[name].splits
        assert splits["training"].images.pattern == "Train_In/*.png"
        assert splits["testing"].images.pattern == "Test_In/*.png"


def test_cache_folder_moves_with_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MITODA_CACHE_DIR says where data sets lie; without it they lie in the user's cache folder."""
    monkeypatch.setenv("MITODA_CACHE_DIR", str(tmp_path))
    assert default_dest() == tmp_path
    monkeypatch.delenv("MITODA_CACHE_DIR")
    assert default_dest().name == "mitoda"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lucchi", True),
        ("lucchi:testing", True),
        ("lucchi:tasting", True),
        ("lucchi++", True),
        ("lucchi.tif", False),
        ("data/lucchi", False),
        ("C:/lucchi", False),
        ("", False),
    ],
)
def test_what_counts_as_the_name_of_a_data_set(text: str, expected: bool) -> None:
    """A known name, with or without a split, names a data set; anything else is a path."""
    assert is_dataset_spec(text) is expected


def test_resolve_says_what_is_wrong(tmp_path: Path) -> None:
    """Unknown names and splits list the known ones; what is not fetched says which command fetches it."""
    with pytest.raises(InputError, match=r"no data set 'lucci'; known are vnc3, lucchi, lucchi\+\+, "):
        resolve("lucci", tmp_path)
    with pytest.raises(InputError, match="no split 'tasting'; it has lucchi:training, lucchi:testing"):
        resolve("lucchi:tasting", tmp_path)
    with pytest.raises(FileError, match=r"lucchi:training is not in .*; run: mitoda fetch lucchi --dest"):
        resolve("lucchi", tmp_path)


def test_resolve_without_dest_looks_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a destination the cache folder is meant, and the advice needs no --dest."""
    monkeypatch.setenv("MITODA_CACHE_DIR", str(tmp_path))
    with pytest.raises(FileError, match=r"run: mitoda fetch vnc3$"):
        resolve("vnc3")
    (tmp_path / "vnc3" / "stack1").mkdir(parents=True)
    (tmp_path / "vnc3" / "stack1" / "volume.tif").touch()
    found = resolve("vnc3")
    assert found.volume == tmp_path / "vnc3" / "stack1" / "volume.tif"
    assert found.mask is None
    assert found.voxel_size == (50.0, 4.6, 4.6)


def test_labels_that_must_stay_unseen_are_not_named() -> None:
    """EMPIAR-10982 has a volume with the labels of lucchi:testing; mitoda does not know its path."""
    paths = [file.path for file in DATASETS["empiar-10982"].files]
    assert len(paths) == 10
    assert not [path for path in paths if "lucchi" in path]
