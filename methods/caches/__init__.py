"""Caches, one file each, for `Caching` and for whatever else takes one."""

from typing import TYPE_CHECKING

from fovea import lazy

if TYPE_CHECKING:
    from fovea.methods.caches.dbcache import DBCache
    from fovea.methods.caches.delta_dit import DeltaDiT
    from fovea.methods.caches.fbcache import FBCache
    from fovea.methods.caches.fora import FORA
    from fovea.methods.caches.magcache import MagCache
    from fovea.methods.caches.taylor_output import TaylorOutput
    from fovea.methods.caches.taylorseer import TaylorSeer
    from fovea.methods.caches.teacache import TeaCache

__all__ = ["FORA", "DBCache", "DeltaDiT", "FBCache", "MagCache", "TaylorOutput", "TaylorSeer", "TeaCache"]

__getattr__ = lazy.names(
    __name__,
    {
        "DBCache": "dbcache",
        "DeltaDiT": "delta_dit",
        "FBCache": "fbcache",
        "FORA": "fora",
        "MagCache": "magcache",
        "TaylorOutput": "taylor_output",
        "TaylorSeer": "taylorseer",
        "TeaCache": "teacache",
    },
)
