"""Rooms: old paths of public names still work, and the table of rooms is what the contracts say."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from nestling._moved import MOVED, RENAMED

ROOT = Path(__file__).resolve().parents[1]

# The documented names of nestling 0.1 whose modules have another path now.
OLD = {
    "artifact": [
        "FileRecord",
        "Manifest",
        "storage_errors",
        "reading_errors",
        "open_array",
        "write_folder",
        "read_folder",
        "read_manifest",
        "malformed",
        "check_folder_target",
        "check_file_target",
        "write_result",
        "write_file",
        "open_new",
        "verify_files",
        "verify_file",
        "sha256_of",
    ],
    "compare.adaptive": ["AdaptiveDependence", "adaptive_dependence"],
    "compare.bars": ["plot_evaluation"],
    "compare.bootstrap": ["Resamples", "bootstrap", "two_factor_variance"],
    "compare.comparators": [
        "compare",
        "Comparator",
        "comparator",
        "usable",
        "products",
        "unit",
        "average_ranks",
    ],
    "compare.estimators": [
        "Form",
        "RatePrior",
        "euclidean",
        "mahalanobis",
        "correlation",
        "cosine",
        "poisson",
        "both_ways",
        "check_counts",
    ],
    "compare.evaluation": ["Evaluation", "evaluate"],
    "compare.files": ["rdms_of_files"],
    "compare.foreign": [
        "to_rsatoolbox",
        "from_rsatoolbox",
        "to_xarray",
        "from_xarray",
        "to_pandas",
        "from_pandas",
    ],
    "compare.geodesic": ["Paths", "Geodesic"],
    "compare.identify": ["Grouping", "Identification", "identify", "common_pairs", "missing_classes"],
    "compare.layers": ["LayerSimilarities", "compare_layers", "plot_layers"],
    "compare.moments": ["Whitening", "squares", "bures_similarity", "bures_distance"],
    "compare.noise": ["noise_precision", "whitener", "whitened"],
    "compare.noise_ceiling": ["NoiseCeiling", "noise_ceiling", "poolable", "complete", "Pools"],
    "compare.pairwise": ["Agreement", "agreements", "similarity_by_thresholds"],
    "compare.patterns": ["linear_cka", "procrustes"],
    "compare.plot": ["plot_matrices", "plot_maps", "map_stimuli", "plot_thresholds", "threshold_panel"],
    "compare.prefixes": ["prefix_rdms", "prefix_distances"],
    "compare.rdm": ["rdm"],
    "compare.rdms": ["RDMs"],
    "compare.significance": [
        "PermutationTest",
        "permute_stimuli",
        "flip_signs",
        "compare_groups",
        "adjusted",
    ],
    "compare.threshold_search": ["Choice", "ThresholdSearch", "search_thresholds"],
    "compare.thresholds": ["check_thresholds", "threshold_grid", "region_of", "sample_thresholds"],
    "compare.topology": ["OrderedDistances", "geo_topological", "GeoTopological", "SmoothTopological"],
    "compare.transformer": ["MatrixTransformer"],
    "data.beir": ["read_beir", "read_qrels", "read_run"],
    "data.catalogue": ["RemoteFile", "DataSet"],
    "data.columns": ["Column", "Columns", "GrowingColumns", "write_columns", "read_columns", "parts_of"],
    "data.delimited": ["Fields", "names_columns", "header", "is_table", "read_fields", "with_decimal_commas"],
    "data.description": ["TableFile", "read_wanted"],
    "data.dissimilarities": ["Dissimilarities", "pictures92"],
    "data.docstrings": ["SourceFile", "docstring_pairs", "default_roots", "find_files"],
    "data.fields": [
        "read_value",
        "check_kinds",
        "check_name",
        "kind_of",
        "joined_kind",
        "converted",
        "widened",
    ],
    "data.images": ["LabelledImages", "fashion_mnist", "digits", "read_idx"],
    "data.input_file": ["InputFile", "find_file"],
    "data.retrieval_sets": ["cranfield", "xquad", "read_squad"],
    "data.roles": ["read_roles"],
    "data.source": ["data_folder", "cache_folder", "where", "Listing", "listing", "locate", "download"],
    "data.sts": ["ScoredPairs", "stsb", "read_scored_pairs"],
    "data.table": ["Table", "read_table", "read_in_parts", "counted", "read_json_lines"],
    "data.text_checks": ["check_texts", "is_torn"],
    "domains.collection": ["Hit", "Collection", "check_target"],
    "domains.encoding": ["encoded"],
    "domains.pair_objective": ["train_on_pairs", "PairObjective"],
    "domains.planned_loss": ["planned_loss"],
    "domains.pretraining": ["pretrain", "pretrain_by_plan"],
    "domains.similarity": ["train_by_plan", "ScoredRows"],
    "domains.text": ["read_data", "TextStudy", "PairRows"],
    "encoders.adapter": ["NestedAdapter"],
    "encoders.fit_report": ["FitReport", "compare_with_truncation"],
    "encoders.opening": ["check_model", "no_model", "open_encoder"],
    "encoders.pca": ["Moments", "PCARotation"],
    "encoders.serving": ["Served", "prepare_for_servers", "served_by", "in_words", "warn_of_others"],
    "encoders.static": ["StaticEncoder"],
    "encoders.stored": ["Map", "StoredVectors", "open_vectors"],
    "encoders.text": ["TextEncoder"],
    "encoders.vector_map": ["VectorMap", "check_rule"],
    "kinds": ["in_words", "check_kind"],
    "measure.choice": ["Row", "Targets", "choose", "pareto"],
    "measure.classification": [
        "HeadClassification",
        "NeighbourClassification",
        "LinearProbe",
        "NearestClassMean",
    ],
    "measure.curve": ["Curve"],
    "measure.fidelity": ["Fidelity"],
    "measure.grid": ["Grid"],
    "measure.metrics": [
        "label_hits",
        "check_labels",
        "ndcg",
        "recall",
        "precision",
        "success",
        "reciprocal_rank",
        "average_precision",
        "spearman",
        "check_scores",
        "weighted_ranks",
        "weighted_correlation",
        "v_measure",
        "weighted_v_measure",
    ],
    "measure.pair_scores": ["PairScores"],
    "measure.qrels": ["Judgements", "Qrels", "Labels"],
    "measure.retrieval": ["Retrieval"],
    "measure.scores": ["Scores", "MeanScores", "SpearmanScores", "VMeasureScores", "RetentionScores"],
    "measure.tasks": [
        "Task",
        "ComparesWithFull",
        "is_relative",
        "check_task",
        "with_full",
        "STS",
        "Clustering",
        "Robustness",
    ],
    "picture.looks": ["Look", "look_of"],
    "picture.sheet": ["draw"],
    "search.certified": ["Certificate", "CertifiedNeighbours", "CertifiedScan"],
    "search.condition": ["Compare", "All", "Either", "Not", "meets", "family_of"],
    "search.engine": ["Engine", "build"],
    "search.exact": ["Neighbours", "nearest", "nearest_each"],
    "search.frontier": ["Trial", "Frontier", "check_recall", "measured_point"],
    "search.funnel": ["Funnel"],
    "search.index": ["AdaptiveIndex"],
    "search.plan": ["PlanCost", "Plan"],
    "search.point": ["Point"],
    "search.prefix": [
        "check_dims",
        "prepare",
        "unrounded",
        "prefix_square_norms",
        "prefix_norms",
        "finite_squares",
        "beyond_single",
        "refuse_beyond_single",
        "prefix_pair_scores",
    ],
    "search.reader": ["IndexReader"],
    "search.snapshot": ["Hits", "LiveSegment", "Snapshot", "Filter"],
    "search.stages": ["Coarse", "Scan", "Rerank", "parse_stage"],
    "search.stores.lance": ["LanceTable"],
    "search.stores.milvus": ["MilvusTable"],
    "search.stores.postgres": ["PostgresTable"],
    "search.stores.qdrant": ["ServerWords", "QdrantTable"],
    "search.stores.qdrant_edge": ["EdgeWords", "QdrantEdgeTable"],
    "search.tune": ["candidate_plans", "tune", "build", "retune", "compare_with_exact"],
    "search.walk": ["GraphScan"],
    "search.where": ["read_where", "check_where"],
    "training.plan": [
        "DataPlan",
        "ModelPlan",
        "LossPlan",
        "MaskingPlan",
        "OutputPlan",
        "TrainPlan",
        "read_plan",
        "check_sources",
        "write_plan",
    ],
}

ASKED = """
import json, sys, warnings
from importlib import import_module
found = {}
for module, names in json.loads(sys.argv[1]).items():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        old = import_module(f"nestling.{module}")
        homes = {name: getattr(old, name).__module__ for name in names}
    told = [str(each.message) for each in told if each.category is DeprecationWarning]
    found[module] = homes, [each for each in told if each.startswith(f"nestling.{module} is ")]
print(json.dumps(found))
"""


def test_old_paths_work_and_say_the_new_one(python: str) -> None:
    """In a process of its own, as a warning comes with the first import alone."""
    answer = subprocess.run(
        [python, "-c", ASKED, json.dumps(OLD)], capture_output=True, text=True, check=True
    )
    for module, (homes, told) in json.loads(answer.stdout).items():
        assert set(homes) == set(OLD[module])
        if module in MOVED:
            elsewhere = {
                f"nestling.{each.rpartition('.')[0]}"
                for each in RENAMED.get(module, {}).values()
                if "." in each
            }
            assert set(homes.values()) == {f"nestling.{MOVED[module]}", *elsewhere}, module
            assert told == [
                f"nestling.{module} is nestling.{MOVED[module]} now; import from there, the old path ends "
                "with nestling 0.3"
            ]
        else:
            assert told == []
            assert all(home.startswith(f"nestling.{module}.") for home in homes.values()), module


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_module_is_where_it_is_said_to_be(old: str) -> None:
    home = ROOT / "src/nestling"
    new = home / MOVED[old].replace(".", "/")
    assert new.with_suffix(".py").is_file() or (new / "__init__.py").is_file()
    assert not (home / f"{old.replace('.', '/')}.py").exists()


def test_old_names_of_a_moved_module_work() -> None:
    with pytest.warns(DeprecationWarning, match=r"is nestling\.kernels\.graph now"):
        old = importlib.import_module("nestling.kernels.walking")
    from nestling.kernels import graph

    assert old.Lens is graph.QueryEncoder
    assert old.walk is graph.beam_search
    assert old.CodedGraph is graph.CodedGraph


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # comes with the first import alone
@pytest.mark.parametrize("module", RENAMED)
def test_old_names_of_each_moved_module_lead_to_the_new_ones(module: str) -> None:
    old = importlib.import_module(f"nestling.{module}")
    for name, new in RENAMED[module].items():
        where, _, last = new.rpartition(".")
        home = importlib.import_module(f"nestling.{where or MOVED[module]}")
        assert getattr(old, name) is getattr(home, last)


def test_tasks_are_imported_from_their_room() -> None:
    from nestling import measure
    from nestling.measure import tasks

    for name in (
        "Retrieval",
        "NearestClassMean",
        "NeighbourClassification",
        "LinearProbe",
        "HeadClassification",
    ):
        assert getattr(tasks, name) is getattr(measure, name)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("measure.tasks", "check_task", "check_is_task"),
        ("measure.tasks.tasks", "check_task", "check_is_task"),
        ("search.stores", "Hits", "StoreHits"),
        ("search.stores", "Store", "DatabaseStore"),
        ("search.engine", "Scanner", "nestling.search.stages.building.Scanner"),
        ("search.index.snapshot", "Hits", "nestling.search.index.snapshot.snapshot.Hits"),
        ("data.tables.fields", "check_kinds", "nestling.data.tables.fields.kinds.check_kinds"),
        ("encoders.text.opening", "no_model", "nestling.encoders.text.names.no_model"),
        ("training", "TrainPlan", "nestling.domains.text.train_plan.TrainPlan"),
        ("training", "read_plan", "nestling.domains.text.train_plan.read_plan"),
        ("training", "write_plan", "nestling.domains.text.train_plan.write_plan"),
        ("vectors.stored", "open_vectors", "nestling.vectors.opening.open_vectors"),
    ],
)
def test_old_names_of_a_module_that_stays_work(module: str, old: str, new: str) -> None:
    home = importlib.import_module(f"nestling.{module}")
    message = rf"^nestling\.{module}\.{old} is {new} now; the old name ends with nestling 0\.3$"
    with pytest.warns(DeprecationWarning, match=message) as warned:
        found = getattr(home, old)
    assert warned[0].filename == __file__
    where, _, name = new.rpartition(".")
    assert found is getattr(importlib.import_module(where) if where else home, name)
    assert old not in dir(home)
    with pytest.raises(AttributeError, match=rf"module 'nestling\.{module}' has no attribute 'nothing'"):
        _ = home.nothing


def test_a_module_that_never_was_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"nestling\.search\.nothing"):
        __import__("nestling.search.nothing")


def contracts() -> dict[str, list[str]]:
    """The layers of each contract, top to bottom, by the room that they are in."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            layers = [name.strip() for line in contract["layers"] for name in line.split("|")]
            room = re.sub(r"\.?[^.]*$", "", layers[0])
            found[room] = [name.removeprefix(f"{room}.") for name in layers]
    return found


def test_the_tables_of_rooms_are_the_contracts() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for room, layers in contracts().items():
        table = text.split(f"| {'room' if room == 'nestling' else f'in `{room[9:]}`'} |", 1)[1].split("\n\n")[
            0
        ]
        rows = [row.split("|")[1] for row in table.splitlines()[2:]]
        assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == layers


def test_every_room_says_its_job_in_a_sentence() -> None:
    for room in sorted({path.parent for path in (ROOT / "src/nestling").rglob("*.py")}):
        text = (room / "__init__.py").read_text(encoding="utf-8")
        job = ast.get_docstring(ast.parse(text)) or ""
        assert re.match(r"[^\n]+\.$", job.split("\n\n")[0].replace("\n", " ")), room


ROOMS = [
    ".".join(path.relative_to(ROOT / "src").parts[:-1]) for path in ROOT.glob("src/nestling/**/__init__.py")
]


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_exports_what_it_says(name: str) -> None:
    room = importlib.import_module(name)
    assert all(hasattr(room, exported) for exported in getattr(room, "__all__", []))


def test_a_room_holds_about_a_dozen_files() -> None:
    """Thirteen beside its ``__init__``."""
    for room in sorted({path.parent for path in (ROOT / "src/nestling").rglob("*.py")}):
        files = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 13, f"{room} holds {len(files)} files"
