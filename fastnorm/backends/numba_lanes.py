"""The bundle of lanes of ``src_pyx/lanes.h`` for Numba: LLVM's ``<32 x float>`` and ``<16 x double>``.

A bundle is 128 bytes of float32 or float64. LLVM lowers it to the widest registers of this processor, and since no
operation here allows reassociation or contraction, a kernel written over bundles gives the same bits as the Cython one.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

BUNDLE_BYTES = 128
CACHE_LINE_BYTES = 64
# How far ahead of a loop memory is asked for, in bundles; see src_pyx/lanes.pxi.
READ_AHEAD = 20
WRITE_AHEAD = 10


class Lanes(types.Type):
    """The Numba type of a bundle of `dtype`."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.count = BUNDLE_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")

    @property
    def key(self) -> types.Float:
        return self.dtype


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes_type):
        element = manager.lookup(lanes_type.dtype).get_value_type()
        super().__init__(manager, lanes_type, ir.VectorType(element, lanes_type.count))


def _element_address(builder, pointer, index):
    return builder.gep(pointer, [index])


def _bundle_address(builder, pointer, index, bundle):
    return builder.bitcast(_element_address(builder, pointer, index), bundle.as_pointer())


def _element_alignment(lanes_type) -> int:
    return lanes_type.dtype.bitwidth // 8


@intrinsic
def pointer(typing_context, array):
    """The address of the first element of an array, typed by its dtype."""

    def generate(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic(prefer_literal=True)
def stack(typing_context, like, bundles):
    """Scratch memory of the storage type of the pointer `like`, on the stack: a constant of bundles.

    It lasts until the function that asks for it returns, inlined or not: a helper may use it but not make it.
    """
    count = bundles.literal_value * Lanes(like.dtype).count

    def generate(context, builder, sig, args):
        element_type = context.get_data_type(sig.return_type.dtype)
        memory = cgutils.alloca_once(builder, element_type, size=count)
        memory.align = CACHE_LINE_BYTES
        return memory

    return like(like, bundles), generate


@intrinsic
def at(typing_context, base, index):
    """The address of element `index`."""

    def generate(context, builder, sig, args):
        return _element_address(builder, *args)

    return base(base, types.intp), generate


@intrinsic
def element(typing_context, base, index):
    """Element `index` as a float64."""

    def generate(context, builder, sig, args):
        value = builder.load(_element_address(builder, *args))
        return context.cast(builder, value, sig.args[0].dtype, types.float64)

    return types.float64(base, types.intp), generate


@intrinsic
def set_element(typing_context, base, index, value):
    """Write a float64 to element `index`, rounded to the storage type."""

    def generate(context, builder, sig, args):
        rounded_value = context.cast(builder, args[2], types.float64, sig.args[0].dtype)
        builder.store(rounded_value, _element_address(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(base, types.intp, types.float64), generate


@intrinsic
def rounded(typing_context, like, value):
    """A float64 rounded to the storage type of the pointer `like`."""

    def generate(context, builder, sig, args):
        narrow = context.cast(builder, args[1], types.float64, sig.args[0].dtype)
        return context.cast(builder, narrow, sig.args[0].dtype, types.float64)

    return types.float64(like, types.float64), generate


@intrinsic
def lane_count(typing_context, like):
    """The number of lanes of a bundle of the storage type of the pointer `like`."""
    count = Lanes(like.dtype).count

    def generate(context, builder, sig, args):
        return context.get_constant(types.intp, count)

    return types.intp(like), generate


@intrinsic
def load(typing_context, base, index):
    """The bundle that begins at element `index`."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.return_type)
        return builder.load(_bundle_address(builder, *args, bundle), align=_element_alignment(lanes_type))

    return lanes_type(base, types.intp), generate


@intrinsic
def store(typing_context, base, index, value):
    """Write a bundle, beginning at element `index`."""

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.args[2])
        address = _bundle_address(builder, args[0], args[1], bundle)
        builder.store(args[2], address, align=_element_alignment(sig.args[2]))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), generate


def _first_lanes(context, builder, bundle, count):
    """A mask of the first `count` lanes."""
    width = bundle.count
    index = ir.VectorType(ir.IntType(64), width)
    numbers = ir.Constant(index, list(range(width)))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    first = builder.insert_element(ir.Constant(index, ir.Undefined), count, ir.Constant(ir.IntType(32), 0))
    return builder.icmp_signed("<", numbers, builder.shuffle_vector(first, first, zeros))


def _splat(builder, bundle, value):
    first = builder.insert_element(ir.Constant(bundle, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), bundle.count), [0] * bundle.count)
    return builder.shuffle_vector(first, first, zeros)


def _masked(builder, operation, bundle, result, arguments):
    """Call llvm.masked.load or llvm.masked.store for a bundle."""
    name = f"llvm.masked.{operation}.v{bundle.count}{'f32' if isinstance(bundle.element, ir.FloatType) else 'f64'}.p0"
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


@intrinsic
def load_partial(typing_context, base, index, count, fill):
    """Elements `index` to `index + count`; the other lanes are `fill`."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.return_type)
        address = _bundle_address(builder, args[0], args[1], bundle)
        mask = _first_lanes(context, builder, bundle, args[2])
        rest = _splat(builder, bundle, context.cast(builder, args[3], types.float64, lanes_type.dtype))
        alignment = ir.Constant(ir.IntType(32), _element_alignment(lanes_type))
        return _masked(builder, "load", bundle, bundle, [address, alignment, mask, rest])

    return lanes_type(base, types.intp, types.intp, types.float64), generate


@intrinsic
def store_partial(typing_context, base, index, count, value):
    """Write the first `count` lanes, beginning at element `index`."""

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.args[3])
        address = _bundle_address(builder, args[0], args[1], bundle)
        mask = _first_lanes(context, builder, bundle, args[2])
        alignment = ir.Constant(ir.IntType(32), _element_alignment(sig.args[3]))
        _masked(builder, "store", bundle, ir.VoidType(), [args[3], address, alignment, mask])
        return context.get_dummy_value()

    return types.void(base, types.intp, types.intp, value), generate


@intrinsic
def splat(typing_context, like, value):
    """A bundle of the storage type of the pointer `like`, with a float64 in every lane."""
    lanes_type = Lanes(like.dtype)

    def generate(context, builder, sig, args):
        narrow = context.cast(builder, args[1], types.float64, lanes_type.dtype)
        return _splat(builder, context.get_value_type(sig.return_type), narrow)

    return lanes_type(like, types.float64), generate


def _fma(builder, a, b, c):
    """LLVM's fma on vectors or scalars: a * b + c, rounded once."""
    element = a.type.element if isinstance(a.type, ir.VectorType) else a.type
    suffix = "f32" if isinstance(element, ir.FloatType) else "f64"
    prefix = f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else ""
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.{prefix}{suffix}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), [a, b, c])


@intrinsic
def fused(typing_context, a, b, c):
    """a * b + c for bundles, rounded once."""
    return a(a, b, c), lambda context, builder, sig, args: _fma(builder, *args)


def _on_every_lane(operation):
    """An intrinsic's code that calls LLVM's function of one argument."""

    def generate(context, builder, sig, args):
        bundle = args[0].type
        name = f"llvm.{operation}.v{bundle.count}{'f32' if isinstance(bundle.element, ir.FloatType) else 'f64'}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(bundle, [bundle]), name), args
        )

    return generate


@intrinsic
def magnitude(typing_context, a):
    """The magnitudes of the lanes."""
    return a(a), _on_every_lane("fabs")


@intrinsic
def fused_scalar(typing_context, like, a, b, c):
    """a * b + c, rounded once to the storage type of the pointer `like`; so are a, b and c before."""

    def generate(context, builder, sig, args):
        dtype = sig.args[0].dtype
        narrow = [context.cast(builder, argument, types.float64, dtype) for argument in args[1:]]
        return context.cast(builder, _fma(builder, *narrow), dtype, types.float64)

    return types.float64(like, types.float64, types.float64, types.float64), generate


def _halves(builder, value):
    half = value.type.count // 2
    index = ir.VectorType(ir.IntType(32), half)
    low = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half))))
    high = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half, 2 * half))))
    return low, high


def _folding(combine):
    """An intrinsic's code that folds the lanes by halves and gives a float64."""

    def generate(context, builder, sig, args):
        value = args[0]
        while value.type.count > 1:
            value = combine(builder, *_halves(builder, value))
        scalar = builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
        return context.cast(builder, scalar, sig.args[0].dtype, types.float64)

    return generate


def _prefer(comparison):
    """`b` where it compares so with `a` or is NaN, else `a`; as in numpy.min, NaN stays."""

    def combine(builder, a, b):
        chosen = builder.or_(builder.fcmp_ordered(comparison, b, a), builder.fcmp_unordered("uno", b, b))
        return builder.select(chosen, b, a)

    return combine


@intrinsic
def total(typing_context, value):
    """The sum of all lanes, folded by halves."""
    return types.float64(value), _folding(lambda builder, a, b: builder.fadd(a, b))


_WIDE = Lanes(types.float64)


def _as_wide(lanes_type, builder, value, cast):
    """The float64 bundle of sixteen elements of the storage type, or the other way round."""
    if lanes_type.dtype == types.float64:
        return value
    element = ir.DoubleType() if cast == "fpext" else ir.FloatType()
    return getattr(builder, cast)(value, ir.VectorType(element, _WIDE.count))


@intrinsic
def elements(typing_context, base, index):
    """Sixteen elements as a bundle of float64."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        stored = ir.VectorType(context.get_value_type(base.dtype), _WIDE.count)
        value = builder.load(_bundle_address(builder, *args, stored), align=_element_alignment(lanes_type))
        return _as_wide(lanes_type, builder, value, "fpext")

    return _WIDE(base, types.intp), generate


@intrinsic
def set_elements(typing_context, base, index, value):
    """Write a bundle of float64 to sixteen elements, each rounded to the storage type."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        stored = _as_wide(lanes_type, builder, args[2], "fptrunc")
        address = _bundle_address(builder, args[0], args[1], stored.type)
        builder.store(stored, address, align=_element_alignment(lanes_type))
        return context.get_dummy_value()

    return types.void(base, types.intp, _WIDE), generate


@intrinsic
def rounded_lanes(typing_context, like, value):
    """A bundle of float64, each lane rounded to the storage type of the pointer `like`."""
    lanes_type = Lanes(like.dtype)

    def generate(context, builder, sig, args):
        narrow = _as_wide(lanes_type, builder, args[1], "fptrunc")
        return _as_wide(lanes_type, builder, narrow, "fpext")

    return _WIDE(like, _WIDE), generate


@intrinsic
def square_root(typing_context, a):
    """The square roots of the lanes."""
    return a(a), _on_every_lane("sqrt")


@intrinsic
def one_for_zero(typing_context, a):
    """The lanes, but 1 for those that are 0."""

    def generate(context, builder, sig, args):
        zero, one = (ir.Constant(args[0].type, [value] * args[0].type.count) for value in (0.0, 1.0))
        return builder.select(builder.fcmp_ordered("==", args[0], zero), one, args[0])

    return a(a), generate


@intrinsic
def hold(typing_context, base, index, value):
    """Keep what `total` needs of a bundle, half of it, as number `index` of `base`."""
    lanes_type = value

    def generate(context, builder, sig, args):
        low, high = _halves(builder, args[2])
        first = builder.mul(args[1], context.get_constant(types.intp, lanes_type.count // 2))
        address = _bundle_address(builder, args[0], first, low.type)
        builder.store(builder.fadd(low, high), address, align=_element_alignment(lanes_type))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), generate


def _fold_pair(builder, a, b, parts):
    """Fold the `parts` equal parts of a, and those of b, by halves each: first of a, first of b, second of a, ..."""
    width = a.type.count // parts
    starts = [vector * a.type.count + part * width for part in range(parts) for vector in range(2)]
    low, high = (
        ir.Constant(
            ir.VectorType(ir.IntType(32), a.type.count),
            [start + half + lane for start in starts for lane in range(width // 2)],
        )
        for half in (0, width // 2)
    )
    return builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))


@intrinsic
def held_totals(typing_context, base):
    """The `total` of each of the sixteen bundles that `base` holds, as a bundle of float64.

    All are folded together: after each step, half as many vectors hold twice as many bundles, of half the lanes.
    """
    lanes_type = Lanes(base.dtype)
    width = lanes_type.count // 2

    def generate(context, builder, sig, args):
        held = ir.VectorType(context.get_value_type(base.dtype), width)
        vectors = []
        for number in range(_WIDE.count):
            address = _bundle_address(builder, args[0], context.get_constant(types.intp, number * width), held)
            vectors.append(builder.load(address, align=_element_alignment(lanes_type)))
        parts = 1
        while parts < width:
            half = len(vectors) // 2
            vectors = [_fold_pair(builder, *pair, parts) for pair in zip(vectors[:half], vectors[half:], strict=True)]
            parts *= 2
        if len(vectors) == 2:
            in_turn = [start + vector * width for start in range(width) for vector in range(2)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), _WIDE.count), in_turn)
            vectors = [builder.shuffle_vector(*vectors, mask)]
        return _as_wide(lanes_type, builder, vectors[0], "fpext")

    return _WIDE(base), generate


@intrinsic
def prefetch(typing_context, base, index):
    """A hint that the bundle at element `index` will be needed; any address will do."""

    def generate(context, builder, sig, args):
        byte, flag = ir.IntType(8), ir.IntType(32)
        address = builder.bitcast(_element_address(builder, *args), byte.as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        read, keep, data = ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)
        for offset in range(0, BUNDLE_BYTES, CACHE_LINE_BYTES):
            line = builder.gep(address, [context.get_constant(types.intp, offset)])
            builder.call(function, [line, read, keep, data])
        return context.get_dummy_value()

    return types.void(base, types.intp), generate


@intrinsic
def least(typing_context, value):
    """The least lane; NaN if there is one."""
    return types.float64(value), _folding(_prefer("<"))


@intrinsic
def largest(typing_context, value):
    """The largest lane; NaN if there is one."""
    return types.float64(value), _folding(_prefer(">"))


@intrinsic
def minimum(typing_context, a, b):
    """The smaller of two bundles, lane by lane; NaN stays."""
    return a(a, b), lambda context, builder, sig, args: _prefer("<")(builder, *args)


@intrinsic
def maximum(typing_context, a, b):
    """The larger of two bundles, lane by lane; NaN stays."""
    return a(a, b), lambda context, builder, sig, args: _prefer(">")(builder, *args)


class LanesOperator(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Lanes) and args[0] == args[1]:
            return signature(args[0], *args)
        return None


for _operator in (operator.add, operator.sub, operator.mul, operator.truediv):
    infer_global(_operator)(type("LanesOperator", (LanesOperator,), {}))


@lower_builtin(operator.add, Lanes, Lanes)
def lower_add(context, builder, sig, args):
    return builder.fadd(*args)


@lower_builtin(operator.sub, Lanes, Lanes)
def lower_subtract(context, builder, sig, args):
    return builder.fsub(*args)


@lower_builtin(operator.mul, Lanes, Lanes)
def lower_multiply(context, builder, sig, args):
    return builder.fmul(*args)


@lower_builtin(operator.truediv, Lanes, Lanes)
def lower_divide(context, builder, sig, args):
    return builder.fdiv(*args)
