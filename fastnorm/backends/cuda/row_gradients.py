"""Kernels of backward passes over rows: in one pass over rows that registers hold, or sums first and dx then.

dx = rstd * (g - A - xhat * B), with g = weight * dy, A the mean of g and B that of g * xhat, see `fastnorm.gradients`.
"""

from functools import lru_cache

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, Real, cuda, device_function
from fastnorm.backends.cuda.forms import GradientForm, parameter_reader, statistics_reader
from fastnorm.backends.cuda.rows import chunk_of
from fastnorm.backends.cuda.shapes import RowShape
from fastnorm.backends.cuda.statistics import normalizer, reciprocal_root, row_statistics


def gradient_finisher(form: GradientForm):
    """Return a part of kernels, ``(g, a, b, xhat, coefficients)``: dx of one element."""
    centred = form.centred

    @device_function
    def finished(g, a, b, xhat, coefficients):
        _, power, scale, _, _ = coefficients
        inner = g - xhat * b
        if centred:
            inner -= a
        return inner * scale * power

    return finished


@lru_cache(maxsize=64)
def normalize_grad_rows(shape: RowShape, form: GradientForm) -> Kernel:
    """Return the kernel that reads x once, and dy once or, where registers do not hold it, twice, and writes dx.

    What else it writes is in the type that is computed in, if sums are those of a position: unit u has the rows from
    ``u * rows_of_unit`` on, and its sums are (units, length). Sums of each run are (rows, segments) float64. For
    `terms`, mean, what its rounding left, and rstd are written to where they would be read, A and B as the sums.
    """
    vector, width, rows_of_block, slots = shape
    elements = vector * slots
    real, stride = form.real, vector * width
    size = machine.scratch_size(width, rows_of_block)
    make_scratch, make_wide_scratch = machine.shared(size, real), machine.shared(size, np.float64)
    load_x, load_first = machine.load(form.x, real, vector), machine.load(form.x, real, 1)
    load_dy, store_dx = machine.load(form.upstream, real, vector), machine.store(form.y, vector)
    store_sums, store_one = machine.store(np.dtype(real).name, vector), machine.store("float64", 1)
    read_weight = parameter_reader(form.weight, form, vector)
    load_weight = machine.load(form.parameters, real, 1)
    read_statistics = statistics_reader(form)
    statistics = row_statistics(shape, real, form.centred)
    rstd_of = reciprocal_root(form.floor)
    split, normalized = normalizer(real)
    finished = gradient_finisher(form)
    row_sum = machine.row_sum(width)
    given, floor, weighted, held_dy, terms = form.given, form.floor, form.weight != "none", form.held, form.terms
    of_positions, of_runs, of_row = form.sums == "position", form.sums == "run", form.sums == "row"
    weighted_at_once = weighted and not of_runs and not of_row
    kept, step_of_dy = (elements, vector) if held_dy else (vector, 0)
    positions = elements if of_positions else 1
    vectors_of_row = (rows_of_block, width * slots) if of_runs else (1, 1)
    make_sums, make_products = machine.shared(vectors_of_row, real), machine.shared(vectors_of_row, real)
    team, team_sum, barrier = machine.team_width(width), machine.team_sum(width), machine.barrier
    teams = width // team

    def kernel(
        x: Pointer, dy: Pointer, dx: Pointer, weight: Pointer, means: Pointer, rests: Pointer, rstds: Pointer,
        sums_out: Pointer, products_out: Pointer, lines: Integer, length: Integer, run_length: Integer,
        segments: Integer, count: Integer, rows_of_unit: Integer, eps: Real, divisor: Real, least: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        wide_scratch = make_wide_scratch()
        held = cuda.local.array(elements, real)
        upstream = cuda.local.array(kept, real)
        of_weight = cuda.local.array(positions, real)
        of_bias = cuda.local.array(positions, real)
        scale_of = cuda.local.array(vector, real)
        statistic = cuda.local.array(1, np.float64)
        unit = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        lane = np.int64(cuda.threadIdx.x) * vector
        for e in range(positions):
            of_weight[e] = real(0)
            of_bias[e] = real(0)
        for step in range(rows_of_unit):
            row = unit * rows_of_unit + step
            inside = row < lines
            row = row if inside else np.int64(0)  # threads without a row must take part in its sums
            start = row * length
            first_run = row * segments % count
            for j in range(slots):
                if lane + j * stride < length:
                    load_x(x, start + lane + j * stride, held, np.int64(j * vector))
                    if held_dy:
                        load_dy(dy, start + lane + j * stride, upstream, np.int64(j * vector))
            if given:
                coefficients = read_statistics(means, rests, rstds, row * segments, eps, statistic)
                rstd = statistic[0]
            else:
                load_first(x, start, scale_of, np.int64(0))
                hi, lo, m2 = statistics(held, lane, length, scale_of[0], real(least), scratch, wide_scratch)
                rstd = rstd_of(m2, divisor, eps)
                coefficients = split(hi, lo, rstd)
            sums = real(0)
            products = real(0)
            if of_runs:
                sums_of_vectors = make_sums()
                products_of_vectors = make_products()
            for j in range(slots):
                at = lane + j * stride
                if at < length:
                    if not held_dy:
                        load_dy(dy, start + at, upstream, np.int64(0))
                    if weighted_at_once:
                        read_weight(weight, first_run, at, run_length, scale_of)
                    part = real(0)
                    part_products = real(0)
                    for e in range(vector):
                        xhat = normalized(held[j * vector + e], coefficients)
                        held[j * vector + e] = xhat
                        g = upstream[j * step_of_dy + e]
                        if of_positions and inside:
                            of_weight[j * vector + e] += g * xhat
                            of_bias[j * vector + e] += g
                        if weighted_at_once:
                            g = g * scale_of[e]
                        part += g
                        part_products += g * xhat
                    if of_runs:
                        sums_of_vectors[cuda.threadIdx.y, cuda.threadIdx.x + j * width] = part
                        products_of_vectors[cuda.threadIdx.y, cuda.threadIdx.x + j * width] = part_products
                    else:
                        sums += part
                        products += part_products
            if of_runs:
                barrier()
                member = np.int64(cuda.threadIdx.x) % team
                vectors = run_length // vector
                for run in range(np.int64(cuda.threadIdx.x) // team, segments, teams):
                    part = real(0)
                    part_products = real(0)
                    for number in range(run * vectors + member, (run + 1) * vectors, team):
                        part += sums_of_vectors[cuda.threadIdx.y, number]
                        part_products += products_of_vectors[cuda.threadIdx.y, number]
                    part = team_sum(part)
                    part_products = team_sum(part_products)
                    if member == 0:
                        if inside:
                            statistic[0] = part
                            store_one(sums_out, row * segments + run, statistic, np.int64(0))
                            statistic[0] = part_products
                            store_one(products_out, row * segments + run, statistic, np.int64(0))
                        if weighted:
                            load_weight(weight, first_run + run, scale_of, np.int64(0))
                            part = part * scale_of[0]
                            part_products = part_products * scale_of[0]
                        sums += part
                        products += part_products
            sums = row_sum(sums, scratch)
            products = row_sum(products, scratch)
            if of_row:
                if inside and lane == 0:
                    statistic[0] = sums
                    store_one(sums_out, row, statistic, np.int64(0))
                    statistic[0] = products
                    store_one(products_out, row, statistic, np.int64(0))
                if weighted:
                    load_weight(weight, first_run, scale_of, np.int64(0))
                    sums = sums * scale_of[0]
                    products = products * scale_of[0]
            a = np.float64(sums) / np.float64(length)
            b = np.float64(products) / divisor
            if floor and eps > 0.0 and rstd >= 1.0 / eps:  # the row was divided by eps, a constant
                b = 0.0
            if terms:
                if inside and lane == 0:
                    statistic[0] = hi if rests != 0 else np.float64(hi) + lo
                    store_one(means, row, statistic, np.int64(0))
                    if rests != 0:
                        statistic[0] = lo
                        store_one(rests, row, statistic, np.int64(0))
                    statistic[0] = rstd
                    store_one(rstds, row, statistic, np.int64(0))
                    statistic[0] = a
                    store_one(sums_out, row, statistic, np.int64(0))
                    statistic[0] = b
                    store_one(products_out, row, statistic, np.int64(0))
            elif inside:
                for j in range(slots):
                    at = lane + j * stride
                    if at < length:
                        if not held_dy:
                            load_dy(dy, start + at, upstream, np.int64(0))
                        read_weight(weight, first_run, at, run_length, scale_of)
                        for e in range(vector):
                            g = upstream[j * step_of_dy + e]
                            if weighted:
                                g = g * scale_of[e]
                            value = finished(g, real(a), real(b), held[j * vector + e], coefficients)
                            upstream[j * step_of_dy + e] = value
                        store_dx(dx, start + at, upstream, np.int64(j * step_of_dy))
        if of_positions and unit * rows_of_unit < lines:
            for j in range(slots):
                at = lane + j * stride
                if at < length:
                    store_sums(products_out, unit * length + at, of_weight, np.int64(j * vector))
                    store_sums(sums_out, unit * length + at, of_bias, np.int64(j * vector))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def dots_rows(shape: RowShape, form: GradientForm) -> Kernel:
    """Return the kernel for the sums of g and of g * xhat over chunks of rows, (lines, chunks) float64.

    Row r has statistic ``r // block * channels + r % channels``, or, by position p, ``r // block * length + p``.
    """
    vector, width, rows_of_block, slots = shape
    stride, capacity, real = vector * width, shape.capacity, form.real
    size = machine.scratch_size(width, rows_of_block)
    make_scratch = machine.shared(size, real)
    load_x, load_dy = machine.load(form.x, real, vector), machine.load(form.upstream, real, vector)
    read_weight = parameter_reader(form.weight, form, vector)
    read_statistics = statistics_reader(form)
    _, normalized = normalizer(real)
    row_sum, store_one = machine.row_sum(width), machine.store("float64", 1)
    weighted, by_position = form.weight != "none", form.by_position

    def kernel(
        x: Pointer, dy: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, weight: Pointer, sums_out: Pointer,
        products_out: Pointer, lines: Integer, length: Integer, chunks: Integer, block: Integer, channels: Integer,
        eps: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        held = cuda.local.array(vector, real)
        upstream = cuda.local.array(vector, real)
        scale_of = cuda.local.array(vector, real)
        statistic = cuda.local.array(1, np.float64)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside, row, begin, rest = chunk_of(number, lines, length, chunks, np.int64(capacity))
        lane = np.int64(cuda.threadIdx.x) * vector
        source = row // block * length if by_position else row // block * channels + row % channels
        coefficients = read_statistics(means, rests, rstds, source, eps, statistic)
        sums = real(0)
        products = real(0)
        for j in range(slots):
            at = begin + lane + j * stride
            if lane + j * stride < rest:
                load_x(x, row * length + at, held, np.int64(0))
                load_dy(dy, row * length + at, upstream, np.int64(0))
                read_weight(weight, row % channels, at, length, scale_of)
                part = real(0)
                part_products = real(0)
                for e in range(vector):
                    if by_position:
                        coefficients = read_statistics(means, rests, rstds, source + at + e, eps, statistic)
                    g = upstream[e] * scale_of[e] if weighted else upstream[e]
                    part += g
                    part_products += g * normalized(held[e], coefficients)
                sums += part
                products += part_products
        sums = row_sum(sums, scratch)
        products = row_sum(products, scratch)
        if inside and lane == 0:
            statistic[0] = sums
            store_one(sums_out, number, statistic, np.int64(0))
            statistic[0] = products
            store_one(products_out, number, statistic, np.int64(0))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def affine_grad_rows(shape: RowShape, form: GradientForm) -> Kernel:
    """Return the kernel that writes dx of chunks of rows; A and B, float64, go with the statistics.

    Sums of positions over the rows of a unit are as in `normalize_grad_rows`; without, a unit is to be a row.
    """
    vector, width, rows_of_block, slots = shape
    elements = vector * slots
    stride, capacity, real = vector * width, shape.capacity, form.real
    load_x, load_dy = machine.load(form.x, real, vector), machine.load(form.upstream, real, vector)
    store_dx = machine.store(form.y, vector)
    store_sums = machine.store(np.dtype(real).name, vector)
    read_weight = parameter_reader(form.weight, form, vector)
    read_statistics = statistics_reader(form)
    load_term = machine.load("float64", np.float64, 1)
    _, normalized = normalizer(real)
    finished = gradient_finisher(form)
    weighted, floor, centred, of_positions = form.weight != "none", form.floor, form.centred, form.sums == "position"
    positions = elements if of_positions else 1

    def kernel(
        x: Pointer, dy: Pointer, dx: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, terms_a: Pointer,
        terms_b: Pointer, weight: Pointer, sums_out: Pointer, products_out: Pointer, lines: Integer, length: Integer,
        chunks: Integer, rows_of_unit: Integer, block: Integer, channels: Integer, eps: Real,
    ):  # fmt: skip
        held = cuda.local.array(vector, real)
        upstream = cuda.local.array(vector, real)
        scale_of = cuda.local.array(vector, real)
        of_weight = cuda.local.array(positions, real)
        of_bias = cuda.local.array(positions, real)
        statistic = cuda.local.array(1, np.float64)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        unit = number // chunks
        begin = (number % chunks) * capacity
        rest = min(length - begin, np.int64(capacity))
        lane = np.int64(cuda.threadIdx.x) * vector
        for e in range(positions):
            of_weight[e] = real(0)
            of_bias[e] = real(0)
        for row in range(unit * rows_of_unit, min((unit + 1) * rows_of_unit, lines)):
            source = row // block * channels + row % channels
            coefficients = read_statistics(means, rests, rstds, source, eps, statistic)
            constant = floor and eps > 0.0 and statistic[0] >= 1.0 / eps
            a = real(0)
            if centred:
                load_term(terms_a, source, statistic, np.int64(0))
                a = real(statistic[0])
            load_term(terms_b, source, statistic, np.int64(0))
            b = real(0) if constant else real(statistic[0])
            for j in range(slots):
                at = begin + lane + j * stride
                if lane + j * stride < rest:
                    load_x(x, row * length + at, held, np.int64(0))
                    load_dy(dy, row * length + at, upstream, np.int64(0))
                    read_weight(weight, row % channels, at, length, scale_of)
                    for e in range(vector):
                        g = upstream[e]
                        xhat = normalized(held[e], coefficients)
                        if of_positions:
                            of_weight[j * vector + e] += g * xhat
                            of_bias[j * vector + e] += g
                        if weighted:
                            g = g * scale_of[e]
                        upstream[e] = finished(g, a, b, xhat, coefficients)
                    store_dx(dx, row * length + at, upstream, np.int64(0))
        if of_positions and unit * rows_of_unit < lines:
            for j in range(slots):
                at = begin + lane + j * stride
                if lane + j * stride < rest:
                    store_sums(products_out, unit * length + at, of_weight, np.int64(j * vector))
                    store_sums(sums_out, unit * length + at, of_bias, np.int64(j * vector))

    return Kernel(kernel, shape.block)
