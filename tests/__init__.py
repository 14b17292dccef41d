"""How types are checked under pytest: by beartype, to which an int is a float, as PEP 484 has it."""

from functools import partial
from inspect import isfunction

import jaxtyping
from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(function=None, *, typechecker):
    """jaxtyping's decorator, which its import hook puts on every function. One without annotations stays as
    it is: there is nothing to check, and compiling that anew for each closure takes longer than running it.
    """
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if isfunction(function) and not function.__annotations__:
        return function
    return _jaxtyped(function, typechecker=typechecker)


jaxtyping.jaxtyped = jaxtyped
