"""Old paths of moved modules: they work for one minor version, with a deprecation warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Documented paths of 0.1, and some that came after it; they end with 0.3.
MOVED = {
    "arrays": "arguments.arrays",
    "artifact": "storage.artifact",
    "cli.talk": "cli.terminal.output",
    "compare.adaptive": "compare.similarity.adaptive",
    "compare.bars": "compare.pictures.bars",
    "compare.bootstrap": "compare.inference.bootstrap",
    "compare.centroids": "compare.similarity.centroids",
    "compare.comparators": "compare.similarity.comparators",
    "compare.crossvalidation": "compare.rdms.estimation.crossvalidation",
    "compare.design": "compare.rdms.estimation.design",
    "compare.estimators": "compare.rdms.estimation.estimators",
    "compare.evaluation": "compare.inference.evaluation",
    "compare.files": "compare.rdms.files",
    "compare.foreign": "compare.rdms.conversion_functions",
    "compare.geodesic": "compare.transforms.geodesic",
    "compare.identify": "compare.inference.identification",
    "compare.labels": "compare.rdms.labels",
    "compare.layers": "compare.similarity.layers",
    "compare.moments": "compare.similarity.moments",
    "compare.noise": "compare.rdms.estimation.noise",
    "compare.noise_ceiling": "compare.inference.ceiling",
    "compare.pairs": "compare.rdms.pairs",
    "compare.pairwise": "compare.inference.pairwise",
    "compare.patterns": "compare.similarity.cka_procrustes",
    "compare.plot": "compare.pictures.maps",
    "compare.prefixes": "compare.rdms.prefixes",
    "compare.products": "compare.rdms.estimation.products",
    "compare.rdm": "compare.rdms.from_patterns",
    "compare.rdms.estimators": "compare.rdms.estimation.estimators",
    "compare.rdms.foreign": "compare.rdms.conversion_functions",
    "compare.rdms.noise": "compare.rdms.estimation.noise",
    "compare.significance": "compare.inference.significance",
    "compare.similarity.patterns": "compare.similarity.cka_procrustes",
    "compare.subjects": "compare.rdms.subjects",
    "compare.threshold_search": "compare.inference.threshold_search",
    "compare.thresholds": "compare.transforms.thresholds",
    "compare.topology": "compare.transforms.topology",
    "compare.transformer": "compare.transforms.transformer",
    "data.arrow": "data.tables.fields.arrow",
    "data.beir": "data.sets.beir",
    "data.catalogue": "data.sets.catalogue",
    "data.column_survey": "data.tables.survey",
    "data.columns": "data.tables.fields.columns",
    "data.delimited": "data.tables.delimited",
    "data.description": "data.tables.description",
    "data.dissimilarities": "data.sets.dissimilarities",
    "data.docstrings": "data.sets.docstrings",
    "data.field_lists": "data.tables.fields.lists",
    "data.fields": "data.tables.fields.kinds",
    "data.images": "data.sets.images",
    "data.input_file": "data.tables.input_file",
    "data.retrieval_sets": "data.sets.retrieval_sets",
    "data.roles": "data.tables.roles",
    "data.source": "data.sets.source",
    "data.sts": "data.sets.sts",
    "data.table": "data.tables.table",
    "data.table_ids": "data.tables.table_ids",
    "data.tables.columns": "data.tables.fields.columns",
    "data.text_checks": "data.tables.text_checks",
    "data.times": "data.tables.fields.times",
    "data.words": "data.tables.fields.words",
    "domains.collection": "domains.text.collection",
    "domains.encoding": "domains.text.encoding",
    "domains.pair_objective": "domains.text.pairs",
    "domains.planned_loss": "domains.text.loss",
    "domains.pretraining": "domains.text.pretraining",
    "domains.similarity": "domains.text.similarity",
    "domains.text.plan": "domains.text.train_plan",
    "encoders.adapter": "encoders.maps.adapter",
    "encoders.adapter_examples": "encoders.maps.examples",
    "encoders.adapter_training": "encoders.maps.training",
    "encoders.depth": "encoders.text.depth",
    "encoders.export": "encoders.text.export",
    "encoders.fit_report": "encoders.maps.fit_report",
    "encoders.held_out": "encoders.maps.held_out",
    "encoders.inference": "nn.inference",
    "encoders.mapped_text": "encoders.text.mapped",
    "encoders.matrix": "vectors.matrix",
    "encoders.opening": "encoders.text.opening",
    "encoders.origin": "encoders.text.origin",
    "encoders.pca": "encoders.maps.pca",
    "encoders.pretrained": "encoders.text.pretrained",
    "encoders.serving": "encoders.text.serving_compatibility",
    "encoders.static": "encoders.text.static.encoder",
    "encoders.static_folder": "encoders.text.static.folder",
    "encoders.static_layers": "encoders.text.static.layers",
    "encoders.stored": "vectors.stored",
    "encoders.text.serving": "encoders.text.serving_compatibility",
    "encoders.text_inputs": "encoders.text.preparation",
    "encoders.vector_files": "vectors.files",
    "encoders.vector_map": "encoders.maps.vector_map",
    "encoders.vector_parquet": "vectors.parquet",
    "encoders.vectors": "encoders.maps",
    "encoders.worker": "encoders.text.workers.worker",
    "encoders.workers": "encoders.text.workers.pool",
    "extras": "process.extras",
    "forks": "process.forks",
    "ids": "arguments.ids",
    "interrupts": "process.interrupts",
    "kernels.layout": "kernels.scans.layout",
    "kernels.walking": "kernels.graph",
    "kinds": "storage.kinds",
    "measure.choice": "measure.curve.choice",
    "measure.classification": "measure.tasks.classification",
    "measure.curve_file": "measure.curve.file",
    "measure.fidelity": "measure.tasks.fidelity",
    "measure.grid": "measure.curve.grid",
    "measure.headline": "measure.curve.summary",
    "measure.identity": "measure.curve.provenance",
    "measure.lines": "measure.curve.pictures.lines",
    "measure.metrics": "measure.tasks.metrics",
    "measure.pair_scores": "measure.tasks.pair_scores",
    "measure.plot": "measure.curve.pictures.plot",
    "measure.qrels": "measure.tasks.qrels",
    "measure.report": "measure.curve.pictures.report",
    "measure.retrieval": "measure.tasks.retrieval",
    "measure.runs": "measure.curve.runs",
    "measure.scores": "measure.tasks.scores",
    "measure.svg": "measure.curve.pictures.svg",
    "measure.table": "measure.curve.table",
    "nn.layers": "nn.early_exit",
    "owner": "storage.owner",
    "papers.adanns_data": "papers.problems.search_texts",
    "papers.adanns_study": "papers.claims.indexes",
    "papers.checks": "papers.claims.checks",
    "papers.layer_retrieval": "papers.claims.layer_retrieval",
    "papers.layer_search": "papers.starbucks",
    "papers.layer_study": "papers.claims.layer_study",
    "papers.layer_tour": "papers.claims.layer_study",
    "papers.mrl_data": "papers.problems.labelled",
    "papers.mrl_study": "papers.claims.models",
    "papers.notes": "storage.resumable",
    "papers.rate_search": "papers.claims.rate_search",
    "papers.report": "papers.claims.report",
    "papers.trsa_study": "papers.problems.representations",
    "paths": "arguments.paths",
    "picture.looks": "picture.series",
    "picture.sheet": "picture.figure",
    "plan_file": "toml_plan",
    "progress": "process.progress",
    "search.best": "search.exact.top_k",
    "search.building": "search.engine.building",
    "search.calibration": "search.certified.calibration",
    "search.certifying": "search.stages.kinds.certified",
    "search.codes": "search.stages.faiss_codes",
    "search.condition": "search.where.condition",
    "search.copying": "search.index.copy",
    "search.creation": "search.index.create",
    "search.durable": "storage.durable",
    "search.equal": "search.graph.equal_rows",
    "search.filters": "search.exact.filters",
    "search.foreign": "search.engine.from_faiss",
    "search.frame": "search.exact.centring",
    "search.frontier": "search.plan.frontier",
    "search.funnel": "search.exact.funnel",
    "search.generation": "search.index.files.manifest",
    "search.ids": "search.index.files.ids",
    "search.incoming": "search.index.intake",
    "search.journal": "storage.resumable",
    "search.lock": "storage.lock",
    "search.log": "search.index.files.wal",
    "search.matching": "search.where.matching",
    "search.memory": "search.index.snapshot.memtable",
    "search.next_generation": "search.index.commit",
    "search.pipeline": "search.engine.pipeline",
    "search.plan.stages": "search.stages",
    "search.plane_codes": "search.certified.codes",
    "search.planes": "search.certified.planes",
    "search.point": "search.plan.point",
    "search.prefix": "vectors.prefix",
    "search.race": "search.tuning.trials",
    "search.reader": "search.index.reader",
    "search.recall": "search.exact.recall",
    "search.report": "search.index.info",
    "search.rerank": "search.stages.kinds.rerank",
    "search.scanners": "search.stages.coded_scan",
    "search.scores": "search.exact.scores",
    "search.segments": "search.index.files.segments",
    "search.snapshot": "search.index.snapshot.snapshot",
    "search.some_rows": "search.exact.subset",
    "search.space": "search.exact.space",
    "search.state": "search.index.snapshot.state",
    "search.stores.lance_columns": "search.stores.lance.columns",
    "search.stores.lance_labels": "search.stores.lance.labels",
    "search.stores.milvus_where": "search.stores.milvus.where",
    "search.stores.postgres_vectors": "search.stores.postgres.vectors",
    "search.stores.postgres_where": "search.stores.postgres.where",
    "search.stores.qdrant_edge": "search.stores.qdrant.edge",
    "search.stores.qdrant_points": "search.stores.qdrant.points",
    "search.stores.qdrant_where": "search.stores.qdrant.where",
    "search.stores.rerank": "search.stores.client_rerank",
    "search.stores.store": "search.stores.results",
    "search.stores.table": "search.stores.adapter",
    "search.threads": "search.exact.threads",
    "search.tiles": "search.exact.tiles",
    "search.tune": "search.tuning.planner",
    "search.turned": "search.graph.codec",
    "search.views": "search.exact.faiss_arrays",
    "search.walk": "search.graph.scan",
    "search.walk_requests": "search.graph.requests",
    "search.walk_steps": "search.graph.growth",
    "search.walking": "search.stages.kinds.graph",
    "search.where_text": "search.where.text",
    "search.widening": "search.index.widening",
    "search.writer": "search.index.writer",
    "training.plan": "domains.text.train_plan",
}

# Names that changed with the move of their module, or went to another one (a dotted path).
RENAMED: dict[str, dict[str, str]] = {
    "encoders.opening": {
        "BUNDLED": "encoders.text.names.BUNDLED",
        "check_model": "encoders.text.names.check_model",
        "no_model": "encoders.text.names.no_model",
    },
    "encoders.stored": {"open_vectors": "vectors.opening.open_vectors", "Map": "vectors.matrix.Map"},
    "kernels.walking": {
        "Lens": "QueryEncoder",
        "Walks": "EncodedQueries",
        "aim": "encode",
        "walk": "beam_search",
    },
    "papers.notes": {"Notes": "ResumableValues"},
    "search.frame": {"Aim": "PreparedQueries", "Frame": "Centring"},
    "search.generation": {
        "Generation": "IndexManifest",
        "read_generation": "load_manifest",
        "switch": "commit_manifest",
    },
    "search.journal": {"Journal": "ResumableArrays"},
    "search.log": {"LogName": "LogFiles"},
    "search.memory": {"MemoryPart": "Memtable", "MemoryView": "MemtableView"},
    "search.planes": {"Turned": "RotatedQueries", "turn": "rotate"},
    "search.race": {"Race": "Comparison"},
    "search.some_rows": {"SomeRows": "SubsetSearch"},
    "search.stores.store": {"Hits": "StoreHits", "Store": "search.stores.database.DatabaseStore"},
    "search.turned": {"Turn": "Codec"},
    "training.plan": {"OutputPlan": "domains.run_plan.OutputPlan"},
}


class _Finder:  # as in nestling.process.extras: the abstract class would double the time of the import
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = MOVED.get(fullname.removeprefix("nestling.")) if fullname.startswith("nestling.") else None
        if new is None:
            return None
        return ModuleSpec(fullname, _Loader(f"nestling.{new}"))  # type: ignore[arg-type]


class _Loader:
    """A module of the old name whose attributes are those of the new one."""

    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(
            f"{spec.name} is {self.new} now; import from there, the old path ends with nestling 0.3",
            DeprecationWarning,
            stacklevel=2,  # Python leaves out the frames of the import system
        )
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        new = import_module(self.new)
        module.__doc__ = new.__doc__
        renamed = RENAMED.get(module.__name__.removeprefix("nestling."), {})
        vars(module)["__getattr__"] = lambda name: _found(new, renamed.get(name) or name)
        vars(module)["__dir__"] = lambda: dir(new)


def _found(module: ModuleType, name: str) -> Any:
    other, _, last = name.rpartition(".")
    return getattr(import_module(f"nestling.{other}") if other else module, last)


def find_moved_modules() -> None:
    """Let the old paths be found, from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
