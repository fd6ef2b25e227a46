"""What there is to know about a data set before its files are opened."""

from dataclasses import dataclass

from data_io.fetching.downloads import Download


@dataclass(frozen=True)
class Record:
    """The facts of one data set.

    Attributes:
        name: folder name in `results/` and argument of `--dataset`, such as `drive`.
        title: as the paper's tables print it, such as `DRIVE`.
        classes: names of the classes, background first.
        channels: channels of an image.
        input_shape: spatial shape of the network's input, rows first; for volumes
            (three axes) the shape of a patch, slices first.
        counts: number of cases in `training`, `validation` and `test`.
        raw_shape: spatial shape of every raw image, rows first; None where it varies.
        source: address of the data set's own page.
        licence: the terms it is distributed under, as found.
        citation: the publication to cite.
        access: how to get the files, one or two sentences.
        layout: drawing of the folder, as distributed.
        downloads: what `dscpp fetch` gets; () where an account is needed.
        simulated: True where nothing was ever photographed.
        spacing_mm: for volumes, the voxel size to resample to, by axis; None to keep
            each volume's own.
        clip: range to clip raw values to, such as Hounsfield units; None for none.
        axes: for volumes, which axis of the body each axis of the array runs along,
            either way: 0 is left to right, 1 back to front, 2 foot to head; of an
            oblique axis the nearest. None where it is not laid down.
        directions: for volumes, towards what each axis of the array runs, see
            `data_io.files.nifti.Geometry.directions`; volumes that run the other way
            are turned. None to take each as it is stored.
        modalities: numbers in the names of a case's image files, such as ("0000",
            "0001"), each a channel; None where a case has one image of any name.
        grey_masks: True where masks are known to hold grey values besides 0 and 255, as
            JPEG leaves them: they are read with `read_mask(path, grey=True)`.
        any_mode: True where copies of the data set differ in how images are stored: as
            grey, palette or RGB, and are read as RGB with `read_image`.
        split_by: what the split by seed keeps together, such as `sequence`: no two
            parts share a group of the data set's `groups(root)`. "" for nothing.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    channels: int
    input_shape: tuple[int, ...]
    counts: dict[str, int]
    source: str
    licence: str
    citation: str
    access: str
    layout: str
    raw_shape: tuple[int, ...] | None = None
    downloads: tuple[Download, ...] = ()
    simulated: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    clip: tuple[float, float] | None = None
    axes: tuple[int, int, int] | None = None
    directions: str | None = None
    modalities: tuple[str, ...] | None = None
    grey_masks: bool = False
    any_mode: bool = False
    split_by: str = ""

    @property
    def is_3d(self) -> bool:
        """True for volumes, which are cut into patches."""
        return len(self.input_shape) == 3

    @property
    def cases(self) -> int:
        """Number of cases in all parts of the split."""
        return sum(self.counts.values())
