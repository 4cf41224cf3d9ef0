"""Machine code of a model's density, kept from one process to the next.

    pm.Model ─structure─▶ key ─▶ kept code, or: PyTensor ─▶ Numba ─▶ code, kept under the key

A key is a hash of the model's graph: its operations, constants, names and shapes, but of data and coordinates only
their shapes. Writing the code of a hierarchy takes ten seconds or more, looking it up a fraction of one. The code lies
beside PyTensor's own (`base_compiledir`, in the user's home), one file a structure, the most recent `MOST` of them.

nutpie compiles through Numba, too, but keeps nothing and writes the data into the code as constants first. Its record
of a compiled model, its layout of data and its sampler are used as they are.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
import pymc as pm
import pytensor
from numba.core import serialize, types
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from nutpie import compile_pymc as through_nutpie
from pymc.initial_point import make_initial_point_fn
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort

MOST = 40  # files
LIBRARIES = ("pymc", "pytensor", "nutpie", "numba", "llvmlite", "numpy")
DENSITY = types.int64(types.uint64, *[types.CPointer(types.double)] * 3, types.voidptr)
EXPANSION = types.int64(types.uint64, types.uint64, *[types.CPointer(types.double)] * 2, types.voidptr)


@dataclass(frozen=True)
class Code:
    """A function as machine code, which lives as long as this does.

    Attributes
    ----------
    compiled : CompileResult
        Numba's.
    """

    compiled: Any

    @property
    def address(self) -> int:
        """Where it starts in memory, as C calls it."""
        return self.compiled.library.get_pointer_to_function(self.compiled.fndesc.llvm_cfunc_wrapper_name)


@dataclass(frozen=True)
class Machine:
    """Density and expansion of a model as machine code, and how to read what they give.

    Attributes
    ----------
    density : Code
        Log density and its gradient at an unconstrained point.
    expansion : Code
        All variables that are kept, from such a point.
    n_dim : int
        Size of a point.
    n_expanded : int
        Size of what it expands to.
    shape_info : tuple
        Names, slices and shapes of the variables in it.
    data : tuple of str
        Names of the data that the code reads, in the order of their addresses.
    reparameterized : list of str
        Variables that are sampled on another scale.
    """

    density: Code
    expansion: Code
    n_dim: int
    n_expanded: int
    shape_info: tuple
    data: tuple[str, ...]
    reparameterized: list[str]


def compiled_model(model: pm.Model, names: tuple[str, ...] | None = None) -> through_nutpie.CompiledPyMCModel:
    """The model as nutpie's sampler takes it, its data left open to change.

    Parameters
    ----------
    model : pm.Model
        Its `pm.Data` have names of their own.
    names : tuple of str, optional
        The variables to keep draws of, all where not given.
    """
    machine = machine_of(model, names)
    shared = shared_of(model)
    keys = {shared[name]: f"d{k}" for k, name in enumerate(machine.data)}
    values = {key: np.array(variable.get_value(), order="C", copy=True) for variable, key in keys.items()}
    dims, coords = through_nutpie._prepare_dims_and_coords(model, machine.shape_info, machine.reparameterized)
    labels, _, shapes = machine.shape_info
    return through_nutpie.CompiledPyMCModel(
        _n_dim=machine.n_dim,
        dims=dims,
        _coords=coords,
        _shapes={label: tuple(shape) for label, shape in zip(labels, shapes, strict=True)},
        compiled_logp_func=machine.density,
        compiled_expand_func=machine.expansion,
        initial_point_func=initial_points(model),
        shared_data=values,
        shared_var_keys=keys,
        user_data=through_nutpie.make_user_data(keys, values),
        n_expanded=machine.n_expanded,
        shape_info=machine.shape_info,
        logp_func=None,
        expand_func=None,
        reparameterized_names=machine.reparameterized,
    )


def initial_points(model: pm.Model):
    """A function of a seed: where a chain starts, about the middle of the prior, as one vector."""
    drawn = make_initial_point_fn(model=model, jitter_rvs=set(model.free_RVs), return_transformed=True)
    order = [model.rvs_to_values[variable].name for variable in model.free_RVs]

    def start(seed) -> np.ndarray:
        point = drawn(seed)
        return np.concatenate([np.ravel(point[name]) for name in order]).astype(float)

    return through_nutpie._wrap_with_lock(start)


def shared_of(model: pm.Model) -> dict[str, SharedVariable]:
    """Data and lengths of dimensions by name."""
    outputs = [*model.free_RVs, *model.deterministics, *model.potentials]
    found = [v for v in ancestors(outputs) if isinstance(v, SharedVariable)]
    return {str(variable.name): variable for variable in [*model.data_vars, *found]}


def machine_of(model: pm.Model, names: tuple[str, ...] | None = None) -> Machine:
    """The model's machine code, from the cache where it is there."""
    path = folder() / f"{structure(model, names)}.code"
    machine = read(path)
    if machine is None:
        machine = write_code(model, names)
        keep(machine, path)
    return machine


def is_kept(model: pm.Model, names: tuple[str, ...] | None = None) -> bool:
    """Whether the machine code of the model need not be written any more."""
    return (folder() / f"{structure(model, names)}.code").exists()


def folder() -> Path:
    """Where code is kept."""
    return Path(pytensor.config.base_compiledir) / "hierdid"


def structure(model: pm.Model, names: tuple[str, ...] | None = None) -> str:
    """Hash of what machine code depends on: the graph, the shapes of data, versions, the processor."""
    variables = [*model.free_RVs, *model.deterministics, *model.potentials]
    used = dict.fromkeys(name for v in variables for name in model.named_vars_to_dims.get(v.name) or ())
    about = [
        sys.version,
        platform.platform(),
        *(version(library) for library in LIBRARIES),
        str(cpu_target.target_context.codegen().magic_tuple()),
        str(names),
        *(f"{v.name}: {model.named_vars_to_dims.get(v.name)}" for v in variables),
        *(f"{name}: {len(model.coords[name] or ())}" for name in used),
        *(f"{v.name}: {described(model.rvs_to_transforms.get(v))}" for v in model.free_RVs),
        *graph(variables, {id(v) for v in model.data_vars}),
    ]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:32]


def graph(outputs: Sequence[Variable], data: set[int], inputs: Sequence[Variable] = ()) -> Iterator[str]:
    """The graph behind `outputs`, a line for every input and operation, in an order that only depends on the graph.

    Parameters
    ----------
    outputs : sequence of Variable
    data : set of int
        Identities of the shared variables whose values do not matter.
    inputs : sequence of Variable
        Of a graph within an operation.
    """
    number = {id(variable): k for k, variable in enumerate(inputs)}
    for variable in inputs:
        yield f"{number[id(variable)]}: {variable.type}"
    for node in toposort(outputs):
        for variable in node.inputs:
            if id(variable) not in number:
                number[id(variable)] = len(number)
                yield f"{number[id(variable)]}: {leaf(variable, data)}"
        for variable in node.outputs:
            number[id(variable)] = len(number)
        places = [number[id(variable)] for variable in (*node.inputs, *node.outputs)]
        yield f"{places}: {described(node.op)} {[str(variable.type) for variable in node.outputs]}"
    yield str([number.get(id(variable), f"{variable.type}") for variable in outputs])


def leaf(variable: Variable, data: set[int]) -> str:
    """An input of a graph: of data the shape, of a constant the value."""
    said = f"{variable.type} {variable.name}"
    if isinstance(variable, SharedVariable):
        value = variable.get_value(borrow=True)
        if isinstance(value, np.random.Generator):
            return said
        return f"{said} {np.shape(value)}" + ("" if id(variable) in data else f" {digest(np.asarray(value))}")
    if isinstance(variable, Constant):
        value = variable.data
        return f"{said} {digest(value) if isinstance(value, np.ndarray) else described(value)}"
    return said


def digest(value: np.ndarray) -> str:
    """Hash of an array."""
    return f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"


def described(thing: Any) -> str:
    """An operation, a transform or a property of one, in words that are the same in every process."""
    if isinstance(thing, Op):
        inner = getattr(thing, "fgraph", None)
        within = [] if inner is None else [*graph(inner.outputs, set(), inner.inputs)]
        properties = [f"{name}={described(getattr(thing, name))}" for name in getattr(thing, "__props__", ())]
        slope = described(getattr(thing, "pullback_overrides", None))
        return f"{type(thing).__module__}.{type(thing).__qualname__} {thing} {properties} {within} {slope}"
    if isinstance(thing, FunctionType):
        return f"{thing.__module__}.{thing.__qualname__} {thing.__code__.co_code.hex()} {thing.__code__.co_consts}"
    if isinstance(thing, type) or (callable(thing) and hasattr(thing, "__qualname__")):
        return f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, tuple | list):
        return str([described(part) for part in thing])
    if type(thing).__module__.startswith("pymc"):  # a transform
        return f"{type(thing).__qualname__} {sorted((k, described(v)) for k, v in vars(thing).items())}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def write_code(model: pm.Model, names: tuple[str, ...] | None = None) -> Machine:
    """Machine code of the model from its graph, by PyTensor's rewriting and Numba."""
    n_dim, n_expanded, density, expansion, _, shape_info, reparameterized = through_nutpie._make_functions(
        model,
        mode="NUMBA",
        compute_grad=True,
        join_expanded=True,
        pymc_initial_point_fn=None,
        var_names=names,
    )
    shared = list(dict.fromkeys([*density.get_shared(), *expansion.get_shared()]))
    wrapped: list[Code] = []
    for function, signature, source in ((density, DENSITY, DENSITY_SOURCE), (expansion, EXPANSION, EXPANSION_SOURCE)):
        places = {shared.index(variable): variable.get_value(borrow=True) for variable in function.get_shared()}
        text = source.format(
            n_dim=n_dim,
            n_expanded=n_expanded,
            n_data=len(shared),
            arrays="\n        ".join(
                f"d{k} = carray(pointer(addresses[{k}]), {np.shape(value)}, {np.asarray(value).dtype.name})"
                for k, value in places.items()
            ),
            data="".join(f", d{k}" for k in places),
        )
        known = {
            "carray": numba.carray,
            "pointer": through_nutpie.address_as_void_pointer,
            "inner": function.vm.jit_fn,
            "__name__": __name__,
            "isfinite": math.isfinite,
        } | {name: getattr(np, name) for name in ("uintp", "float64", "int64", "int32", "int8", "bool")}
        exec(text, known)
        callback: Any = CFunc(known["wrapped"], (signature.args, signature.return_type), {}, {})
        with global_compiler_lock:
            compiled = callback._compile_uncached()
            compiled.library.finalize()
        wrapped.append(Code(compiled))
    data = tuple(str(variable.name) for variable in shared)
    return Machine(wrapped[0], wrapped[1], n_dim, n_expanded, shape_info, data, reparameterized)


DENSITY_SOURCE = """
def wrapped(size, point_, gradient_, density_, data_):
    try:
        point = carray(point_, ({n_dim},))
        gradient = carray(gradient_, ({n_dim},))
        density = carray(density_, ())
        addresses = carray(data_, ({n_data},), uintp)
        {arrays}
        value, slope = inner(point{data})
        density[()] = value
        for k in range({n_dim}):
            gradient[k] = slope[k]
            if not isfinite(slope[k]):
                return 3
        if not isfinite(density[()]):
            return 4
    except Exception:
        return 1
    return 0
"""
EXPANSION_SOURCE = """
def wrapped(size, size_expanded, point_, expanded_, data_):
    try:
        point = carray(point_, ({n_dim},))
        expanded = carray(expanded_, ({n_expanded},))
        addresses = carray(data_, ({n_data},), uintp)
        {arrays}
        values = inner(point{data})[0]
        for k in range({n_expanded}):
            expanded[k] = values[k]
    except Exception:
        return -2
    return 0
"""


def keep(machine: Machine, path: Path) -> None:
    """Write machine code to the cache where that can be done, and take away what has not been used for longest."""
    compiled = [machine.density.compiled, machine.expansion.compiled]
    if any(one.library.has_dynamic_globals for one in compiled):  # addresses of this process
        return
    rest = (machine.n_dim, machine.n_expanded, machine.shape_info, machine.data, machine.reparameterized)
    content = serialize.dumps(([one._reduce() for one in compiled], rest))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(OSError):  # a home that cannot be written to: the next process writes the code again
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(content).digest() + content)
        part.replace(path)
        for old in sorted(path.parent.glob("*.code"), key=lambda file: file.stat().st_mtime)[:-MOST]:
            old.unlink(missing_ok=True)
    with suppress(OSError):
        part.unlink(missing_ok=True)


def read(path: Path) -> Machine | None:
    """Machine code from the cache; None where there is none, or it is damaged."""
    try:
        kept = path.read_bytes()
        path.touch()
    except OSError:
        return None
    checksum, content = kept[:32], kept[32:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    context = cpu_target.target_context
    with global_compiler_lock:
        context.refresh()  # what Numba's code calls at run time
        compiled, rest = pickle.loads(content)
        density, expansion = (Code(CompileResult._rebuild(context, *one)) for one in compiled)
        return Machine(density, expansion, *rest)
