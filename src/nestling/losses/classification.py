"""Cross-entropy of a classifier over nested prefixes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.errors import DataError
from nestling.losses.prefix import PrefixLosses, prefix_softmax_losses
from nestling.losses.shapes import check_columns
from nestling.nn.heads import NestedClassifier


class CrossEntropy(nn.Module):
    """Softmax cross-entropy of a classification head, whose weights are trained with the loss.

    Args:
        head: computes logits at every size; the width of the features selects the size.
        label_smoothing: share of the target spread evenly over all classes, 0 to 1.

    Raises:
        ConfigError: for a smoothing outside 0 to 1.
        DataError: for labels that are no integers or lie outside the classes.

    Source: MRL, arXiv 2205.13147, equation 1.
    """

    @checked(label_smoothing=Real(least=0, most=1))
    def __init__(self, head: NestedClassifier, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.head, self.label_smoothing = head, label_smoothing

    def forward(self, features: Tensor, *, labels: Tensor) -> Tensor:
        """Loss of ``Float[batch, dim]`` at the size dim, with ``labels``: ``Int[batch]``."""
        self._check_labels(features, labels)
        logits = self.head(features, at=features.shape[-1])
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def prefix_losses(
        self, features: Tensor, *, labels: Tensor, dims: Sequence[int], weights: Sequence[float]
    ) -> PrefixLosses | None:
        """The losses of all sizes in one pass, where all share one matrix (MRL-E)."""
        if not self.head.tied:
            return None
        self._check_labels(features, labels)
        linear = self.head.linear()
        return prefix_softmax_losses(
            features,
            linear.weight,
            labels,
            dims,
            weights,
            cosine=False,
            bias=linear.bias,
            smoothing=self.label_smoothing,
        )

    def _check_labels(self, features: Tensor, labels: Tensor) -> None:
        check_columns("features", features)
        if labels.is_floating_point() or labels.shape != features.shape[:1]:
            raise DataError(
                f"labels must be one integer for each of the {len(features)} rows, "
                f"not {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if labels.device.type == "cpu" and not (
            0 <= int(labels.min()) <= int(labels.max()) < self.head.num_classes
        ):
            raise DataError(
                f"labels must lie in 0 to {self.head.num_classes - 1}, the classes of the head, "
                f"not {int(labels.min())} to {int(labels.max())}"
            )
