"""Deep belief networks that classify and predict: pretrained greedily, fine-tuned by back-propagation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastarch import nn, ops, optim, random
from fastarch.arrays import Array
from fastarch.estimators.base import array_module
from fastarch.estimators.mixins import Classifier, Regressor, Transformer
from fastarch.estimators.rows import Rows
from fastarch.estimators.stack import Layer, Stack, sequential
from fastarch.estimators.validation import check_count, check_number, features, is_sparse
from fastarch.tensors import tensor

__all__ = ["DBNClassifier", "DBNRegressor"]


class _FineTuned(Transformer, Stack):
    """A pretrained network with a linear layer on top, trained as a whole."""

    fine_tune_epochs: int
    fine_tune_rate: float
    fine_tune_decay: float

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        who = f"{self._name}.{method}"
        check_count(who, "fine_tune_epochs", self.fine_tune_epochs)
        check_number(who, "fine_tune_rate", self.fine_tune_rate, 0, open_low=True)
        check_number(who, "fine_tune_decay", self.fine_tune_decay, 0)

    def _with(self, rows: Rows, unlabelled: Any) -> Rows:
        """The samples and those without labels, for pretraining."""
        if unlabelled is None:
            return rows
        who = f"{self._name}.fit"
        more, _ = features(unlabelled, who, sparse=True)
        if more.shape[1] != rows.shape[1]:
            raise ValueError(f"[{who}] unlabelled has {more.shape[1]} features, X has {rows.shape[1]}")
        if is_sparse(more) or rows.sparse:
            import scipy.sparse

            return Rows(scipy.sparse.vstack([rows.x, more]).tocsr(), rows.dtype)
        return Rows(array_module(rows.x).concatenate([rows.x, more]), rows.dtype)

    def _learn(self, rows: Rows, unlabelled: Any, outputs: int, target: Array, loss: Any) -> None:
        """Pretrains, then trains everything; target: [N, ...], loss(output, target) a tensor."""
        seed = self._seed()
        self._pretrain(self._with(rows, unlabelled), seed)
        xp = array_module(rows.x)
        inputs = len(self.rbms_[-1].b_hidden_)
        draw = random.normal((outputs, inputs), std=1 / math.sqrt(inputs), dtype=rows.dtype, stream=(seed, 0))
        top = Layer(xp.asarray(draw), xp.zeros(outputs, rows.dtype))
        network = sequential([*self._recognition(), top], linear_last=True)
        self._epochs(0)  # begins history_
        for machine in self.rbms_:
            self.history_ += machine.history_
        self._fine_tune(network, rows, target, loss, seed)
        self.layers_ = [[module.weight.data, module.bias.data] for module in network]

    def _fine_tune(self, network: Any, rows: Rows, target: Array, loss: Any, seed: int) -> None:
        optimizer = optim.AdamW(
            network.parameters(), lr=self.fine_tune_rate, weight_decay=self.fine_tune_decay
        )
        batch = min(self.batch_size, len(rows))
        steps = math.ceil(len(rows) / batch)
        with self._epochs(self.fine_tune_epochs, title="fine-tuning", go_on=True) as rounds:
            for epoch in rounds:
                order = random.permutation(len(rows), seed, 1 + epoch)
                total = 0.0
                for step in range(steps):
                    index = order[step * batch : (step + 1) * batch]
                    optimizer.zero_grad()
                    wanted = target[array_module(target).asarray(index)]
                    value = loss(network(tensor(self._inputs(rows.take(index)))), wanted)
                    value.backward()
                    optimizer.step()
                    total += float(value.data) * len(index)
                    rounds.step(step + 1, steps)
                rounds.record(loss=total / len(rows))

    def _network(self) -> list[Layer]:
        return [Layer(weight, bias) for weight, bias in self.layers_]

    @property
    def _n_features_out(self) -> int:  # type: ignore[override]
        return len(self.layers_[-2][1])

    def transform(self, X: Any) -> Any:
        """The top hidden layer's activations, fine-tuned, given X [N, D]: [N, H]."""
        rows = self._rows(X, "transform")
        return self._framed(rows.back(self._propagated(rows, self._network()[:-1])), X)

    def _outputs(self, X: Any, method: str) -> tuple[Rows, Array]:
        rows = self._rows(X, method)
        return rows, self._propagated(rows, self._network(), linear_last=True)

    def to_sequential(self) -> Any:
        """An nn.Sequential from samples to outputs (a classifier's logits), made of copies.

        It clips nothing: for Bernoulli visible units its input lies in [0, 1].
        """
        self._check_fitted("to_sequential")
        return sequential(self._network(), linear_last=True)


class DBNClassifier(Classifier, _FineTuned):
    """A deep belief network for classification, fine-tuned by back-propagation after greedy pretraining.

    The first parameters are those of `DBN`. fine_tune_epochs: passes over the labelled samples, by AdamW at
    fine_tune_rate with the decoupled weight decay fine_tune_decay on all parameters; the loss is the
    cross-entropy. n_epochs=0 leaves pretraining out, and the same network starts from random weights of
    variance 1 / inputs.

    fit(X, y, unlabelled=None): X is [N, D], dense or sparse, y labels of any kind [N]; unlabelled [M, D]
    takes part in pretraining alone. Hinton and Salakhutdinov, "Reducing the dimensionality of data with
    neural networks" (2006).
    """

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (256, 256),
        *,
        visible: str = "auto",
        start: str = "random",
        n_epochs: int = 10,
        learning_rate: float = 0.2,
        gaussian_rate: float = 0.05,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        k: int = 1,
        persistent: bool = False,
        batch_size: int = 50,
        fine_tune_epochs: int = 50,
        fine_tune_rate: float = 0.003,
        fine_tune_decay: float = 0.01,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.visible = visible
        self.start = start
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.gaussian_rate = gaussian_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.k = k
        self.persistent = persistent
        self.batch_size = batch_size
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_rate = fine_tune_rate
        self.fine_tune_decay = fine_tune_decay
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> Any:
        """Learns from X [N, D] and labels y [N], and from unlabelled [M, D] where given. Returns itself."""
        self._check_parameters("fit")
        rows = self._rows(X, "fit", reset=True)
        index = self._encode(y, "fit", len(rows))
        target = array_module(rows.x).asarray(index)
        self._learn(rows, unlabelled, len(self.classes_), target, nn.functional.cross_entropy)
        return self

    def decision_function(self, X: Any) -> Any:
        """Logits [N, classes]; of two classes, the second's less the first's [N]."""
        rows, logits = self._outputs(X, "decision_function")
        if len(self.classes_) == 2:
            logits = logits[:, 1] - logits[:, 0]
        return rows.back(logits)

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities, in the order of classes_: [N, classes]."""
        rows, logits = self._outputs(X, "predict_proba")
        return rows.back(ops.softmax(logits, 1))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each sample: [N]."""
        _, logits = self._outputs(X, "predict")
        best = logits.argmax(1)
        return self.classes_[best.get() if hasattr(best, "get") else best]


class DBNRegressor(Regressor, _FineTuned):
    """A deep belief network for regression, fine-tuned by back-propagation after greedy pretraining.

    Parameters as of `DBNClassifier`; the loss is the squared error of the standardised targets. fit(X, y,
    unlabelled=None): y is [N] or [N, T].
    """

    _multi_output = True

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (256, 256),
        *,
        visible: str = "auto",
        start: str = "random",
        n_epochs: int = 10,
        learning_rate: float = 0.2,
        gaussian_rate: float = 0.05,
        momentum: float = 0.5,
        weight_decay: float = 0.0,
        k: int = 1,
        persistent: bool = False,
        batch_size: int = 50,
        fine_tune_epochs: int = 50,
        fine_tune_rate: float = 0.003,
        fine_tune_decay: float = 0.01,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.visible = visible
        self.start = start
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.gaussian_rate = gaussian_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.k = k
        self.persistent = persistent
        self.batch_size = batch_size
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_rate = fine_tune_rate
        self.fine_tune_decay = fine_tune_decay
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> Any:
        """Learns from X [N, D] and targets y [N] or [N, T], and from unlabelled [M, D] where given."""
        self._check_parameters("fit")
        rows = self._rows(X, "fit", reset=True)
        target = self._targets(y, "fit", rows.x)
        xp = array_module(rows.x)
        spread = target.std(0)
        self.target_mean_ = xp.asarray(target.mean(0).astype(rows.dtype))
        self.target_scale_ = xp.asarray(np.where(spread > 0, spread, 1).astype(rows.dtype))
        target = (xp.asarray(target.astype(rows.dtype)) - self.target_mean_) / self.target_scale_
        self._learn(rows, unlabelled, target.shape[1], target, nn.functional.mse_loss)
        return self

    def predict(self, X: Any) -> Any:
        """The predicted targets: [N], or [N, T] where fit was given that."""
        rows, y = self._outputs(X, "predict")
        return rows.back(self._as_targets(y * self.target_scale_ + self.target_mean_))
