"""Operators on plain arrays: NumPy, CuPy, PyTorch, JAX, or anything with __dlpack__; forward and backward are
public.

The array type that came in comes out, on the memory it was in. Names, arguments and layouts follow PyTorch's;
images are [N, C, H, W]. Arrays are float32 or float64, and where an operator's attribute `dtypes` says so
also float16 or bfloat16 (NumPy's from ml_dtypes): arithmetic and sums are float32 then, results rounded once.
`fastarch.backend` chooses the implementation; one without kernels for 16-bit floats works on float32 copies.
"""

from fastarch.ops.activation import relu, relu_backward, sigmoid, sigmoid_backward, tanh, tanh_backward
from fastarch.ops.adaptive_pool2d import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
)
from fastarch.ops.batch_norm import batch_norm, batch_norm_backward
from fastarch.ops.conv1d import conv1d, conv1d_backward
from fastarch.ops.conv2d import conv2d, conv2d_backward
from fastarch.ops.conv2d_max_pool import conv2d_max_pool, conv2d_max_pool_backward
from fastarch.ops.conv3d import conv3d, conv3d_backward
from fastarch.ops.conv_transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
)
from fastarch.ops.dropout import dropout, dropout_backward
from fastarch.ops.linear import linear, linear_backward
from fastarch.ops.local_response_norm import local_response_norm, local_response_norm_backward
from fastarch.ops.pool2d import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from fastarch.ops.rbm import rbm_cd, rbm_free_energy, rbm_hidden, rbm_phases, rbm_update, rbm_visible
from fastarch.ops.recurrent import gru, gru_backward, lstm, lstm_backward, rnn, rnn_backward
from fastarch.ops.recurrent_cell import (
    gru_cell,
    gru_cell_backward,
    lstm_cell,
    lstm_cell_backward,
    rnn_cell,
    rnn_cell_backward,
)
from fastarch.ops.softmax import (
    cross_entropy,
    cross_entropy_backward,
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)
from fastarch.ops.som import som_batch_update, som_bmu, som_online_update, som_totals, som_u_matrix

# The public functions of each family; tests and benchmarks go through this.
OPERATORS: dict[str, tuple[str, ...]] = {
    "activation": ("relu", "relu_backward", "tanh", "tanh_backward", "sigmoid", "sigmoid_backward"),
    "linear": ("linear", "linear_backward"),
    "conv2d": (
        "conv2d",
        "conv2d_backward",
        "conv2d_max_pool",
        "conv2d_max_pool_backward",
        "conv1d",
        "conv1d_backward",
        "conv3d",
        "conv3d_backward",
        "conv_transpose1d",
        "conv_transpose1d_backward",
        "conv_transpose2d",
        "conv_transpose2d_backward",
    ),
    "batch_norm": ("batch_norm", "batch_norm_backward"),
    "local_response_norm": ("local_response_norm", "local_response_norm_backward"),
    "pool2d": (
        "max_pool2d",
        "max_pool2d_backward",
        "avg_pool2d",
        "avg_pool2d_backward",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_backward",
        "adaptive_max_pool2d",
        "adaptive_max_pool2d_backward",
    ),
    "softmax": (
        "softmax",
        "softmax_backward",
        "log_softmax",
        "log_softmax_backward",
        "cross_entropy",
        "cross_entropy_backward",
    ),
    "dropout": ("dropout", "dropout_backward"),
    "optimizer": (),  # its kernels change their operands, so that only fastarch.optim calls them
    "rbm": ("rbm_hidden", "rbm_visible", "rbm_phases", "rbm_cd", "rbm_update", "rbm_free_energy"),
    "recurrent": (
        "rnn",
        "rnn_backward",
        "lstm",
        "lstm_backward",
        "gru",
        "gru_backward",
        "rnn_cell",
        "rnn_cell_backward",
        "lstm_cell",
        "lstm_cell_backward",
        "gru_cell",
        "gru_cell_backward",
    ),
    "som": ("som_bmu", "som_totals", "som_batch_update", "som_online_update", "som_u_matrix"),
    "words": (),  # of random streams, and of captured steps: parts of other operators
}

__all__ = [
    "OPERATORS",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_max_pool",
    "conv2d_max_pool_backward",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "gru",
    "gru_backward",
    "gru_cell",
    "gru_cell_backward",
    "linear",
    "linear_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "log_softmax",
    "log_softmax_backward",
    "lstm",
    "lstm_backward",
    "lstm_cell",
    "lstm_cell_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "rbm_cd",
    "rbm_free_energy",
    "rbm_hidden",
    "rbm_phases",
    "rbm_update",
    "rbm_visible",
    "relu",
    "relu_backward",
    "rnn",
    "rnn_backward",
    "rnn_cell",
    "rnn_cell_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "som_batch_update",
    "som_bmu",
    "som_online_update",
    "som_totals",
    "som_u_matrix",
    "tanh",
    "tanh_backward",
]
