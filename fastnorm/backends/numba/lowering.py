"""The Numba type of a bundle of lanes, ``<32 x float>`` or ``<16 x double>``, and the LLVM code of its operations.

The intrinsics that kernels call are in ``lanes.py``; the functions here write their instructions.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

BUNDLE_BYTES = 128


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


WIDE = Lanes(types.float64)


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


def element_address(builder, pointer, index):
    return builder.gep(pointer, [index])


def bundle_address(builder, pointer, index, bundle):
    return builder.bitcast(element_address(builder, pointer, index), bundle.as_pointer())


def element_alignment(lanes_type) -> int:
    return lanes_type.dtype.bitwidth // 8


def call_llvm(builder, name, result, arguments):
    """Call one of LLVM's own functions."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def _in_names(value_type) -> str:
    """A scalar or vector type as LLVM writes it in the names of its functions: f64, v32f32."""
    if isinstance(value_type, ir.VectorType):
        return f"v{value_type.count}{_in_names(value_type.element)}"
    return "f32" if isinstance(value_type, ir.FloatType) else "f64"


def call_masked(builder, operation, bundle, result, arguments):
    """Call llvm.masked.load or llvm.masked.store for a bundle."""
    return call_llvm(builder, f"llvm.masked.{operation}.{_in_names(bundle)}.p0", result, arguments)


def call_fma(builder, a, b, c):
    """LLVM's fma on vectors or scalars: a * b + c, rounded once."""
    return call_llvm(builder, f"llvm.fma.{_in_names(a.type)}", a.type, [a, b, c])


def on_every_lane(operation):
    """An intrinsic's code that calls LLVM's function of one argument."""

    def generate(context, builder, sig, args):
        bundle = args[0].type
        return call_llvm(builder, f"llvm.{operation}.{_in_names(bundle)}", bundle, args)

    return generate


def broadcast(builder, value, vector):
    """The vector with a scalar in every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, zeros)


def first_lanes(builder, bundle, count):
    """A mask of the first `count` lanes."""
    index = ir.VectorType(ir.IntType(64), bundle.count)
    numbers = ir.Constant(index, list(range(bundle.count)))
    return builder.icmp_signed("<", numbers, broadcast(builder, count, index))


def halves(builder, value):
    half = value.type.count // 2
    index = ir.VectorType(ir.IntType(32), half)
    low = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half))))
    high = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half, 2 * half))))
    return low, high


def folding(combine):
    """An intrinsic's code that folds the lanes by halves and gives a float64."""

    def generate(context, builder, sig, args):
        value = args[0]
        while value.type.count > 1:
            value = combine(builder, *halves(builder, value))
        scalar = builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
        return context.cast(builder, scalar, sig.args[0].dtype, types.float64)

    return generate


def prefer(comparison):
    """`b` where it compares so with `a` or is NaN, else `a`; as in numpy.min, NaN stays."""

    def combine(builder, a, b):
        chosen = builder.or_(builder.fcmp_ordered(comparison, b, a), builder.fcmp_unordered("uno", b, b))
        return builder.select(chosen, b, a)

    return combine


def fold_pair(builder, a, b, parts):
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


def as_wide(lanes_type, builder, value, cast):
    """The float64 bundle of sixteen elements of the storage type, or the other way round."""
    if lanes_type.dtype == types.float64:
        return value
    element = ir.DoubleType() if cast == "fpext" else ir.FloatType()
    return getattr(builder, cast)(value, ir.VectorType(element, WIDE.count))


def bit_casts(number, bits):
    """Return two intrinsics: from a float of the type `number` to its bits, of the type `bits`, and back."""

    @intrinsic
    def bits_of(typing_context, x):
        def generate(context, builder, sig, args):
            return builder.bitcast(args[0], context.get_value_type(bits))

        return bits(number), generate

    @intrinsic
    def number_of(typing_context, x):
        def generate(context, builder, sig, args):
            return builder.bitcast(args[0], context.get_value_type(number))

        return number(bits), generate

    return bits_of, number_of


def libm(name, operands=1):
    """Return an intrinsic, the C library's function of float64: it, and not what LLVM may have for those it knows.

    (Where Intel's SVML is installed, Numba lets LLVM put its functions into loops, with other last bits.)
    """

    @intrinsic
    def call(typing_context, *numbers):
        def generate(context, builder, sig, args):
            function_type = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()] * operands)
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            function.attributes.add("nobuiltin")
            return builder.call(function, cgutils.unpack_tuple(builder, args[0]))

        return types.float64(types.UniTuple(types.float64, operands)), generate

    return call
