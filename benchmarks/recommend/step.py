"""Time and memory of training all widths beside the full one alone, and of one event beside a history.

Made interactions of 12,000 items, batches of 128 users with 9 events on average, 1,024 sampled negatives,
widths 8, 16, 32 and 64, learned vectors and features of 384 entries. Serving updates the states of users by
one event each; the other way reads all 200 events of their histories again.

Run: python benchmarks/recommend/step.py   (one thread; the seconds are those of the processor)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling.data.interactions import Interactions
from nestling.domains.recommend import Items, NextItem
from nestling.domains.recommend.histories import read_histories
from nestling.domains.recommend.objective import Batch, NextItemLoss, SequenceBatches
from record import Ratios, apart, arguments, grown_megabytes, in_turn, parsed, ratio

FEATURES, HISTORY = 384, 200
WIDTHS = {"all widths": "width=8,16,32,64", "full width alone": "width=64"}
NESTED, ALONE = WIDTHS


def shop(items: int, users: int) -> tuple[Items, Interactions]:
    random = np.random.default_rng(0)
    lengths = 5 + random.geometric(0.2, users)
    popular = random.zipf(1.2, (int(lengths.sum()) * 4,))
    events = iter(popular[popular <= items] - 1)
    histories = [[int(next(events)) for _ in range(length)] for length in lengths]
    features = random.normal(size=(items, FEATURES)).astype(np.float32)
    return Items(np.arange(items), features={"text": features}), Interactions.from_sequences(histories)


def setting(nesting: str, items: int) -> tuple[NextItem, Batch]:
    catalogue, interactions = shop(items, 128)
    model = NextItem(catalogue, nesting).train()
    histories = read_histories(interactions, catalogue)
    torch.manual_seed(0)
    batches = SequenceBatches(
        histories, items, batch_size=128, negatives=min(1024, items // 2), longest=50, seed=0
    )
    return model, batches[0]


def step_of(model: NextItem, batch: Batch) -> Callable[[], None]:
    """Forward, backward and update, as training does them."""
    widths = len(model.nesting)
    loss = NextItemLoss([1 / widths] * widths)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model, batch).total.backward()
        optimizer.step()

    return step


def memory(nesting: str, items: int) -> float:
    torch.set_num_threads(1)
    step_of(*setting("width=8", 64))()  # what the libraries allocate at first use
    step = step_of(*setting(nesting, items))
    return grown_megabytes(lambda: [step() for _ in range(3)])


def add_training(found: Ratios, items: int, rounds: int) -> None:
    steps = {name: step_of(*setting(nesting, items)) for name, nesting in WIDTHS.items()}
    seconds = in_turn(steps, rounds, warmup=3, clock=time.process_time)
    found.add(f"step time, {NESTED} over {ALONE}", ratio(seconds, NESTED, ALONE), at_most=1.3)
    print("  " + ", ".join(f"{name} {min(each) * 1e3:.0f} ms" for name, each in seconds.items()))
    peaks = {name: [apart(memory, nesting, items) for _ in range(3)] for name, nesting in WIDTHS.items()}
    found.add(f"memory of training, {NESTED} over {ALONE}", ratio(peaks, NESTED, ALONE), at_most=1.3)
    print("  " + ", ".join(f"{name} {min(each):.0f} MB" for name, each in peaks.items()))


def add_serving(found: Ratios, items: int, rounds: int) -> None:
    model, _ = setting(WIDTHS[NESTED], items)
    model.eval()
    for users, target in ((1, None), (256, 1 / 20)):
        histories = np.random.default_rng(1).integers(0, items, (users, HISTORY)).tolist()
        states, last = model.states([each[:-1] for each in histories]), [each[-1] for each in histories]
        one, whole = "one event", "the whole history"
        ways = {
            one: partial(model.update, states, last),
            whole: partial(model.user_vectors, histories),
        }
        seconds = in_turn(ways, rounds, warmup=3, clock=time.process_time)
        what = f"serving {users} users, one event over a history of {HISTORY}"
        found.add(what, ratio(seconds, one, whole), at_most=target)
        print("  " + ", ".join(f"{name} {min(each) * 1e3:.2f} ms" for name, each in seconds.items()))


def main() -> None:
    given = parsed(arguments(__doc__, rounds=15))
    torch.set_num_threads(1)
    items = 1000 if given.quick else 12_000
    found = Ratios("recommend_step", given.output, digits=3)
    add_training(found, items, given.rounds)
    add_serving(found, items, given.rounds)


if __name__ == "__main__":
    main()
