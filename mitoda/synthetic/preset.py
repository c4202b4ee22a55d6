"""Two pairs of tissue and microscope: parameters of drawn volumes."""

from dataclasses import dataclass

from mitoda.errors import InputError
from mitoda.volumes.volume import VoxelSize


@dataclass(frozen=True)
class PhantomDomain:
    """How one microscope shows one tissue. Grey values run from 0 (black) to 1 (white).

    The numbers were chosen by eye beside VNC III (`SOURCE`) and Lucchi (`TARGET`). Those called a spread are
    standard deviations.
    """

    voxel_size: VoxelSize
    """Nanometres: (section, row, column). Pixels are square."""
    planes: int = 1
    """Planes averaged through the thickness of one section; the label is that of the middle."""
    cytoplasm: float = 0.75
    """Grey of the cytoplasm, on average."""
    cytoplasm_spread: float = 0.05
    """Spread of the cytoplasm's grey from cell to cell."""
    membrane: float = 0.1
    membrane_width: float = 9.0
    """Nanometres from the middle of a cell border to where its darkness has fallen to 1/e."""
    matrix: float = 0.5
    """Grey inside mitochondria."""
    crista: float = 0.25
    crista_spacing: float = 60.0
    """Nanometres from crista to crista."""
    mitochondrion_radius: float = 130.0
    """Nanometres, on average; it varies by a fifth."""
    mitochondria_share: float = 0.08
    """Share of the volume; 0 draws no mitochondria, and other values are met within 0.05 to 0.12 if possible."""
    touching: bool = False
    """Whether neighbouring mitochondria of a neurite touch end to end. Otherwise they keep 30 nm apart."""
    texture: float = 0.06
    """Spread of the granular texture of the cytoplasm."""
    texture_size: float = 8.0
    """Standard deviation of the blur of that texture, in nanometres."""
    blur: float = 4.0
    """Standard deviation of the microscope's point spread in the section, in nanometres."""
    noise: float = 0.05
    """Spread of the detector's noise on white; it falls with the square root of the grey value."""
    brightness: float = 0.0
    """Added after the contrast."""
    contrast: float = 1.0
    """Factor on grey values around 0.5."""
    illumination: float = 0.06
    """Spread of the slow change of brightness across a section."""
    flicker: float = 0.03
    """Spread of the brightness from section to section."""
    curtains: float = 0.0
    """Spread of the streaks along columns that milling leaves."""

    def __post_init__(self) -> None:
        if min(self.voxel_size) <= 0 or self.voxel_size[1] != self.voxel_size[2]:
            raise InputError(
                f"voxel_size is {self.voxel_size}; expected positive nanometres and square pixels"
            )
        if self.planes < 1:
            raise InputError(f"planes is {self.planes}; expected 1 or more")


SOURCE = PhantomDomain(voxel_size=(50.0, 5.0, 5.0), planes=3, flicker=0.04)
"""Serial-section TEM: thick sections, crisp black membranes on bright cytoplasm, strong cristae."""
TARGET = PhantomDomain(
    voxel_size=(10.0, 5.0, 5.0),
    cytoplasm=0.62,
    cytoplasm_spread=0.03,
    membrane=0.22,
    membrane_width=11.0,
    matrix=0.36,
    crista=0.24,
    crista_spacing=45.0,
    mitochondrion_radius=150.0,
    texture=0.09,
    texture_size=14.0,
    blur=6.5,
    noise=0.075,
    brightness=-0.04,
    contrast=0.62,
    flicker=0.012,
    curtains=0.012,
)
"""FIB-SEM: thin sections, low contrast, coarse dark cytoplasm, dark mitochondria with faint cristae."""
