"""Writes the golden files: everything that nestling saves, as one version wrote it, with its answers.

    python tests/golden/write.py

The files are not written again when a format changes: they show that what was written before is still
read. A new kind of file gets a line here and is written by `python tests/golden/write.py NAME`.
"""

from __future__ import annotations

import json
import shutil
import string
import sys
from tempfile import TemporaryDirectory

import numpy as np
from test_golden import ANSWERS, DIM, FILES, QUESTIONS, answer

from nestling.cut import CutRule
from nestling.search.index.files import segments
from nestling.search.index.index import AdaptiveIndex

ROWS = 160
PLANS = {
    "flat": "flat@full",
    "fp16": "fp16@full",
    "int8": "int8@4 > rerank@full",
    "int4": "int4@full > rerank:int8@full",
    "pq": "pq4x4@full > rerank@full",
    "opq": "opq4x4@full > rerank@full",
    "ivf": "ivf4@4 > int8@4 > rerank@full",
    "hnsw": "hnsw8@full > flat@full",
    "rabitq": "rabitq@full > rerank:fp16@full",
    "graph": "graph8@full > rerank:int8@full > rerank@full",
    "certified": "int4@full > certify@full",
}
WORDS = ("red", "green", "blue", "a")


def vectors(rows=ROWS, seed=0):
    """Rows whose early entries say most, as nested encoders make them."""
    values = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (values / np.sqrt(np.arange(1, DIM + 1))).astype(np.float32)


def fields(rows):
    return {
        "year": [2000 + row % 25 for row in range(rows)],
        "price": [row / 4 if row % 7 else None for row in range(rows)],
        "new": [row % 2 == 0 for row in range(rows)],
        "colour": [WORDS[row % len(WORDS)] for row in range(rows)],
    }


def write_plan(name, folder):
    metric = "euclidean" if name == "ivf" else "dot"
    rule = CutRule("none", "none") if name == "ivf" else None
    names = [f"row {row}" for row in range(ROWS)] if name == "int8" else None
    AdaptiveIndex.create(
        folder,
        vectors(),
        names,
        plan=PLANS[name],
        nesting=(4, DIM) if name in ("flat", "int8", "fp16", "int4") else (DIM,),
        metric=metric,
        rule=rule,
        encoder="golden",
        fields=fields(ROWS) if name == "int8" else None,
    ).close()


def write_changed(folder):
    """Rows added, replaced and deleted that are in the log only."""
    ids = [f"row {row}" for row in range(ROWS)]
    with AdaptiveIndex.create(folder, vectors(), ids, plan=PLANS["int8"], fields=fields(ROWS)) as index:
        index.add(vectors(5, 1), [f"new {row}" for row in range(5)], fields(5))
        index.update(vectors(2, 2), ["row 3", "row 9"])
        index.update(None, ["row 4"], {"price": [99.5]})
        index.delete(["row 1", "row 2", "new 0"])


def write_compacted(folder):
    """Several segments, deleted rows, then one segment, a log after it, and measured points."""
    with AdaptiveIndex.create(folder, vectors(), plan=PLANS["pq"]) as index:
        index.add(vectors(20, 1))
        index.delete(range(10))
        index.flush()
        index.compact()
        index.add(vectors(3, 2))
        trial = {"plan": PLANS["pq"], "point": "shortlist=40", "rows": ROWS, "recall": 0.99, "low": 0.98}
        trial |= {"high": 1.0, "latency_ms": 0.1, "qps": 1e4, "row_bytes": 2.0, "build_s": 0.5}
        index.write_table([trial], k=3, reason="it was written by hand")


def write_segments(folder):
    """Two segments with deleted rows in files of their own."""
    with AdaptiveIndex.create(folder, vectors(), plan=PLANS["flat"]) as index:
        index.add(vectors(3, 1))
        index.delete([5, 6, 161])
        index.flush()


def write_static(folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(string.ascii_lowercase)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = vectors(len(string.ascii_lowercase), 3)
    modules = [StaticEmbedding(tokenizer, embedding_weights=table), Normalize()]
    opened(SentenceTransformer(modules=modules, device="cpu"), folder)


def opened(model, folder):
    """A model of sentence-transformers, saved by nestling."""
    from nestling.encoders.text.opening import open_encoder

    with TemporaryDirectory() as scratch:
        model.save(scratch)
        open_encoder(scratch, nesting=(4, DIM)).save(folder)


def write_text(folder):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
        )
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, **dict(zip(names, special, strict=True))
    )
    with TemporaryDirectory() as scratch:
        fast.save_pretrained(scratch)
        model.save_pretrained(scratch)
        transformer = Transformer(scratch)
        opened(SentenceTransformer(modules=[transformer, Pooling(DIM, "mean")], device="cpu"), folder)


def write_pca(folder):
    from nestling.encoders.maps.pca import PCARotation

    PCARotation((4, DIM)).fit(vectors()).save(folder)


def write_adapter(folder):
    from nestling.encoders.maps.adapter import NestedAdapter

    NestedAdapter((4, DIM), hidden=4, epochs=1).fit(vectors()).save(folder)


def write_collection(folder):
    from nestling.domains.text.collection import Collection
    from nestling.encoders.text.opening import open_encoder

    texts = ["a red cat", "the green dog", "blue sky", "one more text"]
    table = {"year": [2001, 2002, 2003, 2004]}
    encoder = open_encoder(FILES / "static")
    with Collection.create(folder, encoder, texts, ["cat", "dog", "sky", "more"], fields=table) as made:
        made.add(["a late text"], ["late"], fields={"year": [2005]})
        made.delete(["more"])


def write_vectors(folder):
    from nestling.vectors.stored import StoredVectors

    StoredVectors(
        vectors(12),
        (4, DIM),
        ids=[f"row {row}" for row in range(12)],
        encoder="golden",
        fields=fields(12),
        columns={"id": "name"},
    ).save(folder)


def write_npy(path):
    np.save(path, vectors(12).astype(np.float16))


def write_parquet(path):
    import pyarrow
    import pyarrow.parquet

    columns = {"id": [f"row {row}" for row in range(12)], "vector": vectors(12).tolist(), **fields(12)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_curve(path):
    from nestling.measure import Retrieval, sweep
    from nestling.vectors.stored import StoredVectors

    relevant = [[(query + 1) % 40, (query + 2) % 40] for query in range(8)]
    task = Retrieval(np.arange(8), np.arange(40), relevant)
    sweep(StoredVectors(vectors(40), (4, DIM)), task, bits=32).save(path)


def write_rdms(folder):
    from nestling.compare import rdm

    rdm(vectors(6), metric="euclidean").save(folder)


def write_frontier(path):
    from nestling.search.plan.frontier import Frontier, Trial
    from nestling.search.plan.plan import Plan, Point

    trials = (
        Trial(Plan.parse("flat@full"), Point(), 160, 1.0, 1.0, 1.0, 0.2, 9e3, 32.0, 0.0),
        Trial(Plan.parse(PLANS["int8"]), Point(shortlists=(20,)), 160, 0.97, 0.96, 0.98, 0.1, 2e4, 4.0, 0.1),
    )
    Frontier(trials, 10, 8, True, 1.5, "it was written by hand").save(path)


def write_train_plan(path):
    from nestling.domains.text.train_plan import TrainPlan

    path.write_text(TrainPlan().to_toml())


WRITERS = {
    **{f"index-{name}": (lambda folder, name=name: write_plan(name, folder)) for name in PLANS},
    "index-changed": write_changed,
    "index-compacted": write_compacted,
    "index-segments": write_segments,
    "static": write_static,
    "text": write_text,
    "pca": write_pca,
    "adapter": write_adapter,
    "collection": write_collection,
    "vectors": write_vectors,
    "vectors.npy": write_npy,
    "vectors.parquet": write_parquet,
    "curve.json": write_curve,
    "rdms": write_rdms,
    "frontier.json": write_frontier,
    "train.toml": write_train_plan,
}


def main(names):
    # Small segments are scanned without an engine of the plan; here they get one, so that files stay small.
    segments._FEWEST_PLANNED, segments._ROWS_PER_CENTROID = 1, 1
    FILES.mkdir(exist_ok=True)
    np.save(QUESTIONS, vectors(6, 7))
    known = json.loads(ANSWERS.read_text()) if names and ANSWERS.exists() else {}
    for name in names or WRITERS:
        path = FILES / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        WRITERS[name](path)
        known[name] = answer(path)
    ANSWERS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
