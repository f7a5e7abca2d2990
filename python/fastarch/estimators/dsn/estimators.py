"""The public deep stacking networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastarch import ops
from fastarch.arrays import Array, namespace
from fastarch.estimators import validation
from fastarch.estimators.dsn import network
from fastarch.estimators.dsn.stack import Stack
from fastarch.estimators.mixins import Classifier, Regressor


class DSNClassifier(Classifier, Stack):
    """Deep stacking network for classes: modules of sigmoid units with closed-form output weights.

    Each module predicts the one-hot labels from X [N, D] and the predictions of all modules below, and is
    trained alone: its output weights are the least-squares solution with `ridge` * |U|^2 whatever its hidden
    weights are, and the hidden weights follow the gradient of that best error. Deng and Yu, "Deep convex
    net", 2011; Deng, Yu and Platt, "Scalable stacking and learning for building deep architectures", 2012.

    n_modules, n_hidden: the depth, and the hidden units of a module (a number, or one for each module; None
    is 100). ridge: at least 0, beside sums over all samples. solver: "gradient" (all samples, line search),
    "lbfgs" (the same with curvature: falls faster, fits more closely), "momentum" or "adam" (with
    `learning_rate`, 0.5 and 0.02 unless told, over batches of `batch_size` samples or more, or all). init:
    "random", or "rbm" for the weights of restricted Boltzmann machines trained on the module's inputs for
    `rbm_epochs`. n_epochs: rounds at most for each module; it stops once the error has not fallen by the
    share `tol` in `n_iter_no_change` rounds. early_stopping: watch that error on the share
    `validation_fraction` of the samples, held out, and add modules only while it falls. output: "softmax"
    for a softmax layer on the predictions of all modules (with `softmax_ridge`), "linear" for the last
    module's predictions, which sum to one but may be negative. fine_tune_epochs: rounds of back-propagation
    through the whole stack afterwards (Adam, `fine_tune_rate`, batches of `fine_tune_batch`). chunk_size,
    n_jobs: sums over samples are split into chunks and computed by n_jobs threads (-1: all cores); their
    number changes nothing in the result. Scale the columns of X alike.

    Learnt: classes_, weights_ (of each module weight [L, D'] and bias [L]), outputs_ (U [L + 1, K], the last
    row constant), errors_ (squared error of a sample after each module), n_modules_, history_.
    """

    def __init__(
        self,
        n_modules: int = 3,
        n_hidden: int | Sequence[int] | None = None,
        *,
        ridge: float = 0.1,
        solver: str = "gradient",
        n_epochs: int = 50,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        momentum: float = 0.9,
        init: str = "random",
        rbm_epochs: int = 10,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        output: str = "softmax",
        softmax_ridge: float = 1.0,
        fine_tune_epochs: int = 0,
        fine_tune_rate: float = 1e-3,
        fine_tune_batch: int = 64,
        chunk_size: int = 4096,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        super().__init__(
            n_modules,
            n_hidden,
            ridge=ridge,
            solver=solver,
            n_epochs=n_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            init=init,
            rbm_epochs=rbm_epochs,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            fine_tune_epochs=fine_tune_epochs,
            fine_tune_rate=fine_tune_rate,
            fine_tune_batch=fine_tune_batch,
            chunk_size=chunk_size,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.output = output
        self.softmax_ridge = softmax_ridge

    def fit(self, X: Any, y: Any) -> Any:
        """Trains the stack on X [N, D] and labels y [N]. Raises ValueError or TypeError."""
        who = f"{self._name}.fit"
        x, _ = self._input(X, "fit", reset=True)
        index = self._encode(y, "fit", len(x))
        validation.check_choice(who, "output", self.output, ("softmax", "linear"))
        softmax_ridge = validation.check_number(who, "softmax_ridge", self.softmax_ridge, 0)
        xp = namespace(x)
        onehot = xp.asarray(np.eye(len(self.classes_), dtype=x.dtype)[index])
        x, onehot, seed = self._fit_stack(x, onehot)
        self.top_ = None
        if self.output == "softmax":
            target = onehot.argmax(axis=1)
            z = xp.concatenate(self._predictions(x), axis=1)
            self.top_ = list(network.softmax_layer(z, target, len(self.classes_), softmax_ridge))
        if self.fine_tune_epochs:
            net = self.to_module()
            self._fine_tune(net, x, onehot if self.top_ is None else onehot.argmax(axis=1), onehot, seed)
            if self.top_ is not None:
                self.top_ = [net.top_weight.data, net.top_bias.data]
        return self

    def to_module(self) -> network.StackedNetwork:
        """The stack as an `nn.Module` with weights of its own: x [N, D] to scores of the classes [N, K]."""
        self._check_fitted("to_module")
        top = None if self.top_ is None else (self.top_[0], self.top_[1])
        return network.StackedNetwork(self.weights_, self.outputs_, top)

    def _scores(self, X: Any, method: str) -> tuple[Array, Any]:
        """Scores [N, K], and the way back to X's type."""
        x, back = self._input(X, method)
        predictions = self._predictions(x)
        if self.top_ is None:
            return predictions[-1], back
        weight, bias = self.top_
        return ops.linear(namespace(x).concatenate(predictions, axis=1), weight, bias), back

    def decision_function(self, X: Any) -> Any:
        """Scores of the classes [N, K], greater for the likelier; of two classes the difference [N]."""
        scores, back = self._scores(X, "decision_function")
        return back(scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores)

    def predict(self, X: Any) -> Any:
        """The likeliest class of each sample: labels [N]."""
        scores, _ = self._scores(X, "predict")
        return self._labels(scores.argmax(axis=1))

    @property
    def predict_proba(self) -> Any:
        """A function of X: probabilities of the classes [N, K]. Only with output="softmax"."""
        self._needs_softmax("predict_proba")
        return self._predict_proba

    @property
    def predict_log_proba(self) -> Any:
        """A function of X: logarithms of the probabilities [N, K]. Only with output="softmax"."""
        self._needs_softmax("predict_log_proba")
        return self._predict_log_proba

    def _needs_softmax(self, method: str) -> None:
        if self.output != "softmax":
            raise AttributeError(
                f"[{self._name}.{method}] there are no probabilities with output={self.output!r}, "
                "expected output='softmax'"
            )

    def _predict_proba(self, X: Any) -> Any:
        scores, back = self._scores(X, "predict_proba")
        return back(ops.softmax(scores))

    def _predict_log_proba(self, X: Any) -> Any:
        scores, back = self._scores(X, "predict_log_proba")
        return back(ops.log_softmax(scores))


class DSNRegressor(Regressor, Stack):
    """Deep stacking network for numbers: modules of sigmoid units with closed-form output weights.

    As `DSNClassifier`, for targets y [N] or [N, T], which are scaled to mean 0 and variance 1 within. Small
    data are fitted all too closely otherwise: a tenth of the samples is held out unless told.

    Learnt: weights_, outputs_, errors_ (squared error of a scaled sample after each module), n_modules_,
    target_mean_ and target_scale_ [T], history_.
    """

    _multi_output = True
    _hidden_default = 50

    def fit(self, X: Any, y: Any) -> Any:
        """Trains the stack on X [N, D] and targets y [N] or [N, T]. Raises ValueError or TypeError."""
        x, _ = self._input(X, "fit", reset=True)
        xp = namespace(x)
        target = self._targets(y, "fit", x)
        mean = target.mean(axis=0, dtype=np.float64)
        scale = target.std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1
        self.target_mean_ = xp.asarray(mean.astype(x.dtype))
        self.target_scale_ = xp.asarray(scale.astype(x.dtype))
        scaled = xp.asarray(((target - mean) / scale).astype(x.dtype))
        x, scaled, seed = self._fit_stack(x, scaled)
        if self.fine_tune_epochs:
            self._fine_tune(self.to_module(), x, scaled, scaled, seed)
        return self

    def to_module(self) -> network.StackedNetwork:
        """The stack as an `nn.Module` with weights of its own: x [N, D] to targets [N, T]."""
        self._check_fitted("to_module")
        units = (self.target_mean_, self.target_scale_)
        return network.StackedNetwork(self.weights_, self.outputs_, units=units)

    def predict(self, X: Any) -> Any:
        """Predicted targets, [N] or [N, T] as y was."""
        x, back = self._input(X, "predict")
        predicted = self._predictions(x)[-1] * self.target_scale_ + self.target_mean_
        return back(self._as_targets(predicted))


class TDSNClassifier(DSNClassifier):
    """Tensor deep stacking network for classes: two groups of hidden units whose products are the features.

    As `DSNClassifier`; n_hidden is the size of both groups or a pair, (L, M), 12 unless told, and a module's
    features are the (L + 1)(M + 1) products of the units of both, each with a constant unit. Hutchinson, Deng
    and Yu, "Tensor deep stacking networks", 2013.
    """

    _groups = 2
    _hidden_default = 12


class TDSNRegressor(DSNRegressor):
    """Tensor deep stacking network for numbers: two groups of hidden units whose products are the features.

    As `DSNRegressor`, with n_hidden as for `TDSNClassifier`.
    """

    _groups = 2
    _hidden_default = 6
