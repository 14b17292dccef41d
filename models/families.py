"""The supported families. A new one is a file like flux.py and an entry here."""

from fovea.models import flux, flux2, flux2_klein, krea2, lumina, lumina2, qwen, sd3, zimage
from fovea.models.family import Family, Size

ALL = (sd3, lumina, flux, qwen, flux2, flux2_klein, zimage, lumina2, krea2)
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in ALL}
SIZES: dict[str, Size] = {name: size for family in FAMILIES.values() for name, size in family.sizes.items()}
