"""A next-item model: the laws, learning, sampled softmax, recommending, states, files, refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nestling.data import Interactions, leave_one_out
from nestling.domains.recommend import Items, NextItem, Popularity, evaluate, rank_next_items
from nestling.domains.recommend.histories import read_histories
from nestling.domains.recommend.item_vectors import ItemVectors
from nestling.domains.recommend.objective import NextItemLoss, SequenceBatches
from nestling.domains.recommend.states import UserStates
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.search import AdaptiveIndex
from nestling.testing import check_elastic

TOPICS, EACH = 4, 12


def shop(users: int = 200, seed: int = 0) -> tuple[Items, Interactions]:
    """Users who stay in one topic, and items whose features say their topic."""
    random = np.random.default_rng(seed)
    names = np.array([f"item {number}" for number in range(TOPICS * EACH)])
    topics = np.arange(TOPICS * EACH) // EACH
    features = np.eye(TOPICS)[topics] + 0.1 * random.normal(size=(len(names), TOPICS))
    histories = []
    for user in range(users):
        of_topic = np.flatnonzero(topics == user % TOPICS)
        histories.append(names[random.permutation(of_topic)[: random.integers(3, 8)]].tolist())
    return Items(names, features={"text": features}), Interactions.from_sequences(histories)


def model(mixer: Any = "lru", **settings: Any) -> NextItem:
    settings = {"features": ["ids", "text"], "dropout": 0.0, **settings}
    return NextItem(shop()[0], "width=4,8,16", mixer, **settings)


HISTORIES = [["item 3"], ["item 40", "item 2", "item 11"], ["item 5", "item 6"]]


@pytest.mark.parametrize("mixer", ["lru", "gru", "mean", "last_item"])
def test_the_laws(mixer: str) -> None:
    check_elastic(model(mixer, blocks=2), HISTORIES)


def test_the_laws_of_item_vectors() -> None:
    torch.manual_seed(0)
    vectors = ItemVectors(9, [4, 8], features={"text": 3, "picture": 5})
    vectors.set_features("text", torch.randn(9, 3))
    check_elastic(vectors, torch.tensor([[3, 8], [0, 3]]))


@pytest.fixture(scope="module")
def trained() -> NextItem:
    items, interactions = shop()
    made = NextItem(items, "width=4,8,16", features=["ids", "text"], seed=1)
    made.fit(leave_one_out(interactions).train, epochs=20, batch_size=32, lr=0.01, negatives=20)
    return made


def test_every_width_learns_what_topic_a_user_is_in(trained: NextItem) -> None:
    items, interactions = shop()
    split = leave_one_out(interactions)
    popular = rank_next_items(Popularity(items, split.train), split.test, items)["history"]
    for at in trained.nesting:
        ranks = rank_next_items(trained.scorer(at), split.test, items)["history"]
        assert ranks.mean("Recall@10") > 0.8  # 12 items of a topic, less the history
        assert ranks.mean("Recall@10") > 2 * popular.mean("Recall@10")


def test_an_evaluation_names_the_best_and_says_whether_training_pays(trained: NextItem) -> None:
    _, interactions = shop()
    split = leave_one_out(interactions)
    found = evaluate(trained, split)
    assert list(found.ranks)[:2] == ["popularity", "next counts"]
    assert list(found.ranks)[-3:] == ["width=4", "width=8", "width=16"]
    value, low, high = found.difference("width=16", "popularity")
    assert 0 < low < value < high
    means = [found.ranks[name]["history"].mean("NDCG@10") for name in ("width=16", "popularity")]
    assert value == pytest.approx(means[0] - means[1])
    first, _, second = found.table().partition("\n\n")
    assert re.match(
        r"The model at width=\d+ (beats|is as good as|loses to) the best untrained baseline", first
    )
    assert "history kept" in second
    assert "200 users, leave one out" in second
    with pytest.raises(ConfigError, match="unknown name"):
        found.difference("width=16", "random")


def test_the_same_seed_gives_the_same_weights() -> None:
    items, interactions = shop(40)
    made = [NextItem(items, "width=4,8", features=["ids"], seed=3) for _ in range(2)]
    before = torch.random.get_rng_state()
    for each in made:
        each.fit(interactions, epochs=1, batch_size=8, negatives=10, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(torch.from_numpy(made[0].item_vectors()), torch.from_numpy(made[1].item_vectors()))
    assert not made[0].training


def test_small_recommenders_recommend_the_same(trained: NextItem, tmp_path: Path) -> None:
    small = trained.extract("width=8")
    trained.save(tmp_path / "model")
    loaded = NextItem.load(tmp_path / "model")
    wanted = trained.recommend(HISTORIES, k=5, at=8)
    for other in (small.recommend(HISTORIES, k=5), loaded.recommend(HISTORIES, k=5, at=8)):
        assert other.ids.tolist() == wanted.ids.tolist()
        np.testing.assert_allclose(other.scores, wanted.scores, rtol=1e-5)
    assert small.vectors.feature_sizes == {}
    assert trained.extract(8, keep_features=True).vectors.feature_sizes == {"text": TOPICS}
    assert small.cost().parameters == small.network.cost().parameters + 8 * len(small.items)


def test_recommendations_are_the_best_scores(trained: NextItem) -> None:
    scores = trained.user_vectors(HISTORIES) @ trained.item_vectors().T
    ids = trained.items.ids
    found = trained.recommend(HISTORIES, k=6)
    for user, history in enumerate(HISTORIES):
        ranked = [name for name in ids[np.argsort(-scores[user])].tolist() if name not in history]
        assert found.ids[user].tolist() == ranked[:6]
    some = ["item 1", "item 3", "item 30"]
    kept = trained.recommend([["item 3"]], k=3, exclude=None, allowed=some)
    assert set(kept.ids[0].tolist()) == set(some)
    assert "item 3" not in trained.recommend([["item 3"]], k=2, allowed=some).ids[0].tolist()


def test_items_in_an_index_are_found_by_user_vectors(trained: NextItem, tmp_path: Path) -> None:
    index = AdaptiveIndex.create(tmp_path / "index", trained.stored_items())
    for at in (8, 16):
        found = index.search(trained.user_vectors(HISTORIES, at), k=5, at=at)
        wanted = trained.recommend(HISTORIES, k=5, at=at, exclude=None)
        assert found.ids.tolist() == wanted.ids.tolist()
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-4)


def test_new_items_are_recommended_by_their_features(trained: NextItem) -> None:
    items = trained.items
    text = items.features["text"]
    larger = Items(["new", *items.ids.tolist()], features={"text": np.concatenate([text[40:41], text])})
    grown = trained.with_items(larger)
    np.testing.assert_allclose(grown.item_vectors()[1:], trained.item_vectors(), rtol=1e-5, atol=1e-6)
    topic = [f"item {number}" for number in range(36, 40)]
    scores = grown.user_vectors([topic]) @ grown.item_vectors().T
    assert (scores[0] > scores[0, 0]).sum() < 2 * EACH  # among the first half, without any event
    with pytest.raises(DataError, match="no item 'item 0'"):
        trained.with_items(Items(["new"], features={"text": text[:1]}))
    with pytest.raises(ConfigError, match="no projections of features"):
        trained.extract(8).with_items(larger)


def test_items_that_training_never_saw_have_features_alone() -> None:
    items, _ = shop()
    made = NextItem(items, "width=4,8")
    made.fit(Interactions.from_sequences([["item 1", "item 2"], ["item 2", "item 3"]]), epochs=1)
    ids = made.vectors.ids
    assert ids is not None
    used = ids.weight.detach().abs().sum(dim=1) > 0
    assert torch.nonzero(used).flatten().tolist() == [1, 2, 3]


def test_users_of_any_length_share_no_padding(trained: NextItem) -> None:
    together = trained.user_vectors(HISTORIES)
    alone = np.concatenate([trained.user_vectors([history]) for history in HISTORIES])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", [8, 16])
@pytest.mark.parametrize("mixer", ["lru", "gru", "mean"])
def test_a_state_that_is_updated_gives_the_vectors_of_the_whole_history(mixer: str, at: int) -> None:
    """From a state of full width, at any width; the state of the LRU is complex64."""
    made = model(mixer, blocks=2)
    states = made.states([history[:1] for history in HISTORIES])
    assert made.state_bytes() == states.values[:1].nbytes
    small = made.extract(at)
    for number, history in enumerate(HISTORIES[1:], start=1):
        state = UserStates(states.values[number : number + 1], states.marks)
        for item in history[1:]:
            by_small, _ = small.update(state, [item])
            vectors, state = made.update(state, [item], at=at)
            np.testing.assert_allclose(by_small, vectors, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(vectors, made.user_vectors([history], at), rtol=1e-5, atol=1e-5)


def test_states_belong_to_the_weights_that_made_them() -> None:
    made = model()
    states = made.states([["item 1"]], at=8)
    with pytest.raises(DataError, match="hold the widths 4, 8, and width 16 is asked for"):
        made.update(states, ["item 2"])
    with pytest.raises(DataError, match="other weights"):
        model(seed=1).update(states, ["item 2"], at=8)


def test_sampled_softmax_estimates_the_full_one() -> None:
    """The mean of many samples of the sum over items is the sum over all items."""
    items, interactions = shop(16)
    histories = read_histories(interactions, items)
    settings: dict[str, Any] = {"batch_size": 16, "longest": 5, "seed": 0}
    full = SequenceBatches(histories, len(items), negatives=None, **settings)
    sampled = SequenceBatches(histories, len(items), negatives=8, **settings)
    scores = torch.randn(len(items), generator=torch.Generator().manual_seed(0)).double().exp()
    torch.manual_seed(0)

    def total(batches: SequenceBatches) -> float:
        batch = batches[0]
        return float((scores[batch["rows"][batch["columns"]]] * batch["bias"].double().exp()).sum())

    assert total(full) == pytest.approx(float(scores.sum()), rel=1e-6)
    totals = [total(sampled) for _ in range(2000)]
    # Four standard errors of the mean.
    assert abs(np.mean(totals) - float(scores.sum())) < 4 * np.std(totals) / 2000**0.5


def test_the_loss_is_that_of_each_width_by_itself() -> None:
    items, interactions = shop(30)
    made = model()
    batch = SequenceBatches(
        read_histories(interactions, items), len(items), batch_size=30, negatives=None, longest=50, seed=0
    )[0]
    found = NextItemLoss([1 / 3] * 3)(made, batch)
    table = made.vectors.table()
    losses = []
    for width in (4, 8, 16):
        small = made.extract(width)
        singles = []
        for history in interactions.histories():
            rows = torch.from_numpy(items.rows(history))
            outputs = small.network(small.vectors(rows[:-1])[None]).values[0]
            singles.append(
                torch.nn.functional.cross_entropy(outputs @ table[:, :width].T, rows[1:], reduction="none")
            )
        losses.append(torch.cat(singles).mean())
    torch.testing.assert_close(
        torch.stack(list(found.losses.values())), torch.stack(losses), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found.total, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


def test_batches_hold_every_user_once_and_predict_nothing_from_padding() -> None:
    items, interactions = shop(50)
    histories = read_histories(interactions, items)
    batches = SequenceBatches(histories, len(items), batch_size=8, negatives=5, longest=4, seed=0)
    positions = sum(len(batches[number]["targets"]) for number in range(len(batches)))
    assert positions == np.minimum(histories.lengths - 1, 4).sum()


def test_bad_input_is_refused(trained: NextItem) -> None:
    items, interactions = shop(5)
    for use in (trained.user_vectors, trained.recommend, trained):
        with pytest.raises(DataError, match="no item 'tea'"):
            use([["tea"]])
    with pytest.raises(DataError, match="row 1 have no known item"):
        trained.recommend([["item 1"], ["tea"]], unknown="skip")
    assert len(trained.recommend([["tea", "item 1"]], unknown="skip").ids) == 1
    with pytest.raises(DataError, match="row 0 have no known item"):
        trained.user_vectors([[]])
    with pytest.raises(DataError, match="48 items are asked for, but 47 are left"):
        trained.recommend([["item 1"]], k=48)
    with pytest.raises(GranularityError, match="nearest"):
        trained.recommend(HISTORIES, at=7)
    with pytest.raises(GranularityError, match="the axis width"):
        NextItem(items, "dim=8,16")
    with pytest.raises(ConfigError, match="one of lru, gru"):
        NextItem(items, mixer="lstm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neither ids nor features"):
        NextItem(items, features=[])
    with pytest.raises(DataError, match="unknown feature 'picture'"):
        NextItem(items, features=["picture"])
    with pytest.raises(ConfigError, match="factor for each width"):
        trained.fit(interactions, weights={4: 1.0})
    with pytest.raises(DataError, match="no user has two events"):
        trained.fit(Interactions.from_sequences([["item 1"]]))
