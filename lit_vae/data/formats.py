"""Whether a file is an image, by its name."""

from functools import cache
from pathlib import Path

from PIL import Image

UNREAD_FORMAT = "of a format that lit_vae does not read"

# Pillow does not read these itself
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
_UNREAD = frozenset(
    f".{name}"
    for names in (
        "heic heif heics heifs hif avif avifs jxl jxr wdp exr hdr svg svgz eps ps ai pdf wmf emf xcf kra",
        "dcm nii mrc czi lif nd2 svs ndpi h5 hdf npy npz mat mp4 mov avi mkv webm mpg mpeg",
        # cameras' own
        "3fr ari arw bay cap cr2 cr3 crw dcr dcs dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef ptx pxn raf raw",
        "rw2 rwl rwz sr2 srf srw x3f",
    )
    for name in names.split()
)


def is_image_name(path: Path) -> bool:
    """Tell whether Pillow reads files with this extension."""
    return path.suffix.lower() in _extensions()


def is_unread_name(path: Path) -> bool:
    """Tell whether the extension is that of an image or film format that lit_vae does not read."""
    return path.suffix.lower() in _UNREAD and not is_image_name(path)


@cache
def _extensions() -> frozenset[str]:
    kinds = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in kinds if kind in Image.OPEN and kind not in _NOT_DECODED)
