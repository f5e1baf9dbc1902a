"""``nestling index tune``: the plan of an index measured again."""

from __future__ import annotations

from nestling.cli.flags.generated import with_groups
from nestling.cli.flags.options import AsJson, Folder, Wait
from nestling.cli.flags.tables import check_are_vectors, open_queries
from nestling.cli.flags.targets import Targets
from nestling.cli.index.folder import is_collection, show_frontier, writable


@with_groups
def tune(
    folder: Folder,
    targets: Targets,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the plan of an index again, at many points.

    The results are kept in the index, for search --recall.

    Example: nestling index tune my-index --recall 0.99
    """
    from nestling.search.tuning.planner import retune

    targets.check()
    asked = open_queries(targets.queries)
    if isinstance(asked, tuple) and is_collection(folder):
        from nestling.encoders.text.opening import open_encoder

        asked = open_encoder(folder / "encoder").encode(list(asked))
    check_are_vectors(asked, targets.queries)
    with writable(folder, wait=wait) as opened:
        chosen, frontier = retune(opened, queries=asked, **targets.limits)
    show_frontier(chosen, frontier, targets.k, as_json)
