"""What the Numba kernels do with bundles of lanes, as in ``src_pyx/vectors/lanes.h``: load and store, add, fold.

A bundle is 128 bytes of float32 or float64. LLVM lowers it to the widest registers of this processor, and since no
operation here allows reassociation or contraction, a kernel written over bundles gives the same bits as the Cython one.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnorm.backends.numba.lowering import (
    BUNDLE_BYTES,
    WIDE,
    Lanes,
    as_wide,
    broadcast,
    bundle_address,
    call_fma,
    call_llvm,
    call_masked,
    element_address,
    element_alignment,
    first_lanes,
    fold_pair,
    folding,
    halves,
    on_every_lane,
    prefer,
)

CACHE_LINE_BYTES = 64
# How far ahead of a loop memory is asked for, in bundles; see src_pyx/vectors/lanes.pxi.
READ_AHEAD = 20
WRITE_AHEAD = 10


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
        return element_address(builder, *args)

    return base(base, types.intp), generate


@intrinsic
def element(typing_context, base, index):
    """Element `index` as a float64."""

    def generate(context, builder, sig, args):
        value = builder.load(element_address(builder, *args))
        return context.cast(builder, value, sig.args[0].dtype, types.float64)

    return types.float64(base, types.intp), generate


@intrinsic
def set_element(typing_context, base, index, value):
    """Write a float64 to element `index`, rounded to the storage type."""

    def generate(context, builder, sig, args):
        rounded_value = context.cast(builder, args[2], types.float64, sig.args[0].dtype)
        builder.store(rounded_value, element_address(builder, args[0], args[1]))
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
        return builder.load(bundle_address(builder, *args, bundle), align=element_alignment(lanes_type))

    return lanes_type(base, types.intp), generate


@intrinsic
def store(typing_context, base, index, value):
    """Write a bundle, beginning at element `index`."""

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.args[2])
        address = bundle_address(builder, args[0], args[1], bundle)
        builder.store(args[2], address, align=element_alignment(sig.args[2]))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), generate


@intrinsic
def load_partial(typing_context, base, index, count, fill):
    """Elements `index` to `index + count`; the other lanes are `fill`."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.return_type)
        address = bundle_address(builder, args[0], args[1], bundle)
        mask = first_lanes(builder, bundle, args[2])
        rest = broadcast(builder, context.cast(builder, args[3], types.float64, lanes_type.dtype), bundle)
        alignment = ir.Constant(ir.IntType(32), element_alignment(lanes_type))
        return call_masked(builder, "load", bundle, bundle, [address, alignment, mask, rest])

    return lanes_type(base, types.intp, types.intp, types.float64), generate


@intrinsic
def store_partial(typing_context, base, index, count, value):
    """Write the first `count` lanes, beginning at element `index`."""

    def generate(context, builder, sig, args):
        bundle = context.get_value_type(sig.args[3])
        address = bundle_address(builder, args[0], args[1], bundle)
        mask = first_lanes(builder, bundle, args[2])
        alignment = ir.Constant(ir.IntType(32), element_alignment(sig.args[3]))
        call_masked(builder, "store", bundle, ir.VoidType(), [args[3], address, alignment, mask])
        return context.get_dummy_value()

    return types.void(base, types.intp, types.intp, value), generate


@intrinsic
def splat(typing_context, like, value):
    """A bundle of the storage type of the pointer `like`, with a float64 in every lane."""
    lanes_type = Lanes(like.dtype)

    def generate(context, builder, sig, args):
        narrow = context.cast(builder, args[1], types.float64, lanes_type.dtype)
        return broadcast(builder, narrow, context.get_value_type(sig.return_type))

    return lanes_type(like, types.float64), generate


@intrinsic
def fused(typing_context, a, b, c):
    """a * b + c for bundles, or for numbers of one type, rounded once."""
    return a(a, b, c), lambda context, builder, sig, args: call_fma(builder, *args)


@intrinsic
def magnitude(typing_context, a):
    """The magnitudes of the lanes."""
    return a(a), on_every_lane("fabs")


@intrinsic
def fused_scalar(typing_context, like, a, b, c):
    """a * b + c, rounded once to the storage type of the pointer `like`; so are a, b and c before."""

    def generate(context, builder, sig, args):
        dtype = sig.args[0].dtype
        narrow = [context.cast(builder, argument, types.float64, dtype) for argument in args[1:]]
        return context.cast(builder, call_fma(builder, *narrow), dtype, types.float64)

    return types.float64(like, types.float64, types.float64, types.float64), generate


@intrinsic
def total(typing_context, value):
    """The sum of all lanes, folded by halves."""
    return types.float64(value), folding(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def elements(typing_context, base, index):
    """Sixteen elements as a bundle of float64."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        stored = ir.VectorType(context.get_value_type(base.dtype), WIDE.count)
        value = builder.load(bundle_address(builder, *args, stored), align=element_alignment(lanes_type))
        return as_wide(lanes_type, builder, value, "fpext")

    return WIDE(base, types.intp), generate


@intrinsic
def set_elements(typing_context, base, index, value):
    """Write a bundle of float64 to sixteen elements, each rounded to the storage type."""
    lanes_type = Lanes(base.dtype)

    def generate(context, builder, sig, args):
        stored = as_wide(lanes_type, builder, args[2], "fptrunc")
        address = bundle_address(builder, args[0], args[1], stored.type)
        builder.store(stored, address, align=element_alignment(lanes_type))
        return context.get_dummy_value()

    return types.void(base, types.intp, WIDE), generate


@intrinsic
def rounded_lanes(typing_context, like, value):
    """A bundle of float64, each lane rounded to the storage type of the pointer `like`."""
    lanes_type = Lanes(like.dtype)

    def generate(context, builder, sig, args):
        narrow = as_wide(lanes_type, builder, args[1], "fptrunc")
        return as_wide(lanes_type, builder, narrow, "fpext")

    return WIDE(like, WIDE), generate


@intrinsic
def square_root(typing_context, a):
    """The square roots of the lanes."""
    return a(a), on_every_lane("sqrt")


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
        low, high = halves(builder, args[2])
        first = builder.mul(args[1], context.get_constant(types.intp, lanes_type.count // 2))
        address = bundle_address(builder, args[0], first, low.type)
        builder.store(builder.fadd(low, high), address, align=element_alignment(lanes_type))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), generate


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
        for number in range(WIDE.count):
            address = bundle_address(builder, args[0], context.get_constant(types.intp, number * width), held)
            vectors.append(builder.load(address, align=element_alignment(lanes_type)))
        parts = 1
        while parts < width:
            half = len(vectors) // 2
            vectors = [fold_pair(builder, *pair, parts) for pair in zip(vectors[:half], vectors[half:], strict=True)]
            parts *= 2
        if len(vectors) == 2:
            in_turn = [start + vector * width for start in range(width) for vector in range(2)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDE.count), in_turn)
            vectors = [builder.shuffle_vector(*vectors, mask)]
        return as_wide(lanes_type, builder, vectors[0], "fpext")

    return WIDE(base), generate


@intrinsic
def prefetch(typing_context, base, index):
    """A hint that the bundle at element `index` will be needed; any address will do."""

    def generate(context, builder, sig, args):
        byte, flag = ir.IntType(8), ir.IntType(32)
        address = builder.bitcast(element_address(builder, *args), byte.as_pointer())
        read, keep, data = ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)
        for offset in range(0, BUNDLE_BYTES, CACHE_LINE_BYTES):
            line = builder.gep(address, [context.get_constant(types.intp, offset)])
            call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [line, read, keep, data])
        return context.get_dummy_value()

    return types.void(base, types.intp), generate


@intrinsic
def least(typing_context, value):
    """The least lane; NaN if there is one."""
    return types.float64(value), folding(prefer("<"))


@intrinsic
def largest(typing_context, value):
    """The largest lane; NaN if there is one."""
    return types.float64(value), folding(prefer(">"))


@intrinsic
def minimum(typing_context, a, b):
    """The smaller of two bundles, lane by lane; NaN stays."""
    return a(a, b), lambda context, builder, sig, args: prefer("<")(builder, *args)


@intrinsic
def maximum(typing_context, a, b):
    """The larger of two bundles, lane by lane; NaN stays."""
    return a(a, b), lambda context, builder, sig, args: prefer(">")(builder, *args)
