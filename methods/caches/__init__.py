"""Caches, one file each, for `Caching` and for whatever else takes one."""

from methods.caches.dbcache import DBCache
from methods.caches.delta_dit import DeltaDiT
from methods.caches.fbcache import FBCache
from methods.caches.fora import FORA
from methods.caches.magcache import MagCache
from methods.caches.taylor_output import TaylorOutput
from methods.caches.taylorseer import TaylorSeer
from methods.caches.teacache import TeaCache

__all__ = ["FORA", "DBCache", "DeltaDiT", "FBCache", "MagCache", "TaylorOutput", "TaylorSeer", "TeaCache"]
