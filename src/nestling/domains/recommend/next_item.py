"""Next-item recommendation at any width."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Real, Whole, checked
from nestling.arguments.paths import home_path
from nestling.cut import RAW, cut
from nestling.data.interactions.interactions import Interactions
from nestling.domains.recommend.histories import AnyHistories, Histories, Unknown, read_histories
from nestling.domains.recommend.item_vectors import ItemVectors
from nestling.domains.recommend.items import Items
from nestling.domains.recommend.network import MixerName, sequence_network
from nestling.domains.recommend.objective import NextItemLoss, SequenceBatches, only
from nestling.domains.recommend.ranking import Exclude, Scorer
from nestling.domains.recommend.recommendations import Recommendations, best_items
from nestling.domains.recommend.states import UserStates, marks_of
from nestling.elastic import Cost, resolve_each
from nestling.errors import ConfigError, DataError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.nn.inference import evaluating
from nestling.nn.recurrent import SequenceStack
from nestling.nn.recurrent.mixer import Mixed
from nestling.nn.tokens import Tokens
from nestling.storage.artifact import read_folder, write_folder
from nestling.training import TrainConfig, TrainLog, fit
from nestling.vectors.stored import StoredVectors

Model = TypeVar("Model", bound="NextItem")
_KIND = "next_item"
_WEIGHTS, _ITEMS = "model.safetensors", "items.json"


class NextItem(nn.Module):
    """A recommender of the next item, of which every width is a recommender by itself.

    The score of an item is the inner product of its vector with the vector of the user, who is described by
    the items so far. Both at width ``m`` are the leading ``m`` entries of those at full width, and take the
    leading weights of the network alone.

    Args:
        items: the catalogue.
        nesting: sizes on the axis ``width``.
        mixer: of the positions of a history: ``"lru"``, ``"gru"``, ``"mean"`` or ``"last_item"`` (none).
        blocks: number of blocks.
        features: ``"ids"``, a learned vector for each item, and names of features of the catalogue.
        dropout: see :class:`~nestling.nn.recurrent.SequenceBlock`.
        r_min: smallest size of the factors of an LRU at the start.
        r_max: largest.
        seed: of the weights.

    Raises:
        GranularityError: for a nesting on other axes.
        ConfigError: for no features.
        DataError: for features that the catalogue does not have.

    Source: fMRLRec, arXiv 2409.16627; the mixer of LRURec, arXiv 2310.02367.

    >>> shop = Interactions.from_sequences([["tea", "cup", "pot"], ["tea", "cup"]])
    >>> model = NextItem(Items(["tea", "cup", "pot"]), "width=8,16", features=["ids"])
    >>> _ = model.fit(shop, epochs=1)
    >>> model.recommend([["tea", "cup"]], k=1, at="width=8").ids.tolist()
    [['pot']]
    """

    @checked(seed=Whole(0))
    def __init__(
        self,
        items: Items,
        nesting: AnyNesting = "width=8,16,32,64",
        mixer: MixerName = "lru",
        *,
        blocks: int = 1,
        features: Sequence[str] = ("ids", "text"),
        dropout: float = 0.3,
        r_min: float = 0.0,
        r_max: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        needs = ("width",)
        self.nesting = Nesting.of(nesting).within("a next-item model", needs=needs, width=None)
        self.items, sizes = items, self.nesting.sizes("width")
        given = {name: items.feature(name) for name in features if name != "ids"}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = sequence_network(sizes, mixer, blocks, dropout, r_min, r_max)
            self.vectors = ItemVectors(
                len(items),
                sizes,
                ids="ids" in features,
                features={name: x.shape[1] for name, x in given.items()},
            )
        for name, x in given.items():
            self.vectors.set_features(name, torch.from_numpy(x))
        self.eval()

    @checked(
        epochs=Whole(1), batch_size=Whole(1), lr=Real(above=0), negatives=Whole(1) | None, max_length=Whole(1)
    )
    def fit(
        self,
        interactions: Interactions,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        lr: float = 2e-3,
        negatives: int | None = 1024,
        max_length: int = 50,
        weights: Mapping[int, float] | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        **config: Any,
    ) -> TrainLog:
        """Train on the next item at every position of every user, at all widths at once.

        Items without a training event keep their features alone: as they are only ever negatives, training
        would push their learned vectors away from all users.

        Args:
            interactions: training interactions.
            epochs: passes over them.
            batch_size: users in a batch.
            lr: highest learning rate of AdamW.
            negatives: items sampled for the softmax of a batch; None takes all of the catalogue.
            max_length: the last events of a user that are read.
            weights: a factor for the loss of each width; equal ones by default.
            seed: of everything random.
            folder: for checkpoints and the log.
            config: further settings of :class:`~nestling.training.TrainConfig`.

        Raises:
            DataError: for items that the catalogue lacks, or no user with two events.
            ConfigError: for weights of other widths.
        """
        histories = read_histories(interactions, self.items)
        batches = SequenceBatches(
            histories,
            len(self.items),
            batch_size=batch_size,
            negatives=negatives,
            longest=max_length,
            seed=seed,
        )
        if not len(batches):
            raise DataError(
                "no user has two events, so there is no next item to learn; give longer histories"
            )
        self._standardise(histories)
        settings = {"weight_decay": 0.01, "max_grad_norm": 5.0, **config}
        rate = TrainConfig(epochs=epochs, lr=lr, batch_size=1, drop_last=False, seed=seed, **settings)
        self.train()
        try:
            log = fit(self, NextItemLoss(self._weights(weights)), batches, rate, collate=only, folder=folder)
            self.vectors.forget_unseen(torch.from_numpy(np.unique(histories.rows)))
            return log
        finally:
            self.eval()

    def forward(self, histories: AnyHistories, /, at: At = None) -> Tensor:
        """The vectors of users ``Float[users, width]`` at one width, with gradients."""
        g = self.nesting.resolve(at)
        return self.forward_each(histories, (g,))[g]

    def forward_each(
        self, histories: AnyHistories, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """The vectors of users at several widths: prefixes of those at the largest."""
        wanted = resolve_each(self.nesting, granularities)
        found = self._users(read_histories(histories, self.items), max(wanted, key=lambda g: g["width"]))
        return {g: cut(found, g["width"], RAW) for g in wanted}

    def user_vectors(
        self, histories: AnyHistories, at: At = None, *, unknown: Unknown = "error"
    ) -> NDArray[np.float32]:
        """The vectors of users ``Float32[users, width]``.

        Args:
            histories: interactions, or item ids of each user in order.
            at: the width.
            unknown: raise an error for items that the catalogue lacks, or skip them.
        """
        with evaluating(self):
            return self._users(read_histories(histories, self.items, unknown), at).float().cpu().numpy()

    def item_vectors(self, at: At = None) -> NDArray[np.float32]:
        """The vectors of all items ``Float32[items, width]``, in the order of the catalogue."""
        return self.vectors.table(at).float().cpu().numpy()

    def stored_items(self, at: At = None) -> StoredVectors:
        """The vectors of all items with their ids, whose sizes on ``dim`` are the widths.

        ``AdaptiveIndex.create(folder, model.stored_items())`` indexes them; scores are inner products of any
        prefix, without normalisation.
        """
        kept = self.nesting.up_to(self.nesting.resolve(at)).sizes("width")
        return StoredVectors(self.item_vectors(at), Nesting.chain(dim=kept), RAW, ids=self.items.ids)

    def with_items(self, items: Items) -> NextItem:
        """The recommender of a larger catalogue, without training: new items have features alone.

        Args:
            items: those of this model and new ones, with the features that the model projects.

        Raises:
            DataError: if items of this model are missing, or features.
            ConfigError: if the model has no projections of features, such as one that was extracted.
        """
        if not self.vectors.feature_sizes:
            raise ConfigError(
                "the model has no projections of features, which new items need; use the trained model, or "
                "extract(at, keep_features=True)"
            )
        rows, features = items.rows(self.items.ids), {n: items.feature(n) for n in self.vectors.feature_sizes}
        return _assembled(
            NextItem, items, copy.deepcopy(self.network), self.vectors.grown(len(items), rows, features)
        )

    @checked(k=Whole(1), exclude=OneOf(("history",)) | None)
    def recommend(
        self,
        histories: AnyHistories,
        k: int = 10,
        at: At = None,
        *,
        exclude: Exclude = "history",
        allowed: Any = None,
        unknown: Unknown = "error",
    ) -> Recommendations:
        """The best ``k`` items of each user, by exact search.

        Args:
            histories: interactions, or item ids of each user in order.
            k: items for each.
            at: the width.
            exclude: leave out the items of the history; None keeps them.
            allowed: item ids that may be recommended; all by default.
            unknown: raise an error for items that the catalogue lacks, or skip them.

        Raises:
            DataError: if fewer than ``k`` items are left for a user.
        """
        found = read_histories(histories, self.items, unknown)
        table = self.item_vectors(at)
        barred = np.ones(len(self.items), np.bool_)
        barred[slice(None) if allowed is None else self.items.rows(allowed)] = False
        best, scores = np.empty((len(found), k), np.int64), np.empty((len(found), k), np.float32)
        with evaluating(self):
            for users in found.batches():
                of_all = self._users(found, at, users).float().cpu().numpy() @ table.T
                of_all[:, barred] = -np.inf
                if exclude is not None:
                    of_all[
                        np.repeat(np.arange(len(users)), found.lengths[users]), found.rows_of(users)
                    ] = -np.inf
                best[users], scores[users] = best_items(of_all, k, users)
        return Recommendations(self.items.ids[best], scores)

    def scorer(self, at: At = None) -> Scorer:
        """Scores of all items; see :func:`~nestling.domains.recommend.ranking.rank_next_items`."""
        return _At(self, self.nesting.resolve(at))

    def states(self, histories: AnyHistories, at: At = None) -> UserStates:
        """The states of users after their histories, from which :meth:`update` continues."""
        g, found = self.nesting.resolve(at), read_histories(histories, self.items)
        values = torch.empty(len(found), self.network.state_width(g["width"]), dtype=self.network.state_dtype)
        with evaluating(self):
            for users in found.batches():
                values[torch.from_numpy(users)] = self._run(found, g, users).state.cpu()
        return UserStates(values, marks_of(self.network, g))

    def update(self, states: UserStates, items: Any, at: At = None) -> tuple[NDArray[np.float32], UserStates]:
        """The vectors of users after one more event each, and their states; histories are not read again.

        Args:
            states: of :meth:`states` or of the last update, at this width or a larger one.
            items: the id of the new item of each user.
            at: the width.

        Raises:
            DataError: for unknown items, or states of smaller width or of another model.
        """
        g, rows = self.nesting.resolve(at), torch.from_numpy(self.items.rows(items))
        before = states.checked(self.network, g)
        with evaluating(self):
            vectors, after = self.network.step(self.vectors(rows, at=g), before, g)
        marks = {width: mark for width, mark in states.marks.items() if width <= g["width"]}
        return vectors.float().cpu().numpy(), UserStates(after, marks)

    def extract(self, at: At, *, keep_features: bool = False) -> NextItem:
        """The recommender of one width, with the vectors of its items as a table.

        Args:
            at: the width.
            keep_features: keep the projections of features, with which new items can be added.
        """
        g = self.nesting.resolve(at)
        kept = self.vectors.extract(g) if keep_features else self.vectors.baked(g)
        return _assembled(NextItem, self.items, self.network.extract(g), kept).train(self.training)

    def cost(self, at: At = None) -> Cost:
        """The cost of one event, with the network and a table of item vectors in memory."""
        g = self.nesting.resolve(at)
        network, table = self.network.cost(g), len(self.items) * g["width"]
        return network + Cost(0, table, 4 * table, 4 * g["width"])

    def state_bytes(self, at: At = None) -> int:
        """Bytes of the state of one user."""
        return self.network.state_bytes(at)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder. Texts and features of the catalogue stay outside."""
        settings = {"network": self.network.arguments(), "vectors": self.vectors.arguments()}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=RAW, settings=settings) as path:
            state = {name: weight.contiguous().cpu() for name, weight in self.state_dict().items()}
            save_file(state, path / _WEIGHTS)
            (path / _ITEMS).write_text(json.dumps({"ids": self.items.ids.tolist()}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        manifest, path = read_folder(folder, _KIND), home_path(folder)
        items = Items(json.loads((path / _ITEMS).read_text(encoding="utf-8"))["ids"])
        network = SequenceStack.from_arguments(manifest.settings["network"])
        made = _assembled(cls, items, network, ItemVectors.from_arguments(manifest.settings["vectors"]))
        made.load_state_dict(load_file(path / _WEIGHTS), assign=True)
        return made

    def _users(self, histories: Histories, at: At, users: NDArray[np.int64] | None = None) -> Tensor:
        """The output at the last event of each user."""
        if users is not None:
            return self._last(histories, at, users)
        batches = list(histories.batches())
        found = torch.cat([self._last(histories, at, batch) for batch in batches])
        return found[torch.from_numpy(np.argsort(np.concatenate(batches)))]

    def _last(self, histories: Histories, at: At, users: NDArray[np.int64]) -> Tensor:
        tokens = self._run(histories, at, users).tokens
        return tokens.values[torch.arange(len(users)), tokens.lengths() - 1]

    def _run(self, histories: Histories, at: At, users: NDArray[np.int64]) -> Mixed:
        rows, mask = histories.padded(users)
        return self.network.run(Tokens(self.vectors(rows, at=at), mask), at=at)

    def _standardise(self, histories: Histories) -> None:
        """Centre and scale features by the items that training sees."""
        seen = torch.from_numpy(np.unique(histories.rows))
        for name in self.vectors.feature_sizes:
            if name in self.items.features:
                self.vectors.set_features(name, torch.from_numpy(self.items.feature(name)), seen)

    def _weights(self, given: Mapping[int, float] | None) -> list[float]:
        sizes = self.nesting.sizes("width")
        if given is None:
            return [1 / len(sizes)] * len(sizes)
        if set(given) != set(sizes):
            raise ConfigError(
                f"weights= must give a factor for each width of {self.nesting}, not {dict(given)}"
            )
        return [float(given[size]) for size in sizes]


class _At:
    """A model at one width, as a scorer."""

    def __init__(self, model: NextItem, at: Granularity) -> None:
        self.model, self.at, self.table = model, at, model.item_vectors(at)

    def scores(self, histories: Interactions, rows: slice) -> NDArray[np.floating]:
        """See :class:`~nestling.domains.recommend.ranking.Scorer`."""
        asked = np.zeros(histories.users, np.int64)
        asked[rows] = histories.lengths[rows]
        return self.model.user_vectors(histories.first(asked), self.at) @ self.table.T


def _assembled(kind: type[Model], items: Items, network: SequenceStack, vectors: ItemVectors) -> Model:
    """A model of parts that exist."""
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.nesting, made.items, made.network, made.vectors = network.nesting, items, network, vectors
    return made.eval()
