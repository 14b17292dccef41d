"""The families there are. A new one is a file like flux.py, and its line here."""

from fovea.models import flux, flux2, lumina, qwen, sd3, zimage
from fovea.models.family import Family, Size

ALL = (sd3.FAMILY, lumina.FAMILY, flux.FAMILY, qwen.FAMILY, flux2.FAMILY, flux2.KLEIN, zimage.FAMILY)
FAMILIES: dict[str, Family] = {family.name: family for family in ALL}
SIZES: dict[str, Size] = {name: size for family in FAMILIES.values() for name, size in family.sizes.items()}
