"""Kernels of backward passes over columns: sums first and dx then; x and dy as in `columns`."""

from functools import lru_cache

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.columns import place
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, Real, cuda
from fastnorm.backends.cuda.forms import GradientForm, statistics_reader
from fastnorm.backends.cuda.row_gradients import gradient_finisher
from fastnorm.backends.cuda.shapes import ColumnShape
from fastnorm.backends.cuda.statistics import normalizer


@lru_cache(maxsize=64)
def dots_columns(shape: ColumnShape, form: GradientForm) -> Kernel:
    """Return the kernel for the sums of g and of g * xhat over chunks of columns, (outer, chunks, inner) float64.

    Column l of block o has statistic ``o * inner + l``.
    """
    vector, width, depth, slots = shape
    elements = vector * slots
    real, columns_of_block, chunk_length = form.real, shape.columns, shape.chunk
    columns = depth, width * vector
    sums_of_block, products_of_block = machine.shared(columns, real), machine.shared(columns, real)
    load_x, load_dy = machine.load(form.x, real, vector), machine.load(form.upstream, real, vector)
    load_parameter = machine.load(form.parameters, real, 1)
    read_statistics = statistics_reader(form)
    _, normalized = normalizer(real)
    store_one, barrier = machine.store("float64", 1), machine.barrier
    weight_of_position = form.weight == "position"

    def kernel(
        x: Pointer, dy: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, weight: Pointer, sums_out: Pointer,
        products_out: Pointer, length: Integer, inner: Integer, eps: Real,
    ):  # fmt: skip
        shared_sums = sums_of_block()
        shared_products = products_of_block()
        held = cuda.local.array(elements, real)
        upstream = cuda.local.array(elements, real)
        scale_of = cuda.local.array(1, real)
        statistic = cuda.local.array(1, np.float64)
        outer, first_column, chunk, chunks = place(
            np.int64(cuda.blockIdx.x), length, inner, np.int64(columns_of_block), np.int64(chunk_length)
        )
        mine = np.int64(cuda.threadIdx.x) * vector
        column = first_column + mine
        position = chunk * chunk_length + np.int64(cuda.threadIdx.y)
        if column < inner:
            for j in range(slots):
                at = position + j * depth
                if at < length:
                    load_x(x, (outer * length + at) * inner + column, held, np.int64(j * vector))
                    load_dy(dy, (outer * length + at) * inner + column, upstream, np.int64(j * vector))
            for e in range(vector):
                coefficients = read_statistics(means, rests, rstds, outer * inner + column + e, eps, statistic)
                sums = real(0)
                products = real(0)
                for j in range(slots):
                    at = position + j * depth
                    if at < length:
                        g = upstream[j * vector + e]
                        if weight_of_position:
                            load_parameter(weight, at, scale_of, np.int64(0))
                            g = g * scale_of[0]
                        sums += g
                        products += g * normalized(held[j * vector + e], coefficients)
                shared_sums[cuda.threadIdx.y, mine + e] = sums
                shared_products[cuda.threadIdx.y, mine + e] = products
        barrier()
        if cuda.threadIdx.y == 0 and column < inner:
            for e in range(vector):
                sums = np.float64(0)
                products = np.float64(0)
                for d in range(depth):
                    sums += np.float64(shared_sums[d, mine + e])
                    products += np.float64(shared_products[d, mine + e])
                target = (outer * chunks + chunk) * inner + column + e
                statistic[0] = sums
                store_one(sums_out, target, statistic, np.int64(0))
                statistic[0] = products
                store_one(products_out, target, statistic, np.int64(0))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def affine_grad_columns(shape: ColumnShape, form: GradientForm) -> Kernel:
    """Return the kernel that writes dx of columns; A and B, float64, go with the statistics, as in `dots_columns`."""
    vector, _, depth, slots = shape
    elements = vector * slots
    real, columns_of_block, chunk_length = form.real, shape.columns, shape.chunk
    load_x, load_dy = machine.load(form.x, real, vector), machine.load(form.upstream, real, vector)
    store_dx = machine.store(form.y, vector)
    load_parameters = machine.load(form.parameters, real, vector)
    load_parameter = machine.load(form.parameters, real, 1)
    read_statistics = statistics_reader(form)
    load_term = machine.load("float64", np.float64, 1)
    _, normalized = normalizer(real)
    finished = gradient_finisher(form)
    weight_of_column, weight_of_position = form.weight == "column", form.weight == "position"
    weighted = weight_of_column or weight_of_position
    floor, centred = form.floor, form.centred

    def kernel(
        x: Pointer, dy: Pointer, dx: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, terms_a: Pointer,
        terms_b: Pointer, weight: Pointer, length: Integer, inner: Integer, eps: Real,
    ):  # fmt: skip
        held = cuda.local.array(elements, real)
        upstream = cuda.local.array(elements, real)
        scales = cuda.local.array(vector, real)
        statistic = cuda.local.array(1, np.float64)
        outer, first_column, chunk, _ = place(
            np.int64(cuda.blockIdx.x), length, inner, np.int64(columns_of_block), np.int64(chunk_length)
        )
        column = first_column + np.int64(cuda.threadIdx.x) * vector
        position = chunk * chunk_length + np.int64(cuda.threadIdx.y)
        if column < inner:
            if weight_of_column:
                load_parameters(weight, column, scales, np.int64(0))
            for j in range(slots):
                at = position + j * depth
                if at < length:
                    load_x(x, (outer * length + at) * inner + column, held, np.int64(j * vector))
                    load_dy(dy, (outer * length + at) * inner + column, upstream, np.int64(j * vector))
            for e in range(vector):
                source = outer * inner + column + e
                coefficients = read_statistics(means, rests, rstds, source, eps, statistic)
                constant = floor and eps > 0.0 and statistic[0] >= 1.0 / eps
                a = real(0)
                if centred:
                    load_term(terms_a, source, statistic, np.int64(0))
                    a = real(statistic[0])
                load_term(terms_b, source, statistic, np.int64(0))
                b = real(0) if constant else real(statistic[0])
                for j in range(slots):
                    at = position + j * depth
                    if at < length:
                        g = upstream[j * vector + e]
                        if weight_of_position:
                            load_parameter(weight, at, scales, np.int64(e))
                        if weighted:
                            g = g * scales[e]
                        xhat = normalized(held[j * vector + e], coefficients)
                        upstream[j * vector + e] = finished(g, a, b, xhat, coefficients)
            for j in range(slots):
                at = position + j * depth
                if at < length:
                    store_dx(dx, (outer * length + at) * inner + column, upstream, np.int64(j * vector))

    return Kernel(kernel, shape.block)
