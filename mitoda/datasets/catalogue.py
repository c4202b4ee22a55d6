"""The catalogue of public data sets. Each hash says whether it was computed from the source or is quoted."""

from importlib.resources import files as package_files

from mitoda.datasets.schema import Dataset, DatasetFile, LabelRule, Sections, Split

_VNC3_URL = "https://raw.githubusercontent.com/unidesigner/groundtruth-drosophila-vnc/4a5f051466d24d8dc1e855ab55658bb1b1dcd6bf/"
_EPFL_URL = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus/"
_EM30_URL = "https://huggingface.co/datasets/pytc/EM30/resolve/63519706546316c1f00863cbea0ece40358a759a/"
_MITOEM_URL = "https://huggingface.co/datasets/pytc/MitoEM/resolve/2105967e61abf02ae1873c514b8ea16390606384/"
_UROCELL_URL = (
    "https://raw.githubusercontent.com/MancaZerovnikMekuc/UroCell/4bab22add57dd00dacb7ecffae2205e6d1422299/"
)
_CDEEP3M_URL = "https://raw.githubusercontent.com/CRBS/cdeep3m/abf995802608073532f324ce57425fa1b7cf9d19/"
_FIB25_URL = "https://raw.githubusercontent.com/janelia-flyem/neuroproof_examples/ce839e17deaf4c01153827c6d028dfecfbb4b958/"

_LUCCHI_CITATION = (
    "Lucchi A. et al. Supervoxel-Based Segmentation of Mitochondria in EM Image Stacks With Learned Shape Features. "
    "IEEE TMI 31:474-486 (2012), doi:10.1109/TMI.2011.2171705; "
    "Lucchi A. et al. Learning for Structured Prediction Using Approximate Subgradient Descent with Working Sets. "
    "CVPR 2013"
)
_CASSER_CITATION = (
    "Casser V. et al. Fast Mitochondria Detection for Connectomics. "
    "MIDL 2020, PMLR 121:111-120, arXiv:1812.06024"
)


def _pinned(registry: str, base_url: str, about: int) -> tuple[DatasetFile, ...]:
    """Return the files of a pooch registry in this folder, published below a commit's address.

    `about` is the largest size of a file in bytes.
    """
    text = package_files("mitoda.datasets").joinpath(registry).read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines())
    provenance = "verified: computed from the pinned commit"
    return tuple(
        DatasetFile(path, (base_url + path,), provenance, known, about=about) for path, known in lines
    )


def _paths(files: tuple[DatasetFile, ...], folder: str) -> tuple[str, ...]:
    return tuple(file.path for file in files if file.path.startswith(folder))


_VNC3 = _pinned("vnc3-registry.txt", _VNC3_URL, 1_048_734)
_UROCELL = _pinned("urocell-registry.txt", _UROCELL_URL, 2**24)
_CDEEP3M = _pinned("cdeep3m-registry.txt", _CDEEP3M_URL, 1_000_000)
_FIB25 = _pinned("fib25-registry.txt", _FIB25_URL, 60_000)


def _quoted(urls: str, sha256: str, about: int, by: str = "torch-em") -> DatasetFile:
    """Return a file whose hash is quoted; `urls` are separated by spaces, and the last one ends in its name."""
    addresses = tuple(urls.split())
    path = addresses[-1].rpartition("/")[2].partition("?")[0]
    return DatasetFile(path, addresses, f"quoted by {by}", f"sha256:{sha256}", about=about)


def _casser_splits(archive: str, train: tuple[int, int, int], test: tuple[int, int, int]) -> dict[str, Split]:
    """Return training and testing as the archive names them; torch-em has the two swapped."""

    def split(shape: tuple[int, int, int], folder: str) -> Split:
        images, labels = (Sections((archive,), f"{folder}_{part}/*.png") for part in ("In", "Out"))
        return Split(shape, images, labels)

    return {"training": split(train, "Train"), "testing": split(test, "Test")}


def _mitoem(letter: str, organism: str, files: tuple[DatasetFile, DatasetFile]) -> Dataset:
    """Return MitoEM-R or MitoEM-H; `files` are the zip of the images and that of the labels."""
    images, labels = files
    return Dataset(
        name=f"mitoem-{letter}",
        organism=organism,
        tissue="cortex",
        device="multi-beam SEM",
        voxel_size=(30.0, 8.0, 8.0),
        splits={
            name: Split(
                (len(numbers), 4096, 4096),
                Sections((images.path,), "im*.png", numbers),
                Sections((labels.path,), "seg*.tif*", numbers),
            )
            for name, numbers in (("training", range(400)), ("validation", range(400, 500)))
        },
        files=files,
        label_rule=LabelRule(),
        licence="MIT, according to the authors' Hugging Face card",
        citation=(
            "Wei D. et al. MitoEM Dataset: Large-scale 3D Mitochondria Instance Segmentation from EM Images. "
            "MICCAI 2020, doi:10.1007/978-3-030-59722-1_7; "
            "Franco-Barranco D. et al. IEEE TMI (2023), doi:10.1109/TMI.2023.3320497"
        ),
        landing_page="https://huggingface.co/datasets/pytc/MitoEM",
        note="sections 500 to 999 have no public labels and are not converted",
    )


_ENTRIES = (
    Dataset(
        name="vnc3",
        organism="Drosophila melanogaster, third instar larva",
        tissue="ventral nerve cord",
        device="ssTEM",
        voxel_size=(50.0, 4.6, 4.6),
        voxel_size_note="the source says 45-50 nm between sections and 4.6 nm in plane; the files carry none",
        splits={
            "stack1": Split(
                (20, 1024, 1024),
                Sections(_paths(_VNC3, "stack1/raw")),
                Sections(_paths(_VNC3, "stack1/mitochondria")),
                volume_sha256="b845f8b459993f5ca6135daba76a4069bdddca65770f5171f4c3518765f391da",
                mask_sha256="502dcd26f36c7d058b562bc5d336dc8f5cfd25f40c92d795f6bf8b006aa4eafc",
            )
        },
        files=_VNC3,
        # 292 anti-aliased pixels lie between 0 and 255; masks 01, 07, 18 are 1-bit, read as 0 and 255.
        label_rule=LabelRule(above=127),
        licence="CC BY-NC-SA 3.0 Unported (share-alike, non-commercial)",
        citation=(
            "Gerhard S., Funke J., Martel J., Cardona A., Fetter R. Segmented anisotropic ssTEM dataset of neural "
            "tissue. figshare (2013), doi:10.6084/m9.figshare.856713"
        ),
        landing_page="https://github.com/unidesigner/groundtruth-drosophila-vnc",
    ),
    Dataset(
        name="lucchi",
        organism="mouse (as commonly quoted; the source page does not say)",
        tissue="hippocampus CA1",
        device="FIB-SEM",
        voxel_size=(5.0, 5.0, 5.0),
        splits={
            name: Split((165, 768, 1024), Sections((f"{name}.tif",)), Sections((f"{name}_groundtruth.tif",)))
            for name in ("training", "testing")
        },
        files=tuple(
            DatasetFile(
                name,
                (_EPFL_URL + name,),
                "none known; the size is quoted by a unit test that holds a torrent's metainfo",
                size=129_919_357,
            )
            for name in ("training.tif", "training_groundtruth.tif", "testing.tif", "testing_groundtruth.tif")
        ),
        label_rule=LabelRule(allowed=((0, 255), (0, 1))),
        licence="none found at the source: cite, do not redistribute",
        citation=_LUCCHI_CITATION,
        landing_page="https://www.epfl.ch/labs/cvlab/data/data-em/",
    ),
    Dataset(
        name="lucchi++",
        organism="mouse (as commonly quoted)",
        tissue="hippocampus CA1",
        device="FIB-SEM",
        voxel_size=(5.0, 5.0, 5.0),
        splits=_casser_splits("lucchi_pp.zip", (165, 768, 1024), (165, 768, 1024)),
        files=(
            _quoted(
                "http://www.casser.io/files/lucchi_pp.zip",
                "770ce9e98fc6f29c1b1a250c637e6c5125f2b5f1260e5a7687b55a79e2e8844d",
                220_000_000,
                by="torch-em and micro-sam, whose authors overlap",
            ),
        ),
        label_rule=LabelRule(above=127),
        licence="none found for the new annotation, the images are EPFL's: cite, do not redistribute",
        citation=f"{_CASSER_CITATION}; {_LUCCHI_CITATION}",
        landing_page="https://sites.google.com/view/connectomics/",
        note="training and testing are as the archive names them; torch-em has the two swapped",
    ),
    Dataset(
        name="kasthuri++",
        organism="mouse",
        tissue="somatosensory cortex",
        device="ATUM-SEM",
        voxel_size=None,
        voxel_size_note=(
            "uncertain: 30 nm between sections; in plane 3 nm is commonly printed, but 6 nm follows from other "
            "catalogues: give --voxel-size 30 3 3 or 30 6 6 yourself"
        ),
        splits=_casser_splits("kasthuri_pp.zip", (85, 1613, 1463), (75, 1553, 1334)),
        files=(
            _quoted(
                "http://www.casser.io/files/kasthuri_pp.zip",
                "bbb78fd205ec9b57feb8f93ebbdf1666261cbc3e0305e7f11583ab5157a3d792",
                320_000_000,
            ),
        ),
        label_rule=LabelRule(above=127, ignore=2),
        licence="none found: cite, do not redistribute",
        citation=(
            f"{_CASSER_CITATION}; "
            "Kasthuri N. et al. Saturated Reconstruction of a Volume of Neocortex. Cell 162:648-661 (2015)"
        ),
        landing_page="https://sites.google.com/view/connectomics/",
        note=(
            "voxels outside the annotated region are 0 in mask.tif and 255 in ignore.tif: leave them out of scores; "
            "training and testing are as the archive names them, torch-em has the two swapped"
        ),
    ),
    _mitoem(
        "r",
        "rat",
        (
            _quoted(
                f"{_EM30_URL}EM30-R-im.zip",
                "6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
                14_000_000_000,
            ),
            _quoted(
                f"{_MITOEM_URL}EM30-R-mito-train-val-v2.zip",
                "c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
                66_600_000,
            ),
        ),
    ),
    _mitoem(
        "h",
        "human",
        (
            # EM30-H-im-pad.zip of Hugging Face has 1040 larger sections that do not line up with the labels.
            _quoted(
                "https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",
                "98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
                15_000_000_000,
            ),
            _quoted(
                "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1 "
                f"{_MITOEM_URL}EM30-H-mito-train-val-v2.zip",
                "0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
                55_900_000,
                by="torch-em for the Dropbox copy; that Hugging Face serves the same bytes is unproven",
            ),
        ),
    ),
    Dataset(
        name="urocell",
        organism="mouse",
        tissue="urinary bladder, urothelial cells",
        device="FIB-SEM",
        voxel_size=(15.0, 16.0, 16.0),
        voxel_size_note="approximate, from the README; the voxel sizes in the NIfTI headers are meaningless",
        splits={
            image.removeprefix("data/").removesuffix(".nii.gz"): Split(
                (256, 256, 256), Sections((image,)), Sections((mask,))
            )
            for image, mask in zip(_paths(_UROCELL, "data/"), _paths(_UROCELL, "mito/"), strict=True)
        },
        files=_UROCELL,
        label_rule=LabelRule(allowed=((0, 1),)),
        licence="CC BY-NC-SA 4.0 (share-alike, non-commercial)",
        citation=(
            "Zerovnik Mekuc M. et al. Automatic segmentation of mitochondria and endolysosomes in volumetric electron "
            "microscopy data. Computers in Biology and Medicine 119:103693 (2020), doi:10.1016/j.compbiomed.2020.103693"
        ),
        landing_page="https://github.com/MancaZerovnikMekuc/UroCell",
        note="only the five volumes with mitochondria labels",
    ),
    Dataset(
        name="cdeep3m",
        organism="not stated",
        tissue="brain",
        device="SBEM",
        voxel_size=(40.0, 5.9, 5.9),
        voxel_size_note=(
            "40 x 5.9 x 5.9 nm is inferred from a path in the source's repository (xy5.9nm40nmz) and never stated at "
            "the source; the true one may be larger"
        ),
        splits={
            name: Split(
                (depth, 1024, 1024),
                Sections(_paths(_CDEEP3M, f"mito_testsample/{name}/images/")),
                Sections(_paths(_CDEEP3M, f"mito_testsample/{name}/labels/")),
            )
            for name, depth in (("training", 20), ("validation", 10))
        },
        files=_CDEEP3M,
        label_rule=LabelRule(allowed=((0, 1),)),
        licence="UC San Diego: education, research and non-profit only (written for the software of the same source)",
        citation=(
            "Haberl M. G. et al. CDeep3M-Plug-and-Play cloud-based deep learning for image segmentation. "
            "Nature Methods 15:677-680 (2018), doi:10.1038/s41592-018-0106-z"
        ),
        landing_page="https://github.com/CRBS/cdeep3m",
    ),
    Dataset(
        name="fib25",
        organism="Drosophila melanogaster",
        tissue="medulla",
        device="FIB-SEM",
        voxel_size=(10.0, 10.0, 10.0),
        splits={"training_sample2": Split((128, 250, 250), Sections(_paths(_FIB25, "training_sample2/")))},
        files=_FIB25,
        label_rule=LabelRule(),
        licence="Creative Commons Attribution, version not stated",
        citation=(
            "Takemura S. et al. Synaptic circuits and their variations within different columns in the visual system "
            "of Drosophila. PNAS 112:13711-13716 (2015), doi:10.1073/pnas.1509820112"
        ),
        landing_page="https://github.com/janelia-flyem/neuroproof_examples",
        note="no mitochondria labels: a target only; the first 128 of the 250 sections of this sample",
    ),
)

DATASETS: dict[str, Dataset] = {entry.name: entry for entry in _ENTRIES}
