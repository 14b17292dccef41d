"""Caches, one per file, for `Caching` and other methods that take one."""

from typing import TYPE_CHECKING

from fovea import lazy

if TYPE_CHECKING:
    from fovea.methods.caches.dbcache import DBCache
    from fovea.methods.caches.delta_dit import DeltaDiT
    from fovea.methods.caches.dicache import DiCache
    from fovea.methods.caches.easycache import EasyCache
    from fovea.methods.caches.fbcache import FBCache
    from fovea.methods.caches.fora import FORA
    from fovea.methods.caches.forecast import Forecast
    from fovea.methods.caches.magcache import MagCache
    from fovea.methods.caches.seacache import SeaCache
    from fovea.methods.caches.taylor_output import TaylorOutput
    from fovea.methods.caches.taylorseer import TaylorSeer
    from fovea.methods.caches.teacache import TeaCache

__all__ = [
    "FORA",
    "DBCache",
    "DeltaDiT",
    "DiCache",
    "EasyCache",
    "FBCache",
    "Forecast",
    "MagCache",
    "SeaCache",
    "TaylorOutput",
    "TaylorSeer",
    "TeaCache",
]

__getattr__ = lazy.names(
    __name__,
    {
        "DBCache": "dbcache",
        "DeltaDiT": "delta_dit",
        "DiCache": "dicache",
        "EasyCache": "easycache",
        "FBCache": "fbcache",
        "FORA": "fora",
        "Forecast": "forecast",
        "MagCache": "magcache",
        "SeaCache": "seacache",
        "TaylorOutput": "taylor_output",
        "TaylorSeer": "taylorseer",
        "TeaCache": "teacache",
    },
)
