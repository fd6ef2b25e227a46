"""The list of damages; see `damage.py`."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import tifffile
import tiny_volumes
from damage import Damage, train_command
from PIL import Image

__all__ = ["DAMAGES", "SOUND"]

Act = Callable[[Path], object]


# What is done to files.


def at(name: str, act: Act) -> Act:
    """Does something to one file of the scene."""
    return lambda scene: act(scene / name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def page(path: Path) -> None:
    path.write_text("<html>please log in</html>\n")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("moved-away")


def text(content: str) -> Act:
    return lambda path: path.write_text(content)


def pixels(change: Callable[[np.ndarray], np.ndarray], **options: Any) -> Act:
    """Write an image with other pixels."""

    def act(path: Path) -> None:
        with Image.open(path) as image:
            array = np.array(image)
        kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix, "PNG")
        Image.fromarray(change(array)).save(path, format=kind, **options)

    return act


def values(change: Callable[[np.ndarray], None]) -> Act:
    """Changes pixels in place."""

    def changed(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        change(array)
        return array

    return pixels(changed)


def put(where: Any, value: int) -> Act:
    return values(lambda array: array.__setitem__(where, value))


def palette(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).save(path)


def turned(path: Path) -> None:
    with Image.open(path) as image:
        tags = image.getexif()
        tags[274] = 6
        image.save(path, exif=tags)


def pages(path: Path) -> None:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    rgb.save(path, format="TIFF", save_all=True, append_images=[rgb])


def deep_colour(path: Path) -> None:
    """A PNG of 16 bits a colour channel, which Pillow can't write."""
    import zlib

    rows = b"".join(b"\0" + bytes(range(180)) for _ in range(24))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 30, 24, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)
    )


def deep_planes(path: Path) -> None:
    """A TIFF with planes of 16 bits, under the name of a PNG."""
    planes = np.arange(3 * 25 * 30, dtype=np.uint16).reshape(3, 25, 30)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")


def clear_colour(path: Path) -> None:
    """A PNG of which one colour is transparent."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    rgb.save(path, transparency=rgb.getpixel((0, 0)))


def two_sizes(path: Path) -> None:
    """A qform and pixdim of 8 x 3 x 4 mm beside the sform."""

    def change(content: bytearray) -> None:
        content[80:92] = struct.pack("<3f", 8, 3, 4)
        content[252:254] = struct.pack("<h", 1)

    packed(change)(path)


def array(change: Callable[[np.ndarray], np.ndarray]) -> Act:
    """Changes a `.npy` file."""
    return lambda path: np.save(path, change(np.load(path)))


def block(old: np.ndarray) -> np.ndarray:
    """Other values that could be probabilities, in a square."""
    new = old.copy()
    new[2:9, 3:11] = new[2:9, 3:11, ::-1]
    return new


def voxels(
    change: Callable[[np.ndarray], np.ndarray] = lambda array: array,
    affine: np.ndarray | None = tiny_volumes.AFFINE,
    header: Callable[[Any], object] = lambda header: None,
) -> Act:
    """Write a volume with other voxels or another header."""

    def act(path: Path) -> None:
        old = np.asarray(nibabel.load(path).dataobj)
        image = nibabel.Nifti1Image(change(old.copy()), affine)
        header(image.header)
        nibabel.save(image, path)

    return act


def filled(value: float, dtype: Any = np.float32, where: Any = (2, 3, 4)) -> Act:
    def change(old: np.ndarray) -> np.ndarray:
        new = old.astype(dtype)
        new[where] = value
        return new

    return voxels(change)


def packed(change: Callable[[bytearray], object]) -> Act:
    """Changes the bytes within a .gz, whose checksum is then right."""

    def act(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        change(content)
        path.write_bytes(gzip.compress(bytes(content)))

    return act


def flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum at the end
    path.write_bytes(bytes(content))


def spacing_0(path: Path) -> None:
    def change(content: bytearray) -> None:
        content[280:328] = struct.pack("<12f", 0, 0, -2, 9, 0, -1.5, 0, 8, 0, 0, 0, 7)

    packed(change)(path)


def affine_nan(path: Path) -> None:
    packed(lambda c: c.__setitem__(slice(280, 284), struct.pack("<f", np.nan)))(path)


def both(name: str, act: Act) -> Act:
    """Does it to image and label map of a case of KiTS19."""

    def do(scene: Path) -> None:
        for part in ("imaging", "segmentation"):
            act(scene / name / f"{part}.nii.gz")

    return do


def rotate(path: Path) -> None:
    image = nibabel.load(path)
    moved = np.asarray(image.dataobj).transpose(2, 1, 0)
    affine = image.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(moved, affine), path)


def swap(scene: Path) -> None:
    image, label = (scene / CASE / f"{n}.nii.gz" for n in ("imaging", "segmentation"))
    aside = image.with_name("aside")
    image.rename(aside)
    label.rename(image)
    aside.rename(label)


def json_of(name: str, change: Callable[[dict[str, Any]], object]) -> Act:
    """Changes a JSON file of the scene."""

    def act(scene: Path) -> None:
        value = json.loads((scene / name).read_text())
        change(value)
        value.pop("sha256", None)  # of run.json; or the change itself were refused
        (scene / name).write_text(json.dumps(value))

    return act


def set_(**more: Any) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.update(more)


def split(name: str = "split.json", **parts: list[str]) -> Act:
    whole = {"training": ["p0", "p1"], "validation": ["p2"], "test": ["p3"]}
    return lambda scene: (scene / name).write_text(json.dumps({**whole, **parts}))


def all_of(*acts: Act) -> Act:
    return lambda scene: [act(scene) for act in acts]


def copy(source: str, target: str) -> Act:
    return lambda scene: shutil.copyfile(scene / source, scene / target)


def channels(scene: Path) -> None:
    """Gives each own image two channels, as nnU-Net names them."""
    for path in list((scene / "photos").iterdir()):
        shutil.copyfile(path, path.with_stem(f"{path.stem}_0001"))
        path.rename(path.with_stem(f"{path.stem}_0000"))


def model(change: Callable[[Any], Any]) -> Act:
    """Another network in `run`, whose hash `run.json` is made to have."""

    def act(scene: Path) -> None:
        import keras

        path = scene / "run" / "model.keras"
        change(keras.models.load_model(path, compile=False)).save(path)

    return act


def owned(scene: Path) -> None:
    from data_io.files.hashing import file_hash

    sha256 = file_hash(scene / "run" / "model.keras")
    json_of("run/run.json", lambda r: r["files"].update({"model.keras": sha256}))(scene)


def doubled(network: Any) -> Any:
    network.set_weights([2 * weight for weight in network.get_weights()])
    return network


def spoilt(network: Any) -> Any:
    network.set_weights([np.nan * weight for weight in network.get_weights()])
    return network


def deeper(network: Any) -> Any:
    from pipelines.training import unet

    return unet.UNet(2, 2).create_model_2D((32, 32, 3), 2)


def zipped(name: str, member: str) -> Act:
    def act(scene: Path) -> None:
        with zipfile.ZipFile(scene / name, "w") as archive:
            archive.write(scene / "dsb" / "n0" / "images" / "n0.png", member)

    return act


def measured(scene: Path) -> None:
    target = scene / "run" / "other-sets" / "other"
    target.mkdir(parents=True)
    (target / "set.json").write_text(json.dumps({"data_hash": "of others"}))


# What is wrong with the machine.


def full(*names: str) -> Callable[[], Any]:
    """A disk that is full as soon as a file of such a name is written."""

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        real_open, real_save = Path.open, np.save

        def fail(path: Any) -> None:
            if any(name in Path(path).name for name in names):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        def open_(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
            if "w" in mode or "a" in mode:
                fail(self)
            return real_open(self, mode, *more, **options)

        def save(file: Any, *more: Any, **options: Any) -> None:
            if isinstance(file, str | Path):
                fail(file)
            real_save(file, *more, **options)

        with mock.patch.object(Path, "open", open_), mock.patch("numpy.save", save):
            yield

    return during


def closed(name: str) -> Callable[[], Any]:
    """A file that may not be read; by rights alone root may read anything."""

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        real = Image.open

        def open_(path: Any, *more: Any, **options: Any) -> Any:
            if str(path).endswith(name):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *more, **options)

        with mock.patch.object(Image, "open", open_):
            yield

    return during


def shut(name: str) -> Callable[[], Any]:
    """A folder whose names may not be read."""
    real = os.listdir

    def listdir(path: Any = ".") -> list[str]:
        if Path(path) == Path(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    return lambda: mock.patch("os.listdir", listdir)


def held(name: str) -> Callable[[], Any]:
    """A run on which another process works."""
    from pipelines.runs import run as runs

    return lambda: runs.lock_folder(Path(name))


CASE = "kits/case_00001"
IMAGE, LABEL = f"{CASE}/imaging.nii.gz", f"{CASE}/segmentation.nii.gz"
NUCLEI, NUCLEUS = "dsb/n1/images/n1.png", "dsb/n1/masks/a.png"
ISIC = "ISIC2018/ISIC2018_Task1-2_Training_Input/ISIC_0000010.jpg"
SKIN = "ISIC2018/ISIC2018_Task1_Training_GroundTruth/ISIC_0000010_segmentation.png"
PHANTOM = "phantom/images/phantom-001_image.png"
POSTERIOR = "phantom/posteriors/phantom-001_posterior.npy"

DSB = ("verify", "--dataset", "dsb2018", "--data", "dsb")
SKINS = ("verify", "--dataset", "isic2018", "--data", "ISIC2018")
KITS = ("verify", "--dataset", "kits19", "--data", "kits")
PHANTOMS = ("verify", "--dataset", "phantom", "--data", "phantom")
OWN = ("verify", "--images", "photos", "--masks", "labels")
SPLIT = (*OWN, "--split", "split.json")
OF_RUN = ("--run", "run", "--data", "phantom")
TRAIN, RESUME = train_command("new"), train_command("cut", epochs=2)
PREDICT = ("predict", *OF_RUN, "--again")
MODEL = ("predict", "--model", "run", "--input", "photos", "--output", "out")
EVALUATE = ("evaluate", *OF_RUN, "--again")
OTHER = ("evaluate", "--run", "run", "--images", "photos", "--masks", "labels")
# What the damages are met by, but for those of a place or an option.
SOUND = (DSB, SKINS, KITS, PHANTOMS, OWN, RESUME, PREDICT, MODEL, EVALUATE, OTHER)
HELD_OUT = "run/probabilities/phantom-004.npy"


def one(
    stage: str, what: str, file: str, act: Act, command: Any, **more: Any
) -> Damage:
    """Damage to one file, which the message names."""
    more = {"names": Path(file).name, **more}
    return Damage(stage, what, at(file, act), command, **more)


VERIFY_IMAGES = [
    one("verify", "image missing", NUCLEI, Path.unlink, DSB),
    one("verify", "label map missing", SKIN, Path.unlink, SKINS),
    one("verify", "image an empty file", NUCLEI, empty, DSB),
    one("verify", "PNG cut short", NUCLEI, cut, DSB),
    one("verify", "JPEG cut short", ISIC, cut, SKINS),
    one("verify", "a web page in an image's place", NUCLEI, page, DSB),
    one("verify", "a folder in an image's place", NUCLEI, folder, DSB),
    one("verify", "a link that leads nowhere", NUCLEI, nowhere, DSB),
    one("verify", "a file that may not be read", NUCLEI, lambda path: None, DSB,
        during=closed("n1.png")),
    one("verify", "image of another size than its label map", NUCLEI,
        pixels(lambda a: a[:-2]), DSB, names="n1/masks"),
    one("verify", "image with 16 bits a colour channel", NUCLEI, deep_colour, DSB),
    one("verify", "TIFF with planes of 16 bits", NUCLEI, deep_planes, DSB),
    one("verify", "PostScript under an image's name", NUCLEI,
        text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"), DSB),
    one("verify", "a colour that is transparent", NUCLEI, clear_colour, DSB),
    one("verify", "grey image with 16 bits", NUCLEI,
        pixels(lambda a: a[..., 0].astype(np.uint16) * 257), DSB),
    one("verify", "grey image where colours are expected", NUCLEI,
        pixels(lambda a: a[..., 0]), DSB),
    one("verify", "palette image where colours are expected", NUCLEI, palette, DSB),
    one("verify", "transparent pixels", NUCLEI, put((4, 5, 3), 0), DSB),
    one("verify", "image turned by an EXIF tag", ISIC, turned, SKINS),
    one("verify", "several pages in one file", NUCLEI, pages, DSB),
    one("verify", "constant image", NUCLEI, pixels(lambda a: a * 0 + 255), DSB),
    one("verify", "a third value in a binary mask", "labels/p1.png", put((0, 0), 7),
        OWN, names="p1"),
    one("verify", "grey mask, in a set that is known for them", SKIN,
        put((0, slice(0, 9)), 90), SKINS, code=0, names="ISIC_0000010"),
    one("verify", "mask without foreground", SKIN, pixels(lambda a: a * 0), SKINS,
        code=0),
    one("verify", "mask without background", SKIN, pixels(lambda a: a * 0 + 255),
        SKINS, code=0),
    one("verify", "mask in colour", SKIN,
        pixels(lambda a: np.stack([a, a // 2, a], -1)), SKINS),
    one("verify", "mask of one object that can't be decoded", NUCLEUS, cut, DSB),
    one("verify", "masks of one image of several sizes", NUCLEUS,
        pixels(lambda a: a[:, :-1]), DSB, names="n1/masks"),
    one("verify", "no mask of an object", "dsb/n1/masks",
        lambda path: [mask.unlink() for mask in path.iterdir()], DSB, names="n1/masks"),
    one("verify", "probabilities of NaN", POSTERIOR, array(lambda a: a * np.nan),
        PHANTOMS),
    one("verify", "probabilities above 1", POSTERIOR, array(lambda a: a + 1), PHANTOMS),
    one("verify", "array cut short", POSTERIOR, cut, PHANTOMS),
    Damage("verify", "a folder that may not be opened", lambda scene: None, DSB,
           names="dsb", during=shut("dsb")),
    Damage("verify", "a report that can't be written", at("work", text("mine")),
           (*DSB, "--json", "work/report.json"), names="work/report.json"),
    Damage("verify", "two damaged files: neither hides the other",
           all_of(at(NUCLEI, cut), at("dsb/n3/masks/b.png", empty)), DSB,
           names="n3/masks/b.png"),
]  # fmt: skip
VERIFY_VOLUMES = [
    one("verify", "gzip cut short, its header sound", IMAGE, cut, KITS),
    one("verify", "gzip with a wrong checksum", IMAGE, flipped_bit, KITS),
    one("verify", "fewer voxels than the header says", IMAGE,
        packed(lambda c: c.__delitem__(slice(-500, None))), KITS),
    one("verify", "wrong magic number", IMAGE,
        packed(lambda c: c.__setitem__(slice(344, 348), b"nope")), KITS),
    one("verify", "NaN voxels", IMAGE, filled(np.nan), KITS),
    one("verify", "infinite voxels", IMAGE, filled(np.inf), KITS),
    one("verify", "constant volume", IMAGE, voxels(lambda a: a * 0), KITS),
    one("verify", "spacing 0", IMAGE, spacing_0, KITS),
    one("verify", "affine of NaN", IMAGE, affine_nan, KITS),
    one("verify", "spacing in micrometres", IMAGE,
        voxels(header=lambda h: h.set_xyzt_units("micron")), KITS),
    one("verify", "sform and qform of two voxel sizes", IMAGE, two_sizes, KITS),
    Damage("verify", "volume stored mirrored",
           both(CASE, voxels(affine=tiny_volumes.AFFINE @ np.diag([1, 1, -1, 1]))),
           KITS, code=0, names="case_00001"),
    one("verify", "label map elsewhere than its image", LABEL,
        voxels(affine=tiny_volumes.AFFINE @ np.diag([1, 1, -1, 1])), KITS),
    one("verify", "label map of another shape", LABEL, voxels(lambda a: a[:, :-3]),
        KITS),
    Damage("verify", "axes in another order", both(CASE, rotate), KITS,
           names="imaging.nii.gz"),
    one("verify", "label value that is no class", LABEL, filled(3, np.uint8), KITS),
    one("verify", "label values that are fractions", LABEL, filled(0.5), KITS),
    one("verify", "label of NaN", LABEL, filled(np.nan), KITS),
    one("verify", "four axes", IMAGE, voxels(lambda a: np.stack([a, a], -1)), KITS),
    one("verify", "two axes", IMAGE, voxels(lambda a: a[0]), KITS),
    one("verify", "complex voxels", IMAGE, voxels(lambda a: a.astype(np.complex64)),
        KITS),
    one("verify", "voxels in colour", IMAGE,
        voxels(lambda a: np.zeros(a.shape, [(n, "u1") for n in "RGB"])), KITS),
    Damage("verify", "a volume thinner than one voxel of the network's grid",
           both(CASE, voxels(lambda a: a[:1],
                             tiny_volumes.AFFINE @ np.diag([0.1, 1, 1, 1]))),
           KITS, names="imaging.nii.gz"),
    Damage("verify", "image and label map exchanged", swap, KITS,
           names="segmentation.nii.gz"),
]  # fmt: skip
VERIFY_OWN = [
    one("verify", "own image without label map", "labels/p2.png", Path.unlink, OWN),
    one("verify", "own label map without image", "photos/p2.png", Path.unlink, OWN),
    Damage("verify", "two own images of one name",
           copy("photos/p1.png", "photos/p1.bmp"), OWN, names="p1"),
    Damage("verify", "one folder for images and label maps", lambda scene: None,
           ("verify", "--images", "photos", "--masks", "photos"), names="photos"),
    Damage("verify", "own files whose names are not UTF-8",
           lambda s: [(s / f / "p1.png").rename(s / f / os.fsdecode(b"caf\xe9.png"))
                      for f in ("photos", "labels")], OWN, names="caf\\xe9.png"),
    Damage("verify", "two own images whose names differ in how an accent is written",
           all_of(copy("photos/p1.png", "photos/\u00e9.png"),
                  copy("photos/p1.png", "photos/e\u0301.png"),
                  copy("labels/p1.png", "labels/\u00e9.png")), OWN, names="\u00e9"),
    Damage("verify", "own images and volumes mixed",
           all_of(copy(IMAGE, "photos/v.nii.gz"), copy(LABEL, "labels/v.nii.gz")), OWN,
           names="photos"),
    Damage("verify", "own case without one of its channels",
           all_of(channels, at("photos/p2_0001.png", Path.unlink)), OWN,
           names="p2_0001.png"),
    Damage("verify", "own case whose channels differ in size",
           all_of(channels, at("photos/p2_0001.png", pixels(lambda a: a[1:]))), OWN,
           names="p2"),
    one("verify", "own label map as JPEG", "labels/p2.png",
        lambda path: Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        or path.unlink(), OWN, names="p2"),
    Damage("verify", "no such folder", lambda scene: None,
           ("verify", "--dataset", "dsb2018", "--data", "gone"), names="gone"),
    Damage("verify", "a zip that is cut short",
           all_of(zipped("sets.zip", "n0/images/n0.png"), at("sets.zip", cut)),
           ("verify", "--dataset", "dsb2018", "--data", "sets.zip"), names="sets.zip"),
    Damage("verify", "a zip that would write outside its folder",
           zipped("sets.zip", "../n0/images/n0.png"),
           ("verify", "--dataset", "dsb2018", "--data", "sets.zip"), names="sets.zip"),
]  # fmt: skip
VERIFY_SPLITS = [
    Damage("verify", "split: not JSON", at("split.json", text("{")), SPLIT,
           names="split.json"),
    Damage("verify", "split: a part is empty", split(test=[]), SPLIT,
           names="split.json"),
    Damage("verify", "split: a name that is no case", split(test=["p9"]), SPLIT,
           names="p9"),
    Damage("verify", "split: a case in two parts", split(test=["p0"]), SPLIT,
           names="p0"),
    Damage("verify", "split: no list for a part", split(test=None), SPLIT,  # type: ignore[arg-type]
           names="test"),
    Damage("verify", "leak: the same file in two parts",
           all_of(split(), copy("photos/p0.png", "photos/p3.png")), SPLIT, names="p3"),
    Damage("verify", "leak: the same pixels in another file",
           all_of(split(), copy("photos/p0.png", "photos/p3.png"),
                  at("photos/p3.png", pixels(lambda a: a, compress_level=1))),
           SPLIT, names="p3"),
    Damage("verify", "leak: the same image mirrored",
           all_of(split(), copy("photos/p0.png", "photos/p3.png"),
                  at("photos/p3.png", pixels(lambda a: a[:, ::-1]))),
           SPLIT, names="p3"),
    Damage("verify", "leak: names that differ in zeros and case alone",
           all_of(lambda s: (s / "photos/p3.png").rename(s / "photos/P00.png"),
                  lambda s: (s / "labels/p3.png").rename(s / "labels/P00.png"),
                  split(test=["P00"])),
           SPLIT, names="P00"),
    Damage("verify", "leak: frames of one video in two parts",
           lambda s: (s / "split.json").write_text(json.dumps(
               {"training": ["1", "30"], "validation": ["2"], "test": ["60", "61"]})),
           ("verify", "--dataset", "cvc-clinicdb", "--data", "CVC-ClinicDB", "--split",
            "split.json"), code=0, names="sequence 1"),
    Damage("verify", "leak: frames of two videos in two parts",
           lambda s: (s / "split.json").write_text(json.dumps(
               {"training": ["1", "60"], "validation": ["2"], "test": ["30", "61"]})),
           ("verify", "--dataset", "cvc-clinicdb", "--data", "CVC-ClinicDB", "--split",
            "split.json"), code=0, names="found 2 groups that lie in several"),
]  # fmt: skip
TRAIN_DAMAGES = [
    one("train", "damaged data", PHANTOM, cut, TRAIN),
    one("train", "the same pixels in two files, in two parts",
        "phantom/images/phantom-006_image.png",
        lambda path: path.write_bytes((path.parent / "phantom-001_image.png")
                                      .read_bytes())
        and pixels(lambda a: a, compress_level=1)(path), TRAIN, names="phantom-006"),
    Damage("train", "a given split with a file in two parts",
           all_of(split(), copy("photos/p0.png", "photos/p3.png")),
           ("train", "--images", "photos", "--masks", "labels", "--loss", "CE",
            "--output", "new", "--split", "split.json"), names="p3"),
    Damage("train", "two cases, which can't be split",
           lambda scene: [shutil.rmtree(scene / f"dsb/n{k}") for k in (0, 1, 2)],
           ("train", "--dataset", "dsb2018", "--data", "dsb", "--loss", "CE",
            "--output", "new"), names="2018DSB"),
    Damage("train", "a file in the place of the output", at("new", text("mine")), TRAIN,
           names="new"),
    Damage("train", "an output that holds other files",
           lambda s: [(s / "new").mkdir(), (s / "new/thesis.tex").write_text("mine")],
           TRAIN, names="thesis.tex"),
    Damage("train", "a file in the place of the work folder", at("work", text("mine")),
           [*TRAIN, "--work", "work"], names="work"),
    Damage("train", "disk full while samples are prepared",
           lambda scene: shutil.rmtree(scene / ".work"), TRAIN, names="cache",
           during=full("image.npy")),
    Damage("train", "disk full while the state is kept", lambda scene: None, TRAIN,
           names="state.npz", leaves=("new/run.json", "new/*.json"),
           during=full("-state.")),
    Damage("train", "a loss that is not finite", lambda scene: None,
           train_command("new", "--set", "learning_rate=1e30", "--loss", "CE",
                         epochs=3),
           names="not-finite.npz", code=1,
           leaves=("new/*.json", "new/not-finite.npz", "new/state.npz")),
    one("train", "a run that another process works on", "cut", lambda path: None,
        RESUME, during=held("cut")),
    one("train", "run.json cut short", "cut/run.json", text('{"format": 1, "dat'),
        RESUME),
    Damage("train", "run.json of another version",
           json_of("cut/run.json", set_(format=99)), RESUME, names="run.json"),
    Damage("train", "run.json in a state that there is not",
           json_of("cut/run.json", set_(state="tired")), RESUME, names="run.json"),
    one("train", "run.json that is a list", "cut/run.json", text("[]"), RESUME),
    Damage("train", "run.json with times that are none",
           json_of("cut/run.json", set_(times=None)), RESUME, names="times"),
    one("train", "run.json nested a hundred thousand deep", "cut/run.json",
        text("[" * 100_000), RESUME),
    Damage("train", "run.json that was edited",
           lambda scene: Path(scene / "cut/run.json").write_text(
               (scene / "cut/run.json").read_text().replace("{", '{"by": "hand",', 1)),
           RESUME, names="run.json"),
    one("train", "the saved state cut short", "cut/state.npz", cut, RESUME),
    one("train", "the saved state of another network", "cut/state.npz",
        lambda path: np.savez(path, **{
            name: value if name == "progress" else np.atleast_1d(value)[..., :1]
            for name, value in np.load(path).items()}), RESUME),
    Damage("train", "more epochs of a run whose state is gone",
           lambda scene: (scene / "run/state.npz").unlink(missing_ok=True),
           train_command("run", epochs=9), names="state.npz"),
    Damage("train", "begun with weights of another network", lambda scene: None,
           train_command("new", "--from", "run", "--set", "filters=4"),
           names="--from run"),
    Damage("train", "resumed with another setting", lambda scene: None,
           [*RESUME, "--set", "filters=4"], names="settings.filters"),
    one("train", "resumed with other images", PHANTOM, pixels(lambda a: 255 - a),
        RESUME, names="data_hash"),
]  # fmt: skip
PREDICT_DAMAGES = [
    Damage("predict", "no such run", lambda scene: None, ("predict", "--run", "gone"),
           names="gone"),
    Damage("predict", "a run that is not trained", lambda scene: None,
           ("predict", "--run", "cut", "--data", "phantom"), names="cut"),
    Damage("predict", "run.json without its settings",
           json_of("run/run.json", lambda r: r.pop("settings")), PREDICT,
           names="run.json"),
    Damage("predict", "run.json with a setting that there is not",
           json_of("run/run.json", lambda r: r["settings"].update(colour="red")),
           PREDICT, names="run.json"),
    Damage("predict", "a run of another backend",
           json_of("run/run.json", set_(backend="jax")), PREDICT, names="backend"),
    one("predict", "weights missing", "run/model.keras", Path.unlink, PREDICT),
    one("predict", "weights cut short", "run/model.keras", cut, PREDICT),
    Damage("predict", "weights of another architecture", all_of(model(deeper), owned),
           PREDICT, names="model.keras"),
    Damage("predict", "other weights than the run's", model(doubled), PREDICT,
           names="model.keras"),
    Damage("predict", "weights of NaN", all_of(model(spoilt), owned), PREDICT,
           names="phantom-004"),
    one("predict", "images changed since the training", PHANTOM,
        pixels(lambda a: 255 - a), PREDICT, names="data_hash"),
    Damage("predict", "disk full while probabilities are written", lambda scene: None,
           PREDICT, names="probabilities", during=full("phantom-005.npy")),
    one("predict", "an image that can't be decoded", "photos/p1.png", cut, MODEL),
    Damage("predict", "volumes for a network of images",
           all_of(lambda s: shutil.rmtree(s / "photos"),
                  lambda s: (s / "photos").mkdir(), copy(IMAGE, "photos/v.nii.gz")),
           MODEL, names="photos"),
    Damage("predict", "no images in the folder",
           lambda s: [path.unlink() for path in (s / "photos").iterdir()], MODEL,
           names="photos"),
    Damage("predict", "the images' own folder as output", lambda scene: None,
           (*MODEL[:-1], "photos"), names="photos"),
    Damage("predict", "other PNG files in the output",
           lambda s: [(s / "out").mkdir(), shutil.copy(s / "photos/p0.png", s / "out")],
           MODEL, names="p0.png"),
    Damage("predict", "disk full while label maps are written", lambda scene: None,
           MODEL, names="p1", during=full("-p1."),
           leaves=("out/p0.*", "out/p1.npy", "out/dscpp.sha256")),
    Damage("predict", "a label map that no prediction wrote in the output",
           lambda s: [(s / "out").mkdir(),
                      shutil.copy(s / "labels/p0.png", s / "out/p0.png"),
                      shutil.copy(s / "run/probabilities/phantom-004.npy",
                                  s / "out/p0.npy")], MODEL, names="p0.npy"),
    Damage("predict", "a run's own folder as output",
           lambda scene: None, (*MODEL[:-1], "run/probabilities"), names="run"),
    Damage("predict", "other files among the probabilities",
           at("run/probabilities/notes.txt", text("mine")), PREDICT,
           names="notes.txt"),
    Damage("predict", "run.json with a case that leads out of its folder",
           json_of("run/run.json",
                   lambda r: r["split"]["test"].append("../../../../evil")),
           PREDICT, names="evil"),
    Damage("predict", "run.json with a data set that leads out of its folder",
           json_of("run/run.json", set_(dataset="own-../../x")), PREDICT,
           names="own-../../x"),
    Damage("predict", "a link that leads out of the run",
           lambda s: (s / "run/nifti").symlink_to((s / "labels").absolute()), PREDICT,
           names="run/nifti"),
    Damage("predict", "a file in the place of the output", at("out", text("mine")),
           MODEL, names="out"),
]  # fmt: skip
EVALUATE_DAMAGES = [
    Damage("evaluate", "a run that is not predicted",
           json_of("run/run.json", set_(state="trained")), EVALUATE, names="run"),
    one("evaluate", "probabilities missing", HELD_OUT, Path.unlink, EVALUATE),
    one("evaluate", "probabilities cut short", HELD_OUT, cut, EVALUATE),
    one("evaluate", "probabilities of another shape", HELD_OUT,
        array(lambda a: a[:-1]), EVALUATE),
    one("evaluate", "probabilities of more classes", HELD_OUT,
        array(lambda a: np.concatenate([a, 0 * a[..., :1]], -1)), EVALUATE),
    one("evaluate", "probabilities of NaN", HELD_OUT,
        array(lambda a: np.where(a == a.max(), np.nan, a)), EVALUATE),
    one("evaluate", "probabilities below 0 and above 1", HELD_OUT,
        array(lambda a: 0 * a + np.float32([-0.5, 1.5])), EVALUATE),
    one("evaluate", "probabilities that do not sum to 1", HELD_OUT,
        array(lambda a: a / 2), EVALUATE),
    one("evaluate", "probabilities of 16 bits", HELD_OUT,
        array(lambda a: a.astype(np.float16)), EVALUATE),
    one("evaluate", "probabilities of another case", HELD_OUT,
        lambda path: shutil.copyfile(path.with_name("phantom-005.npy"), path),
        EVALUATE),
    one("evaluate", "a block of other values in the probabilities", HELD_OUT,
        array(block), EVALUATE),
    one("evaluate", "the list of probabilities missing",
        "run/probabilities/dscpp.sha256", Path.unlink, EVALUATE),
    one("evaluate", "the end of the probabilities zero, at temperature",
        "run/probabilities/phantom-007.npy",
        lambda path: path.write_bytes(path.read_bytes()[:-2000] + bytes(2000)),
        ("temperature", *OF_RUN)),
    one("evaluate", "pickled objects for probabilities", HELD_OUT,
        array(lambda a: a.astype(object)), EVALUATE),
    one("evaluate", "measures edited after the evaluation", "run/cases.csv",
        lambda path: path.write_text(path.read_text().replace(",0.", ",1.", 1)),
        ("evaluate", *OF_RUN)),
    one("evaluate", "histograms cut short after the evaluation", "run/histograms.npz",
        cut, ("evaluate", *OF_RUN)),
    one("evaluate", "label maps changed since the training",
        "phantom/labels/phantom-004_label.png", pixels(lambda a: a[::-1]), EVALUATE,
        names="data_hash"),
    Damage("evaluate", "a case gone since the training",
           lambda s: [path.unlink() for path in s.glob("phantom/*/phantom-004*")],
           EVALUATE, names="phantom-004"),
    Damage("evaluate", "another set of the data's name",
           lambda s: [shutil.rmtree(s / "phantom"), (s / "dsb").rename(s / "phantom")],
           EVALUATE, names="phantom"),
    Damage("evaluate", "disk full while measures are written", lambda scene: None,
           EVALUATE, names="cases.csv", during=full("-cases."),
           leaves=("run/*.png",)),
    one("evaluate", "another set with a label map of another size", "labels/p1.png",
        pixels(lambda a: a[:-1]), OTHER, names="p1"),
    one("evaluate", "another set with more classes", "labels/p1.png", put((0, 0), 2),
        OTHER, names="p1"),
    Damage("evaluate", "another set under the name of a part", lambda scene: None,
           (*OTHER, "--name", "test"), names="test"),
    Damage("evaluate", "a set measured before, with other images now",
           measured, OTHER, names="other"),
]  # fmt: skip


DAMAGES = [
    *VERIFY_IMAGES,
    *VERIFY_VOLUMES,
    *VERIFY_OWN,
    *VERIFY_SPLITS,
    *TRAIN_DAMAGES,
    *PREDICT_DAMAGES,
    *EVALUATE_DAMAGES,
]
