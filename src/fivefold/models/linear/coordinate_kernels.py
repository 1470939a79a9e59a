"""Compiled kernels of dual coordinate descent: one pass over the rows, 16 labels side by side.

Labels live in *tiles* of `LANES`; a tile's weights are an array ``(features, LANES)``, one cache line a feature.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16
"""Labels of a tile: 16 float32 fill a cache line of 64 bytes, and a vector register."""

LOGISTIC, SQUARED_HINGE, SOFTMAX = range(3)
"""Losses."""

LONGEST_REST = 8
"""Most epochs for which a row that no longer changes is left alone."""

ZERO, HALF, ONE, TINY = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1e-20)


@intrinsic
def _prefetch(typing_context, matrix, row):
    """Ask for a row of a C-ordered matrix ahead of its use.

    Weights are read in random order. Asking for all rows first, and aligning them to cache lines, takes a gather over
    200,000 features from 38 to 16 ns an entry.
    """

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.gep(builder.bitcast(array.data, byte), [builder.mul(arguments[1], stride)])
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [address, word(0), word(3), word(1)])  # read, keep near, data
        return context.get_dummy_value()

    return types.void(matrix, types.intp), generate


@njit(nogil=True, cache=True, fastmath=True)
def _gather(indices, data, start, stop, weights, z):
    """Add ``x @ weights`` of one row to ``z``; four entries at a time break the chain of additions."""
    for entry in range(start, stop):
        _prefetch(weights, np.intp(indices[entry]))  # type: ignore[call-arg]
    entry = start
    while entry + 4 <= stop:
        w0, w1 = weights[indices[entry]], weights[indices[entry + 1]]
        w2, w3 = weights[indices[entry + 2]], weights[indices[entry + 3]]
        x0, x1, x2, x3 = data[entry], data[entry + 1], data[entry + 2], data[entry + 3]
        for lane in range(LANES):
            z[lane] += x0 * w0[lane] + x1 * w1[lane] + x2 * w2[lane] + x3 * w3[lane]
        entry += 4
    while entry < stop:
        w0, x0 = weights[indices[entry]], data[entry]
        for lane in range(LANES):
            z[lane] += x0 * w0[lane]
        entry += 1


@njit(nogil=True, cache=True, fastmath=True)
def _scatter(indices, data, start, stop, change, weights):
    """Add the outer product of one row and ``change`` to the weights."""
    for entry in range(start, stop):
        w, x = weights[indices[entry]], data[entry]
        for lane in range(LANES):
            w[lane] += x * change[lane]


@njit(nogil=True, cache=True, fastmath=True)
def _sigmoid(z):
    """Logistic function to 1e-7 without a call, so that lanes go side by side (the rational tanh of Eigen)."""
    x = min(max(HALF * z, np.float32(-7.9)), np.float32(7.9))
    u = x * x
    over = np.float32(-2.76076847742355e-16) * u + np.float32(2.00018790482477e-13)
    over = over * u + np.float32(-8.60467152213735e-11)
    over = over * u + np.float32(5.12229709037114e-08)
    over = over * u + np.float32(1.48572235717979e-05)
    over = over * u + np.float32(6.37261928875436e-04)
    over = over * u + np.float32(4.89352455891786e-03)
    under = np.float32(1.19825839466702e-06) * u + np.float32(1.18534705686654e-04)
    under = under * u + np.float32(2.26843463243900e-03)
    under = under * u + np.float32(4.89352518554385e-03)
    return HALF + HALF * x * over / under


@njit(nogil=True, cache=True, fastmath=True)
def _solve_logistic(z, y, cost, dual, square, change):
    """Optimal change of one row's duals under the logistic loss (Yu, Huang & Lin 2011, section 3).

    With ``z'`` the margin after the change, the optimum is ``dual' = cost * (y - sigmoid(z'))``, for soft labels too:
    ``z'`` is the root of ``z' - free - square * cost * (y - sigmoid(z'))``. On the root's side of 0 this is convex or
    concave, hence Newton's method, kept on that side, overshoots at most once.
    """
    for lane in range(LANES):
        scale = square * cost[lane]
        free = z[lane] - square * dual[lane]
        middle = free + scale * (y[lane] - HALF)
        low = min(max(free + scale * (y[lane] - ONE), ZERO), middle)
        high = max(min(free + scale * y[lane], ZERO), middle)
        root = min(max(z[lane], low), high)
        for _ in range(3):
            p = _sigmoid(root)
            root -= (root - free - scale * (y[lane] - p)) / (ONE + scale * p * (ONE - p))
            root = min(max(root, low), high)
        change[lane] = cost[lane] * (y[lane] - _sigmoid(root)) - dual[lane]


@njit(nogil=True, cache=True, fastmath=True)
def _solve_squared_hinge(z, y, cost, dual, square, change):
    """Optimal change of one row's duals under the squared hinge loss (Hsieh et al. 2008, algorithm 1, L2-SVM).

    A dual here carries the sign of its label.
    """
    for lane in range(LANES):
        sign = ONE if y[lane] > HALF else -ONE
        room = HALF / max(cost[lane], TINY)
        size = sign * dual[lane]
        slope = sign * z[lane] - ONE + room * size
        wanted = sign * max(size - slope / (square + room), ZERO)
        change[lane] = wanted - dual[lane] if cost[lane] > ZERO else ZERO


@njit(nogil=True, cache=True)
def _softmax(z, p):
    highest = z.max()
    total = 0.0
    for k in range(len(z)):
        p[k] = np.exp(z[k] - highest)
        total += p[k]
    for k in range(len(z)):
        p[k] /= total


@njit(nogil=True, cache=True)
def _solve_softmax(z, y, cost, dual, square, change):
    """Optimal change of one row's duals under the softmax loss.

    As for the logistic loss with vectors: ``z'`` minimises ``|z' - free|^2 / 2 + scale * (logsumexp(z') - y @ z')``.
    The Hessian is diagonal less ``scale * p p^T`` (inverted by Sherman & Morrison). The step is damped as for
    generalised self-concordant functions (Bach 2010, section 2), so that every step descends.
    """
    scale = np.float64(square) * np.float64(cost[0])
    free = z.astype(np.float64) - square * dual
    root = z.astype(np.float64)
    p = np.empty(len(z))
    for _ in range(20):
        _softmax(root, p)
        gradient = root - free + scale * (p - y)
        diagonal = 1 + scale * p
        step = gradient / diagonal
        step += p / diagonal * (scale * (p @ step) / (p / diagonal).sum())
        reach = 2 * np.abs(step).max() + 1e-12
        root -= step * (np.log1p(reach) / reach)
        if reach < 1e-3:
            break
    _softmax(root, p)
    for k in range(len(z)):
        change[k] = cost[k] * (y[k] - p[k]) - dual[k]


@njit(nogil=True, cache=True)
def _solve(loss, z, y, cost, dual, square, change):
    if loss == LOGISTIC:
        _solve_logistic(z, y, cost, dual, square, change)
    elif loss == SQUARED_HINGE:
        _solve_squared_hinge(z, y, cost, dual, square, change)
    else:
        _solve_softmax(z, y, cost, dual, square, change)


@njit(nogil=True, cache=True, fastmath=True)
def _largest(loss, change, cost, square):
    """How far the row moved: the largest change of a probability, or for the squared hinge of a margin."""
    largest = ZERO
    for lane in range(len(change)):
        share = square if loss == SQUARED_HINGE else ONE / max(cost[lane], TINY)
        largest = max(largest, abs(change[lane]) * share)
    return largest


@njit(nogil=True, cache=True)
def descend(
    loss, indptr, indices, data, order, squares, targets, costs, duals, weights, bias, constant, small, quiet, rest
):
    """Visit the rows once and solve each row's part of the dual exactly.

    Parameters
    ----------
    loss : int
        One of the losses above.
    indptr, indices, data : arrays
        The features as CSR; data float32.
    order : array of int64, shape (rows,)
    squares : array of float32, shape (rows,)
        Squared lengths of the rows, the constant feature included.
    targets, costs, duals : arrays of float32, shape (rows, lanes)
        A cost of 0 silences a label of a row. ``duals`` is changed. Lanes are whole tiles, or a softmax's classes.
    weights : array of float32, shape (tiles, features, LANES)
        Changed.
    bias : array of float32, shape (tiles * LANES,)
        Weights of the constant feature; changed.
    constant : float32
        Value of the constant feature.
    small : float32
        A row that moves less than this is left as it is, and rests the longer the more often it did.
    quiet, rest : arrays of uint8, shape (rows,)
        For how many visits a row has not changed, and for how many epochs it still rests; changed.

    Returns
    -------
    float32
        How far the row moved that moved most: in probability, for the squared hinge in margin.
    """
    z = np.empty(len(bias), np.float32)
    change = np.zeros(len(bias), np.float32)
    lanes = targets.shape[1]
    largest = ZERO
    for row in order:
        if rest[row]:
            rest[row] -= 1
            continue
        for lane in range(len(bias)):
            z[lane] = constant * bias[lane]
        start, stop = indptr[row], indptr[row + 1]
        for tile in range(len(weights)):
            _gather(indices, data, start, stop, weights[tile], z[tile * LANES : (tile + 1) * LANES])
        _solve(loss, z[:lanes], targets[row], costs[row], duals[row], squares[row], change[:lanes])
        moved = _largest(loss, change[:lanes], costs[row], squares[row])
        largest = max(largest, moved)
        if moved <= small:
            quiet[row] = min(quiet[row] + 1, 3)
            rest[row] = min((1 << quiet[row]) - 1, LONGEST_REST)
            continue
        quiet[row] = 0
        for lane in range(lanes):
            duals[row, lane] += change[lane]
            bias[lane] += constant * change[lane]
        for tile in range(len(weights)):
            _scatter(indices, data, start, stop, change[tile * LANES : (tile + 1) * LANES], weights[tile])
    return largest


@njit(nogil=True, cache=True)
def squared_lengths(indptr, data):
    """Squared length of each CSR row; float32 ``(rows,)``."""
    squares = np.zeros(len(indptr) - 1, np.float32)
    for row in range(len(squares)):
        for entry in range(indptr[row], indptr[row + 1]):
            squares[row] += data[entry] * data[entry]
    return squares
