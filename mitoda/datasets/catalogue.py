"""The table of data sets. Measured facts and quoted ones are told apart beside each hash."""

from mitoda.datasets.schema import Dataset, DatasetFile, LabelRule, Sections, Split
from mitoda.datasets.vnc3_registry import VNC3_SHA256

_VNC3_URL = (
    "https://raw.githubusercontent.com/unidesigner/groundtruth-drosophila-vnc/"
    "4a5f051466d24d8dc1e855ab55658bb1b1dcd6bf/"
)
_EPFL_URL = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus/"
_EM30_URL = "https://huggingface.co/datasets/pytc/EM30/resolve/63519706546316c1f00863cbea0ece40358a759a/"
_MITOEM_URL = "https://huggingface.co/datasets/pytc/MitoEM/resolve/2105967e61abf02ae1873c514b8ea16390606384/"
_UROCELL_URL = (
    "https://raw.githubusercontent.com/MancaZerovnikMekuc/UroCell/4bab22add57dd00dacb7ecffae2205e6d1422299/"
)

_CASSER = (
    "Casser V. et al. Fast Mitochondria Detection for Connectomics. MIDL 2020, PMLR 121:111-120, "
    "arXiv:1812.06024"
)
_LUCCHI = (
    "Lucchi A. et al. Supervoxel-Based Segmentation of Mitochondria in EM Image Stacks With Learned Shape "
    "Features. "
    "IEEE TMI 31:474-486 (2012), doi:10.1109/TMI.2011.2171705; "
    "Lucchi A. et al. Learning for Structured Prediction Using Approximate Subgradient Descent with "
    "Working Sets. "
    "CVPR 2013"
)
_KASTHURI = "Kasthuri N. et al. Saturated Reconstruction of a Volume of Neocortex. Cell 162:648-661 (2015)"
_MITOEM = (
    "Wei D. et al. MitoEM Dataset: Large-scale 3D Mitochondria Instance Segmentation from EM Images. "
    "MICCAI 2020, "
    "doi:10.1007/978-3-030-59722-1_7; Franco-Barranco D. et al. IEEE TMI (2023), doi:10.1109/TMI.2023.3320497"
)

_TWO_LEVELS = ((0, 255), (0, 1))


def _vnc3_files() -> tuple[DatasetFile, ...]:
    """Return the 20 sections and their 20 masks."""
    provenance = "verified: recomputed from the git blobs of the pinned commit"
    return tuple(
        DatasetFile(
            path, (_VNC3_URL + path,), provenance, sha256=sha256, about=1_048_734 if "raw" in path else 20_000
        )
        for path, sha256 in VNC3_SHA256.items()
    )


def _lucchi_file(name: str) -> DatasetFile:
    provenance = "none known; the size is quoted by a unit test that holds a torrent's metainfo"
    return DatasetFile(name, (_EPFL_URL + name,), provenance, size=129_919_357)


def _casser_splits(train: tuple[int, int, int], test: tuple[int, int, int], archive: str) -> dict[str, Split]:
    """Return train and test as the archive names them; torch-em swaps the two."""
    return {
        "training": Split(
            train,
            Sections((archive,), folder="Train_In", pattern="*.png"),
            Sections((archive,), folder="Train_Out", pattern="*.png"),
        ),
        "testing": Split(
            test,
            Sections((archive,), folder="Test_In", pattern="*.png"),
            Sections((archive,), folder="Test_Out", pattern="*.png"),
        ),
    }


def _mitoem_splits(images: str, labels: str) -> dict[str, Split]:
    """Return sections 0-399 and 400-499; 500-999 have no public labels and stay in the zip."""
    return {
        name: Split(
            (len(numbers), 4096, 4096),
            Sections((images,), pattern="im*.png", numbers=numbers),
            Sections((labels,), pattern="seg*.tif*", numbers=numbers),
        )
        for name, numbers in (("training", range(400)), ("validation", range(400, 500)))
    }


_UROCELL_HASHES = {
    # volume: (git blob of data/NAME.nii.gz, sha256 of mito/binary/NAME.nii.gz)
    "fib1-0-0-0": (
        "da1f3a5356f5702b26582251707bd2e48973217c",
        "ad8880384847865c254b853dde6c8bb13fbef6c9b04a950486a2fe28418fffc2",
    ),
    "fib1-1-0-3": (
        "9564da587ed61560bca698d1392bc5b6bede6af1",
        "d9bfe96c42a5033c96f24b41e6067cd4efb0a2b2443614c86a8649c86f7b0351",
    ),
    "fib1-3-2-1": (
        "fd908e8826db038d442b29b77bdd5ddc8e46ef78",
        "87b1fdf0e1c8f684f875317dc73de007977333855cd9465f53f6f798fb2b88c7",
    ),
    "fib1-3-3-0": (
        "2964cb95271eaa370d3f91cadff31e5ac97d97b5",
        "ad4800dad560789f09295eacd9cc5461d11deefbbe72208fdaff3cd575ba79d6",
    ),
    "fib1-4-3-0": (
        "634937f516666d616dfd4d0683b2b7b59d530ab8",
        "4a6c6b43dbd442af93567b5ed3583199e161e407ebf69fbdc87b85ba2e54099a",
    ),
}


def _urocell_files() -> tuple[DatasetFile, ...]:
    files = []
    for volume, (git_blob, sha256) in _UROCELL_HASHES.items():
        image, mask = f"data/{volume}.nii.gz", f"mito/binary/{volume}.nii.gz"
        tree = "verified: git's name of the content, from the tree of the pinned commit"
        blob = "verified: recomputed from the git blob of the pinned commit"
        files.append(DatasetFile(image, (_UROCELL_URL + image,), tree, git_blob=git_blob, about=2**24))
        files.append(DatasetFile(mask, (_UROCELL_URL + mask,), blob, sha256=sha256, about=2**20))
    return tuple(files)


DATASETS: dict[str, Dataset] = {
    "vnc3": Dataset(
        name="vnc3",
        organism="Drosophila melanogaster, third instar larva",
        tissue="ventral nerve cord",
        device="ssTEM",
        voxel_size=(50.0, 4.6, 4.6),
        voxel_size_note="the source says 45-50 nm between sections and 4.6 nm in plane; the files carry none",
        splits={
            "stack1": Split(
                (20, 1024, 1024),
                Sections(tuple(path for path in VNC3_SHA256 if "/raw/" in path)),
                Sections(tuple(path for path in VNC3_SHA256 if "/mitochondria/" in path)),
                volume_sha256="b845f8b459993f5ca6135daba76a4069bdddca65770f5171f4c3518765f391da",
                mask_sha256="502dcd26f36c7d058b562bc5d336dc8f5cfd25f40c92d795f6bf8b006aa4eafc",
            )
        },
        default_split="stack1",
        files=_vnc3_files(),
        # 292 anti-aliased pixels lie between 0 and 255; masks 01, 07, 18 are 1-bit, read as 0 and 255.
        label_rule=LabelRule(above=127),
        licence="CC BY-NC-SA 3.0 Unported (share-alike, non-commercial)",
        citation=(
            "Gerhard S., Funke J., Martel J., Cardona A., Fetter R. Segmented anisotropic ssTEM dataset of "
            "neural "
            "tissue. figshare (2013), doi:10.6084/m9.figshare.856713"
        ),
        landing_page="https://github.com/unidesigner/groundtruth-drosophila-vnc",
    ),
    "lucchi": Dataset(
        name="lucchi",
        organism="mouse, as commonly quoted; the source page does not say",
        tissue="hippocampus CA1",
        device="FIB-SEM",
        voxel_size=(5.0, 5.0, 5.0),
        voxel_size_note="",
        splits={
            "training": Split(
                (165, 768, 1024), Sections(("training.tif",)), Sections(("training_groundtruth.tif",))
            ),
            "testing": Split(
                (165, 768, 1024), Sections(("testing.tif",)), Sections(("testing_groundtruth.tif",))
            ),
        },
        default_split="training",
        files=tuple(
            _lucchi_file(name)
            for name in ("training.tif", "training_groundtruth.tif", "testing.tif", "testing_groundtruth.tif")
        ),
        label_rule=LabelRule(allowed=_TWO_LEVELS),
        licence="none found at the source: cite, do not redistribute",
        citation=_LUCCHI,
        landing_page="https://www.epfl.ch/labs/cvlab/data/data-em/",
    ),
    "lucchi++": Dataset(
        name="lucchi++",
        organism="mouse, as commonly quoted",
        tissue="hippocampus CA1",
        device="FIB-SEM",
        voxel_size=(5.0, 5.0, 5.0),
        voxel_size_note="",
        splits=_casser_splits((165, 768, 1024), (165, 768, 1024), "lucchi_pp.zip"),
        default_split="training",
        files=(
            DatasetFile(
                "lucchi_pp.zip",
                ("http://www.casser.io/files/lucchi_pp.zip",),
                "quoted by torch-em and micro-sam, whose authors overlap",
                sha256="770ce9e98fc6f29c1b1a250c637e6c5125f2b5f1260e5a7687b55a79e2e8844d",
                about=220_000_000,
            ),
        ),
        label_rule=LabelRule(above=127),
        licence="none found for the new annotation; the images are EPFL's: cite, do not redistribute",
        citation=f"{_CASSER}; {_LUCCHI}",
        landing_page="https://sites.google.com/view/connectomics/",
        note="training and testing are as the archive names them; torch-em has the two swapped",
    ),
    "kasthuri++": Dataset(
        name="kasthuri++",
        organism="mouse",
        tissue="somatosensory cortex",
        device="ATUM-SEM",
        voxel_size=None,
        voxel_size_note=(
            "30 nm between sections; in plane commonly printed as 3 nm, but 6 nm follows from other "
            "catalogues: "
            "say --voxel-size 30 3 3 or 30 6 6 yourself"
        ),
        splits=_casser_splits((85, 1613, 1463), (75, 1553, 1334), "kasthuri_pp.zip"),
        default_split="training",
        files=(
            DatasetFile(
                "kasthuri_pp.zip",
                ("http://www.casser.io/files/kasthuri_pp.zip",),
                "quoted by torch-em",
                sha256="bbb78fd205ec9b57feb8f93ebbdf1666261cbc3e0305e7f11583ab5157a3d792",
                about=320_000_000,
            ),
        ),
        label_rule=LabelRule(above=127, ignore=2),
        licence="none found: cite, do not redistribute",
        citation=f"{_CASSER}; {_KASTHURI}",
        landing_page="https://sites.google.com/view/connectomics/",
        note=(
            "voxels outside the annotated region are background in mask.tif and 255 in ignore.tif: leave "
            "them out of "
            "scores; training and testing are as the archive names them, torch-em has the two swapped"
        ),
    ),
    "mitoem-r": Dataset(
        name="mitoem-r",
        organism="rat",
        tissue="cortex",
        device="multi-beam SEM",
        voxel_size=(30.0, 8.0, 8.0),
        voxel_size_note="",
        splits=_mitoem_splits("EM30-R-im.zip", "EM30-R-mito-train-val-v2.zip"),
        default_split="training",
        files=(
            DatasetFile(
                "EM30-R-im.zip",
                (f"{_EM30_URL}EM30-R-im.zip",),
                "quoted by torch-em",
                sha256="6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
                about=14_000_000_000,
            ),
            DatasetFile(
                "EM30-R-mito-train-val-v2.zip",
                (f"{_MITOEM_URL}EM30-R-mito-train-val-v2.zip",),
                "quoted by torch-em",
                sha256="c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
                about=66_600_000,
            ),
        ),
        label_rule=LabelRule(),
        licence="MIT, by the Hugging Face card of the authors",
        citation=_MITOEM,
        landing_page="https://huggingface.co/datasets/pytc/MitoEM",
        note="sections 500 to 999 have no public labels and are not converted",
    ),
    "mitoem-h": Dataset(
        name="mitoem-h",
        organism="human",
        tissue="cortex",
        device="multi-beam SEM",
        voxel_size=(30.0, 8.0, 8.0),
        voxel_size_note="",
        splits=_mitoem_splits("EM30-H-im.zip", "EM30-H-mito-train-val-v2.zip"),
        default_split="training",
        files=(
            # EM30-H-im-pad.zip of Hugging Face has 1040 larger sections that do not line up with the labels.
            DatasetFile(
                "EM30-H-im.zip",
                ("https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",),
                "quoted by torch-em",
                sha256="98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
                about=15_000_000_000,
            ),
            DatasetFile(
                "EM30-H-mito-train-val-v2.zip",
                (
                    "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1",
                    f"{_MITOEM_URL}EM30-H-mito-train-val-v2.zip",
                ),
                "quoted by torch-em for the Dropbox copy; that Hugging Face serves the same bytes is "
                "unproven",
                sha256="0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
                about=55_900_000,
            ),
        ),
        label_rule=LabelRule(),
        licence="MIT, by the Hugging Face card of the authors",
        citation=_MITOEM,
        landing_page="https://huggingface.co/datasets/pytc/MitoEM",
        note="sections 500 to 999 have no public labels and are not converted",
    ),
    "urocell": Dataset(
        name="urocell",
        organism="mouse",
        tissue="urinary bladder, urothelial cells",
        device="FIB-SEM",
        voxel_size=(15.0, 16.0, 16.0),
        voxel_size_note="approximate, from the README; the voxel sizes in the NIfTI headers are meaningless",
        splits={
            volume: Split(
                (256, 256, 256),
                Sections((f"data/{volume}.nii.gz",)),
                Sections((f"mito/binary/{volume}.nii.gz",)),
            )
            for volume in _UROCELL_HASHES
        },
        default_split="fib1-0-0-0",
        files=_urocell_files(),
        label_rule=LabelRule(allowed=((0, 1),)),
        licence="CC BY-NC-SA 4.0 (share-alike, non-commercial)",
        citation=(
            "Zerovnik Mekuc M. et al. Automatic segmentation of mitochondria and endolysosomes in "
            "volumetric electron "
            "microscopy data. Computers in Biology and Medicine 119:103693 (2020), "
            "doi:10.1016/j.compbiomed.2020.103693"
        ),
        landing_page="https://github.com/MancaZerovnikMekuc/UroCell",
        note="only the five volumes with mitochondria labels",
    ),
}
