"""The families there are. A new one is a file like flux.py, and its line here."""

from fovea.models import flux, lumina, qwen, sd3
from fovea.models.family import Family, Size

FAMILIES: dict[str, Family] = {
    family.name: family for family in (sd3.FAMILY, lumina.FAMILY, flux.FAMILY, qwen.FAMILY)
}
SIZES: dict[str, Size] = {name: size for family in FAMILIES.values() for name, size in family.sizes.items()}
