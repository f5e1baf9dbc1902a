"""Public conformance suites: anybody's elastic thing or store is done when its ``check`` passes."""

from nestling.testing.elastic import ELASTIC_LAWS, ElasticExample, LawError, check_elastic
from nestling.testing.store import STORE_LAWS, check_store
from nestling.testing.store_example import StoreExample

__all__ = [
    "ELASTIC_LAWS",
    "STORE_LAWS",
    "ElasticExample",
    "LawError",
    "StoreExample",
    "check_elastic",
    "check_store",
]
